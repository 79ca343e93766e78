"""The doors of MCP servers: rules, sockets and events of their own, and ports that lead to one destination."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from policies.plan import EgressQuota, EgressRule, Plan, Tool
from tests.proxy.kit import Names, code_of, converse, firewall_for, make_plan, rule, run
from tests.proxy.outside import echo

HOME = ["127.0.0.1"]


def plan_with(server: list[EgressRule], stage: list[EgressRule]) -> Plan:
    """A plan whose stage `work` has the server `db`, which has rules of its own."""
    base = make_plan(egress=stage)
    tool = Tool(name="db", image="tool", url=None, secret=None, egress=server)
    stages = [msgspec.structs.replace(one, tools={"db": []} if one.name == "work" else {}) for one in base.stages]
    return msgspec.structs.replace(base, tools=[tool], stages=stages)


def doors(root: Path) -> Path:
    (root / "doors" / "work.db").mkdir(exist_ok=True)
    return root / "doors" / "work.db"


def test_a_port_leads_to_its_one_destination_whatever_is_spoken_there(root: Path) -> None:
    async def scenario() -> None:
        async with echo() as database:
            names = Names(db_example=HOME)
            plan = plan_with([rule("db.example", database.port, "tcp")], [])
            folder = doors(root)
            async with firewall_for(plan, root, names) as log:
                reader, writer = await asyncio.open_unix_connection(folder / f"{database.port}.sock")
                writer.write(b"\x00\x00\x00\x08\x04\xd2\x16/")  # no TLS, no HTTP
                assert await reader.readexactly(8) == b"\x00\x00\x00\x08\x04\xd2\x16/"
                writer.close()
                await writer.wait_closed()
                while not log.named("egress.closed"):
                    await asyncio.sleep(0.01)
        decided, closed = log.lines
        assert (decided["event"], decided["verdict"], decided["stage"]) == ("egress.decided", "allow", "work")
        for line in (decided, closed):
            assert line["attrs"]["casemate.server"] == "db"
            assert line["attrs"]["server.address"] == "db.example"
        assert names.asked == ["db.example"]

    run(scenario())


def test_a_port_whose_name_leads_elsewhere_is_cut_and_its_quota_counts(root: Path) -> None:
    async def scenario() -> None:
        async with echo() as database:
            quota = EgressQuota(requests=1, bytes=None)
            names = Names(db_example=HOME, inner_example=["10.0.0.1"])
            rules = [
                rule("db.example", database.port, "tcp", quota=quota),
                rule("inner.example", database.port + 1, "tcp"),
            ]
            folder = doors(root)
            async with firewall_for(plan_with(rules, []), root, names) as log:

                async def said(port: int) -> bytes:
                    reader, writer = await asyncio.open_unix_connection(folder / f"{port}.sock")
                    writer.write(b"hello")
                    writer.write_eof()
                    try:
                        return await reader.read()
                    except ConnectionResetError:
                        return b""

                assert await said(database.port) == b"hello"
                assert await said(database.port) == b""
                assert await said(database.port + 1) == b""
            assert log.denied == ["CSM-P012", "CSM-P005"]
            assert database.connections == 1

    run(scenario())


def test_a_server_has_the_rules_of_nobody_else_and_nobody_has_its_own(root: Path) -> None:
    async def scenario() -> None:
        names = Names()
        plan = plan_with([rule("server.example", 80, "http")], [rule("stage.example", 80, "http")])
        folder = doors(root)
        async with firewall_for(plan, root, names) as log:
            for door, host in (("work.db", "stage.example"), ("work", "server.example")):
                ask = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
                assert code_of(await converse(folder.parent / door / "egress.sock", ask)) == "CSM-P003"
        assert names.asked == []
        assert [(line["stage"], line["attrs"].get("casemate.server")) for line in log.lines] == [
            ("work", "db"),
            ("work", None),
        ]

    run(scenario())

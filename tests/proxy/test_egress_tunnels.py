"""Conversations through the egress door of a stage, over real sockets: CONNECT, and the tunnels of the llm process."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.proxy.kit import Names, code_of, converse, firewall_for, make_plan, rule, run
from tests.proxy.outside import certificate, echo
from tests.proxy.test_egress_hello import hello

HOME = ["127.0.0.1"]


def door(root: Path) -> Path:
    return root / "doors" / "work" / "egress.sock"


async def connect(path: Path, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a tunnel as a client does, up to the 200."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return reader, writer


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_an_allowed_tunnel_carries_tls_and_is_accounted(root: Path, size: int) -> None:
    async def scenario() -> None:
        server_tls, client_tls = certificate(root, "a.example")
        async with echo(server_tls) as server:
            names = Names(a_example=HOME)
            plan = make_plan(egress=[rule("a.example", server.port)])
            async with firewall_for(plan, root, names) as log:
                reader, writer = await connect(door(root), "a.example", server.port)
                await writer.start_tls(client_tls, server_hostname="a.example")
                writer.write(b"x" * size)
                assert await reader.readexactly(size) == b"x" * size
                writer.close()
                await writer.wait_closed()
        decided, closed = log.lines
        assert (decided["event"], decided["verdict"]) == ("egress.decided", "allow")
        assert decided["attrs"]["network.peer.address"] == "127.0.0.1"
        assert decided["rule"] == f"w.yaml:1:1 (a.example:{server.port})"
        assert closed["event"] == "egress.closed"
        assert closed["attrs"]["casemate.bytes.out"] > size
        assert closed["attrs"]["casemate.bytes.in"] > size
        assert names.asked == ["a.example"]

    run(scenario())


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"CONNECT secret-data.evil.example:443 HTTP/1.1\r\n\r\n", "CSM-P003"),
        (b"GET http://secret-data.evil.example/ HTTP/1.1\r\nHost: secret-data.evil.example\r\n\r\n", "CSM-P003"),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P008"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "CSM-P008"),
        (b"CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", "CSM-P004"),
        (b"CONNECT a.example:22 HTTP/1.1\r\n\r\n", "CSM-P003"),
        (b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\nsecret...", "CSM-P009"),
        (b"nonsense\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\nHost: a.example\n\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\r\nX: " + b"a" * 40_000, "CSM-P002"),
    ],
)
def test_trap_2_row_3_a_denied_name_is_never_resolved_and_makes_one_event(root: Path, head: bytes, code: str) -> None:
    async def scenario() -> None:
        names = Names(a_example=HOME, evil_example=HOME)
        plan = make_plan(egress=[rule("a.example"), rule("a.example", 80, "http", ["GET"])])
        async with firewall_for(plan, root, names) as log:
            assert code_of(await converse(door(root), head)) == code
        assert names.asked == []
        assert log.denied == [code]
        assert len(log.lines) == 1

    run(scenario())


def test_the_socket_is_the_identity(root: Path) -> None:
    async def scenario() -> None:
        async with firewall_for(make_plan(egress=[rule("a.example")]), root) as log:
            other = root / "doors" / "other" / "egress.sock"
            assert code_of(await converse(other, b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")) == "CSM-P003"
        assert [line["stage"] for line in log.lines] == ["other"]

    run(scenario())


@pytest.mark.parametrize(
    "first",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", hello("b.example"), hello(None)],
    ids=["ssh", "http", "other-name", "no-name"],
)
def test_trap_4_row_16_nothing_but_a_hello_for_the_host_goes_out(root: Path, first: bytes) -> None:
    async def scenario() -> None:
        async with echo() as server:
            names = Names(a_example=HOME, b_example=HOME)
            async with firewall_for(make_plan(egress=[rule("a.example", server.port)]), root, names) as log:
                reader, writer = await connect(door(root), "a.example", server.port)
                writer.write(first)
                assert await reader.read() == b""
                writer.close()
        assert (server.connections, names.asked, log.denied) == (0, [], ["CSM-P007"])
        assert len(log.lines) == 1

    run(scenario())


def test_a_hello_in_the_same_segment_or_byte_by_byte_passes(root: Path) -> None:
    async def scenario() -> None:
        async with echo() as server:
            data = hello("a.example")
            plan = make_plan(egress=[rule("a.example", server.port)])
            async with firewall_for(plan, root, Names(a_example=HOME)) as log:
                for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
                    reader, writer = await asyncio.open_unix_connection(door(root))
                    writer.write(f"CONNECT a.example:{server.port} HTTP/1.1\r\n\r\n".encode() + pieces[0])
                    for piece in pieces[1:]:
                        writer.write(piece)
                        await asyncio.sleep(0)
                    await reader.readuntil(b"\r\n\r\n")
                    assert await reader.readexactly(len(data)) == data
                    writer.write_eof()  # half-close goes through, and comes back
                    assert await reader.read() == b""
                    writer.close()
            assert log.denied == []
            assert [line["attrs"]["casemate.bytes.out"] for line in log.named("egress.closed")] == [len(data)] * 2

    run(scenario())


@pytest.mark.parametrize(
    ("addresses", "code"),
    [
        (["10.0.0.1"], "CSM-P005"),
        (["127.0.0.1", "169.254.169.254"], "CSM-P005"),
        (["::ffff:127.0.0.1"], "CSM-P005"),
        ([], "CSM-P006"),
    ],
)
def test_row_7_an_allowed_name_with_a_forbidden_address_is_denied(root: Path, addresses: list[str], code: str) -> None:
    async def scenario() -> None:
        async with echo() as server:
            plan = make_plan(egress=[rule("a.example", server.port), rule("a.example", 80, "http")])
            async with firewall_for(plan, root, Names(a_example=addresses)) as log:
                reader, writer = await connect(door(root), "a.example", server.port)
                writer.write(hello("a.example"))
                assert await reader.read() == b""
                writer.close()
                plain = await converse(door(root), b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
                assert code_of(plain) == code
        assert server.connections == 0
        assert log.denied == [code, code]

    run(scenario())


def test_row_7_the_address_that_was_checked_is_the_one_that_is_used(root: Path) -> None:
    """A rebinding resolver answers differently the second time; nobody asks it a second time."""

    async def scenario() -> None:
        async with echo() as server:
            names = Names(a_example=HOME)
            plan = make_plan(egress=[rule("a.example", server.port)])
            async with firewall_for(plan, root, names) as log:
                reader, writer = await connect(door(root), "a.example", server.port)
                writer.write(hello("a.example"))
                await reader.readexactly(5)
                names.answers["a.example"] = ["10.0.0.1"]
                writer.close()
        assert (names.asked, server.connections) == (["a.example"], 1)
        assert log.lines[0]["attrs"]["network.peer.address"] == "127.0.0.1"

    run(scenario())


def test_a_destination_that_does_not_answer_ends_the_tunnel(root: Path) -> None:
    async def scenario() -> None:
        async with echo() as server:
            port = server.port
        async with firewall_for(make_plan(egress=[rule("a.example", port)]), root, Names(a_example=HOME)) as log:
            reader, writer = await connect(door(root), "a.example", port)
            writer.write(hello("a.example"))
            assert await reader.read() == b""
            writer.close()
        assert [(line["event"], line["rule"]) for line in log.lines][1] == ("egress.closed", "CSM-P006")

    run(scenario())


def test_row_37_connections_over_the_limit_are_refused_and_others_served(root: Path) -> None:
    async def scenario() -> None:
        async with firewall_for(make_plan(egress=[rule("a.example")]), root) as log:
            held = [await asyncio.open_unix_connection(door(root)) for _ in range(256)]
            answer = await converse(door(root))
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert code_of(answer) == "CSM-P011"
            other = root / "doors" / "other" / "egress.sock"
            assert code_of(await converse(other, b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")) == "CSM-P003"
            for _, writer in held:
                writer.close()
            for reader, _ in held:
                assert await reader.read() == b""
            assert code_of(await converse(door(root), b"CONNECT b.example:443 HTTP/1.1\r\n\r\n")) == "CSM-P003"
        assert log.denied == ["CSM-P011", "CSM-P003", "CSM-P003"]

    run(scenario())


def test_a_decision_that_cannot_be_written_lets_nothing_out(root: Path) -> None:
    async def scenario() -> None:
        async with echo() as server:
            plan = make_plan(egress=[rule("a.example", server.port), rule("a.example", server.port, "http")])
            async with firewall_for(plan, root, Names(a_example=HOME)) as log:
                log.full = True
                reader, writer = await connect(door(root), "a.example", server.port)
                writer.write(hello("a.example"))
                assert await reader.read() == b""
                writer.close()
                host = f"a.example:{server.port}".encode()
                plain = await converse(door(root), b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host))
                assert b"200 OK" not in plain
                assert log.events.broken.is_set()
        assert server.connections == 0

    run(scenario())


def test_the_tunnel_of_a_local_model_leads_to_its_socket(root: Path) -> None:
    async def scenario() -> None:
        async def model(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"model says " + await reader.readexactly(2))
            writer.close()

        server = await asyncio.start_unix_server(model, root / "models" / "tiny" / "model.sock")
        async with server, firewall_for(make_plan(), root) as log:
            assert await converse(root / "doors" / "up-teacher" / "up.sock", b"hi") == b"model says hi"
        decided, closed = log.lines
        assert (decided["stage"], decided["rule"]) == (None, "up-teacher")
        assert decided["attrs"] == {"server.address": "tiny", "casemate.component": "llm"}
        assert (closed["attrs"]["casemate.bytes.out"], closed["attrs"]["casemate.bytes.in"]) == (2, 13)

    run(scenario())


@pytest.mark.parametrize("name", ["llm.example.com", "evil.example"])
def test_the_tunnel_of_a_provider_carries_tls_for_that_provider_only(root: Path, name: str) -> None:
    async def scenario() -> None:
        names = Names(llm_example_com=["10.0.0.9"])
        async with firewall_for(make_plan(), root, names) as log:
            assert await converse(root / "doors" / "up-remote" / "up.sock", hello(name)) == b""
        allowed = name == "llm.example.com"
        assert log.denied == ["CSM-P005" if allowed else "CSM-P007"]
        assert names.asked == (["llm.example.com"] if allowed else [])

    run(scenario())


def test_a_client_that_trusts_nobody_else_sees_the_real_certificate(root: Path) -> None:
    async def scenario() -> None:
        server_tls, _ = certificate(root, "b.example")
        _, client_tls = certificate(root, "a.example")
        async with echo(server_tls) as server:
            plan = make_plan(egress=[rule("a.example", server.port)])
            async with firewall_for(plan, root, Names(a_example=HOME)):
                _, writer = await connect(door(root), "a.example", server.port)
                with pytest.raises(ssl.SSLCertVerificationError):
                    await writer.start_tls(client_tls, server_hostname="a.example")
                writer.close()

    run(scenario())

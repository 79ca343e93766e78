"""Quotas of a rule: requests and bytes, plain, inspected and in tunnels, over many connections at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from policies.plan import EgressQuota
from proxy.egress.quota import Meter, Meters
from proxy.egress.types import Refused
from tests.proxy.kit import Names, code_of, converse, firewall_for, make_plan, rule, run
from tests.proxy.outside import certificate, echo, web
from tests.proxy.test_egress_http import request, response
from tests.proxy.test_egress_inspect import lab
from tests.proxy.test_egress_tunnels import connect, door

HOME = ["127.0.0.1"]


def quota(requests: int | None = None, size: int | None = None) -> EgressQuota:
    return EgressQuota(requests=requests, bytes=size)


def test_a_meter_never_gives_more_than_there_is() -> None:
    meter = Meter(rule("a.example", quota=quota(2, 100)))
    meter.admit()
    meter.take(60)
    meter.take(40)
    with pytest.raises(Refused) as refused:
        meter.take(1)
    assert refused.value.code == "CSM-P012"
    with pytest.raises(Refused):
        meter.admit()  # there are no bytes left


def test_what_does_not_fit_ends_it() -> None:
    meter = Meter(rule("a.example", quota=quota(None, 100)))
    for size in (101, 1):
        with pytest.raises(Refused):
            meter.take(size)


def test_each_rule_has_a_meter_of_its_own_and_without_a_quota_no_end() -> None:
    one, two = rule("a.example", quota=quota(1)), rule("b.example")
    meters = Meters([one, two])
    meters.of(one).admit()
    with pytest.raises(Refused):
        meters.of(one).admit()
    for _ in range(1000):
        meters.of(two).admit()
        meters.of(two).take(2**40)


@pytest.mark.parametrize("connections", [1, 4])
def test_requests_beyond_a_quota_are_refused_on_whatever_connection(root: Path, connections: int) -> None:
    async def scenario() -> None:
        async with web() as server:
            plan = make_plan(egress=[rule("a.example", server.port, "http", quota=quota(10))])
            async with firewall_for(plan, root, Names(a_example=HOME)) as log:

                async def ask(times: int) -> int:
                    served = 0
                    reader, writer = await asyncio.open_unix_connection(door(root))
                    for _ in range(times):
                        writer.write(request(server))
                        head = await reader.readuntil(b"\r\n\r\n")
                        if b" 200 " not in head:
                            assert b" 429 " in head
                            break
                        await reader.readexactly(2)
                        served += 1
                    writer.close()
                    return served

                assert sum(await asyncio.gather(*(ask(20) for _ in range(connections)))) == 10
                assert code_of(await converse(door(root), request(server))) == "CSM-P012"
            assert len(server.received) == 10
            assert set(log.denied) == {"CSM-P012"}

    run(scenario())


async def pour(writer: asyncio.StreamWriter) -> None:
    """Send 5 MB."""
    for _ in range(500):
        writer.write(b"x" * 10_000)
        await writer.drain()


@pytest.mark.parametrize("way", ["up", "down"])
def test_an_inspected_stream_that_passes_its_quota_is_cut(root: Path, way: str) -> None:
    limit = 1_000_000

    async def scenario() -> None:
        big = b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000
        async with lab(root, quota=quota(None, limit), answer=big if way == "down" else None) as it:
            reader, writer = await it.open()
            if way == "down":
                writer.write(it.request())
                got = await reader.read()
                assert got.startswith(b"HTTP/1.1 200 OK")
                assert len(got) <= limit
            else:
                writer.write(it.request("POST", more="Content-Length: 5000000\r\n"))
                with suppress(ConnectionError):  # this client gives up once it has been told
                    await pour(writer)
                assert code_of(await reader.read()) == "CSM-P012"
            writer.close()
            again = await it.ask(it.request())
            assert code_of(again) == "CSM-P012"
        closed = it.log.named("egress.closed")[0]["attrs"]
        assert limit - 65536 - 1000 <= closed["casemate.bytes.in"] + closed["casemate.bytes.out"] <= limit + 1000
        assert it.log.denied == ["CSM-P012", "CSM-P012"]

    run(scenario())


@pytest.mark.parametrize("connections", [1, 3])
def test_tunnels_share_a_quota_and_are_cut(root: Path, connections: int) -> None:
    limit = 2_000_000

    async def scenario() -> None:
        server_tls, client_tls = certificate(root, "a.example")
        async with echo(server_tls) as server:
            plan = make_plan(egress=[rule("a.example", server.port, quota=quota(None, limit))])
            async with firewall_for(plan, root, Names(a_example=HOME)) as log:

                async def pump() -> None:
                    reader, writer = await connect(door(root), "a.example", server.port)
                    try:
                        await writer.start_tls(client_tls, server_hostname="a.example")
                        while True:
                            writer.write(b"x" * 30_000)
                            await reader.readexactly(30_000)
                    except (OSError, asyncio.IncompleteReadError):
                        pass
                    finally:
                        writer.close()

                await asyncio.gather(*(pump() for _ in range(connections)))
            closed = log.named("egress.closed")
            moved = sum(e["attrs"]["casemate.bytes.in"] + e["attrs"]["casemate.bytes.out"] for e in closed)
            assert limit - connections * 65536 <= moved <= limit
            assert [e["rule"] for e in closed] == ["CSM-P012"] * connections
            assert log.denied == ["CSM-P012"] * connections

    run(scenario())


def test_a_tunnel_counts_as_one_request(root: Path) -> None:
    async def scenario() -> None:
        server_tls, client_tls = certificate(root, "a.example")
        async with echo(server_tls) as server:
            plan = make_plan(egress=[rule("a.example", server.port, quota=quota(1))])
            names = Names(a_example=HOME)
            async with firewall_for(plan, root, names) as log:
                reader, writer = await connect(door(root), "a.example", server.port)
                await writer.start_tls(client_tls, server_hostname="a.example")
                writer.write(b"x" * 1000)
                assert await reader.readexactly(1000)
                writer.close()
                head = f"CONNECT a.example:{server.port} HTTP/1.1\r\n\r\n".encode()
                assert code_of(await converse(door(root), head)) == "CSM-P012"
            assert (server.connections, names.asked, log.denied) == (1, ["a.example"], ["CSM-P012"])

    run(scenario())


def test_a_quota_counts_inside_a_tunnel_request_by_request(root: Path) -> None:
    async def scenario() -> None:
        async with lab(root, quota=quota(2)) as it:
            reader, writer = await it.open()
            for _ in range(2):
                writer.write(it.request())
                assert (await response(reader)).endswith(b"ok")
            writer.write(it.request())
            assert code_of(await reader.read()) == "CSM-P012"
            writer.close()
        assert len(it.server.received) == 2

    run(scenario())

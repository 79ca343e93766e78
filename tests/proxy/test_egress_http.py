"""Plain HTTP through the firewall, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.kit import Names, code_of, converse, firewall_for, make_plan, rule, run
from tests.proxy.outside import Server, serving, web

HOME = ["127.0.0.1"]


def door(root: Path) -> Path:
    return root / "doors" / "work" / "egress.sock"


def plan_for(server: Server, methods: tuple[str, ...] = ()) -> Any:
    return make_plan(egress=[rule("a.example", server.port, "http", methods)])


def request(server: Server, line: str = "GET", path: str = "/x", host: str = "a.example", more: str = "") -> bytes:
    where = f"{host}:{server.port}"
    return f"{line} http://{where}{path} HTTP/1.1\r\nHost: {where}\r\n{more}\r\n".encode()


async def response(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(size)


def test_an_allowed_request_is_forwarded_in_origin_form_with_the_judged_host(root: Path) -> None:
    async def scenario() -> None:
        names = Names(a_example=HOME)
        async with web() as server, firewall_for(plan_for(server), root, names) as log:
            more = "Proxy-Authorization: Basic c2VjcmV0\r\nX-Kept: yes\r\nConnection: close\r\n"
            answer = await converse(door(root), request(server, path="/p?q=1", more=more))
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert answer.endswith(b"ok")
        head = server.received[0].lower()
        assert head.startswith(b"get /p?q=1 http/1.1\r\n")
        assert f"host: a.example:{server.port}\r\n".encode() in head
        assert b"x-kept: yes" in head
        assert b"proxy" not in head
        assert [(line["event"], line["verdict"]) for line in log.lines] == [
            ("egress.decided", "allow"),
            ("egress.closed", None),
        ]
        assert names.asked == ["a.example"]
        assert "/p" not in str(log.lines)  # a path may carry data

    run(scenario())


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_are_streamed_both_ways(root: Path, chunked: bool) -> None:
    async def scenario() -> None:
        body = b"0123456789" * 50_000
        more = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {len(body)}\r\n"
        framed = (
            b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:7], body[7:])) + b"0\r\n\r\n" if chunked else body
        )
        async with web() as server, firewall_for(plan_for(server), root, Names(a_example=HOME)) as log:
            reader, writer = await asyncio.open_unix_connection(door(root))
            writer.write(request(server, "POST", more=more) + framed)
            assert (await response(reader)).endswith(b"ok" + body)
            writer.close()
        assert log.denied == []

    run(scenario())


def test_trap_7_a_response_arrives_as_it_is_produced(root: Path) -> None:
    async def scenario() -> None:
        asked = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            await asked.wait()  # the rest comes only after the first part has arrived
            writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
            await writer.drain()

        server = Server()
        async with serving(serve, server), firewall_for(plan_for(server), root, Names(a_example=HOME)):
            reader, writer = await asyncio.open_unix_connection(door(root))
            writer.write(request(server))
            await reader.readuntil(b"first")
            asked.set()
            await reader.readuntil(b"second")
            writer.close()

    run(scenario())


def test_every_request_of_a_keep_alive_connection_is_judged(root: Path) -> None:
    async def scenario() -> None:
        names = Names(a_example=HOME, b_example=HOME)
        async with web() as server, firewall_for(plan_for(server, ("GET",)), root, names) as log:
            reader, writer = await asyncio.open_unix_connection(door(root))
            for _ in range(3):
                writer.write(request(server))
                assert (await response(reader)).endswith(b"ok")
            writer.write(request(server, host="b.example"))
            assert code_of(await reader.read()) == "CSM-P003"
            writer.close()
        assert len(server.received) == 3
        assert names.asked == ["a.example"]  # the connection to the checked address was kept
        assert server.connections == 1
        assert [line["verdict"] for line in log.named("egress.decided")] == ["allow"] * 3 + ["deny"]

    run(scenario())


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P008"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n X: fold\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\nHost: a.example\n\n", "CSM-P001"),
        (b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "CSM-P004"),
        (b"CONNECT a.example:443 HTTP/1.1\r\n\r\n", "CSM-P010"),
        (b"GET http://a.example/ HTTP/1.1\r\nX: " + b"a" * 40_000, "CSM-P002"),
        (b"POST http://b.example/ HTTP/1.1\r\nHost: b.example\r\nContent-Length: 99999999\r\n\r\nsecret", "CSM-P003"),
    ],
    ids=["trap_3_host", "trap_6_fold", "trap_6_lf", "address", "connect", "trap_6_large", "body"],
)
def test_traps_3_and_6_the_second_request_is_read_as_strictly_as_the_first(
    root: Path, second: bytes, code: str
) -> None:
    async def scenario() -> None:
        async with web() as server, firewall_for(plan_for(server), root, Names(a_example=HOME)) as log:
            reader, writer = await asyncio.open_unix_connection(door(root))
            writer.write(request(server) + second)  # pipelined, even
            assert (await response(reader)).endswith(b"ok")
            assert code_of(await reader.read()) == code
            writer.close()
        assert len(server.received) == 1
        assert log.denied == [code]

    run(scenario())


@pytest.mark.parametrize(
    "body",
    [b"5;ext=1\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"-5\r\n", b"5\r\nhelloX\r\n0\r\n\r\n",
     b"0\r\nX: smuggled\r\n\r\n"],
)  # fmt: skip
def test_chunks_that_have_two_readings_end_the_connection(root: Path, body: bytes) -> None:
    async def scenario() -> None:
        async with web() as server, firewall_for(plan_for(server), root, Names(a_example=HOME)) as log:
            head = request(server, "POST", more="Transfer-Encoding: chunked\r\n")
            assert code_of(await converse(door(root), head + body)) == "CSM-P001"
        assert server.received == []
        assert log.denied == ["CSM-P001"]

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["row_13_upgrade", "endless_head", "no_http", "two_framings"],
)
def test_an_upstream_that_does_not_speak_http_is_not_passed_on(root: Path, answer: bytes) -> None:
    async def scenario() -> None:
        async with web(answer) as server, firewall_for(plan_for(server), root, Names(a_example=HOME)) as log:
            assert code_of(await converse(door(root), request(server))) in ("CSM-P010", "CSM-P006")
        assert log.named("egress.closed")

    run(scenario())


def test_an_upstream_that_is_down_is_told_in_the_one_shape(root: Path) -> None:
    async def scenario() -> None:
        async with web() as server:
            pass
        async with firewall_for(plan_for(server), root, Names(a_example=HOME)) as log:
            assert code_of(await converse(door(root), request(server))) == "CSM-P006"
        assert [line["rule"] for line in log.named("egress.closed")] == ["CSM-P006"]

    run(scenario())


def test_row_23_a_redirect_is_passed_on_and_its_target_judged_anew(root: Path) -> None:
    async def scenario() -> None:
        moved = b"HTTP/1.1 302 Found\r\nLocation: http://b.example/\r\nContent-Length: 0\r\n\r\n"
        names = Names(a_example=HOME, b_example=HOME)
        async with web(moved) as server, firewall_for(plan_for(server), root, names):
            reader, writer = await asyncio.open_unix_connection(door(root))
            writer.write(request(server))
            assert b"302 Found" in await response(reader)
            writer.write(b"GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n")
            assert code_of(await reader.read()) == "CSM-P003"
            writer.close()
        assert names.asked == ["a.example"]

    run(scenario())

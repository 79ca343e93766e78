"""Inspected tunnels, over real sockets and real TLS on both sides."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from policies.plan import EgressQuota, EgressRule, HeaderCredential
from proxy.egress.issuer import Issuer
from tests.proxy.kit import Log, Names, code_of, firewall_for, make_plan, rule, run
from tests.proxy.outside import Server, certificate, serving, web
from tests.proxy.test_egress_hello import hello
from tests.proxy.test_egress_http import response
from tests.proxy.test_egress_tunnels import connect, door

HOME = ["127.0.0.1"]


@dataclass
class Lab:
    """A firewall with one inspecting rule, a server behind it, and a client that trusts the run's authority."""

    root: Path
    server: Server
    log: Log
    names: Names
    client: ssl.SSLContext

    async def open(self, host: str = "a.example") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(door(self.root), host, self.server.port)
        await writer.start_tls(self.client, server_hostname=host)
        return reader, writer

    async def ask(self, data: bytes) -> bytes:
        """Say something inside a tunnel of its own, and listen to the end."""
        reader, writer = await self.open()
        writer.write(data)
        try:
            return await reader.read()
        finally:
            writer.close()

    def request(self, line: str = "GET", path: str = "/x", more: str = "", host: str = "a.example") -> bytes:
        return f"{line} {path} HTTP/1.1\r\nHost: {host}:{self.server.port}\r\n{more}\r\n".encode()


@asynccontextmanager
async def lab(
    root: Path, *, methods: Sequence[str] = (), paths: Sequence[str] = (),
    more: Callable[[int], Sequence[EgressRule]] = lambda _port: (),
    server: Server | None = None, serve: object = None, name: str = "a.example", trusting: bool = True,
    answer: bytes | None = None, quota: EgressQuota | None = None, credential: HeaderCredential | None = None,
    secrets: Mapping[str, str] | None = None,
) -> AsyncIterator[Lab]:  # fmt: skip
    server_tls, trust = certificate(root, name)
    issuer, names = Issuer(), Names(a_example=HOME, b_example=HOME)
    client = ssl.create_default_context(cadata=issuer.certificate)
    outside = serving(serve, server, server_tls) if serve and server else web(answer, server_tls)  # type: ignore[arg-type]
    async with outside as there:
        where = rule("a.example", there.port, "https", methods, paths, inspect=True, quota=quota, credential=credential)
        plan = make_plan(egress=[where, *more(there.port)])
        believed = trust if trusting else ssl.create_default_context()
        opened = firewall_for(plan, root, names, trust=believed, issuer=issuer, secrets=secrets)
        async with opened as log:
            yield Lab(root, there, log, names, client)


def test_an_inspected_request_is_judged_carried_and_accounted(root: Path) -> None:
    async def scenario() -> None:
        async with lab(root, methods=["GET"], paths=["/public"]) as it:
            reader, writer = await it.open()
            tls = writer.get_extra_info("ssl_object")
            assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", None)
            for path in ("/public", "/public/a?q=1"):
                writer.write(it.request(path=path, more="X-Kept: yes\r\nProxy-Authorization: no\r\n"))
                assert (await response(reader)).endswith(b"ok")
            writer.close()
            await writer.wait_closed()
        one, two = (data.lower() for data in it.server.received)
        assert one.startswith(b"get /public http/1.1\r\n")
        assert two.startswith(b"get /public/a?q=1 http/1.1\r\n")
        assert f"host: a.example:{it.server.port}\r\n".encode() in one
        assert b"x-kept: yes" in one
        assert b"proxy" not in one
        assert (it.server.connections, it.names.asked) == (1, ["a.example"])
        assert [(e["event"], e["verdict"]) for e in it.log.lines] == [
            ("egress.decided", "allow"), ("egress.decided", "allow"), ("egress.closed", None),
        ]  # fmt: skip
        assert it.log.lines[0]["attrs"]["http.request.method"] == "GET"
        assert it.log.lines[-1]["attrs"]["casemate.bytes.out"] > 100
        assert "/public" not in str(it.log.lines)

    run(scenario())


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("POST /public HTTP/1.1\r\nHost: a.example:{port}\r\nContent-Length: 0\r\n\r\n", "CSM-P009"),  # 24
        ("GET /admin HTTP/1.1\r\nHost: a.example:{port}\r\n\r\n", "CSM-P009"),
        ("GET /public/%2e%2e/admin HTTP/1.1\r\nHost: a.example:{port}\r\n\r\n", "CSM-P009"),
        ("GET /public HTTP/1.1\r\nHost: b.example:{port}\r\n\r\n", "CSM-P008"),  # 17
        ("GET /public HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P008"),  # another port
        ("GET https://b.example:{port}/public HTTP/1.1\r\nHost: a.example:{port}\r\n\r\n", "CSM-P008"),
        ("GET /public HTTP/1.1\r\nHost: a.example:{port}\r\n:authority: b.example\r\n\r\n", "CSM-P001"),  # 14
        ("GET /public HTTP/1.1\r\nHost: a.example:{port}\r\nHost: a.example:{port}\r\n\r\n", "CSM-P001"),
        ("GET /public HTTP/1.1\r\nHost: a.example:{port}\r\n X: folded\r\n\r\n", "CSM-P001"),
        ("GET /public HTTP/1.1\nHost: a.example:{port}\n\n", "CSM-P001"),
        ("GET /public HTTP/1.1\r\nHost: a.example:{port}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "CSM-P001"),
        ("GET /public HTTP/1.1\r\nHost: a.example:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
         "CSM-P010"),  # 13
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CSM-P010"),
        ("CONNECT b.example:{port} HTTP/1.1\r\nHost: b.example:{port}\r\n\r\n", "CSM-P010"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "CSM-P001"),
        ("\x16\x03\x01", "CSM-P001"),
    ],
)  # fmt: skip
def test_what_is_refused_inside_a_tunnel_goes_nowhere(root: Path, head: str, code: str) -> None:
    async def scenario() -> None:
        async with lab(root, methods=["GET"], paths=["/public"]) as it:
            answer = await it.ask(head.replace("{port}", str(it.server.port)).encode())
            assert code_of(answer) == code
        assert (it.server.connections, it.names.asked, it.log.denied) == (0, [], [code])
        assert len(it.log.lines) == 1
        assert it.log.lines[0]["stage"] == "work"

    run(scenario())


@pytest.mark.parametrize(
    "first",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"GET / HTTP/1.1\r\n\r\n", hello("b.example"), hello(None)],
    ids=["ssh", "http", "other-name", "no-name"],
)
def test_row_16_an_inspected_tunnel_begins_with_a_hello_for_its_host(root: Path, first: bytes) -> None:
    async def scenario() -> None:
        async with lab(root) as it:
            reader, writer = await connect(door(root), "a.example", it.server.port)
            writer.write(first)
            assert await reader.read() == b""
            writer.close()
        assert (it.server.connections, it.names.asked, it.log.denied) == (0, [], ["CSM-P007"])

    run(scenario())


def test_a_client_that_does_not_trust_the_run_ends_in_one_event(root: Path) -> None:
    async def scenario() -> None:
        async with lab(root) as it:
            it.client = ssl.create_default_context()
            with pytest.raises(ssl.SSLCertVerificationError):
                await it.open()
            await asyncio.sleep(0.1)
        assert (it.server.connections, it.log.denied) == (0, ["CSM-P013"])
        assert "TLS with the client failed" in it.log.lines[0]["reason"]

    run(scenario())


@pytest.mark.parametrize(("name", "trusting"), [("b.example", True), ("a.example", False)], ids=["name", "issuer"])
def test_an_upstream_that_does_not_prove_who_it_is_gets_nothing(root: Path, name: str, trusting: bool) -> None:
    async def scenario() -> None:
        async with lab(root, name=name, trusting=trusting) as it:
            assert code_of(await it.ask(it.request())) == "CSM-P014"
        assert it.server.received == []
        assert [line["rule"] for line in it.log.named("egress.closed")] == ["CSM-P014"]

    run(scenario())


def test_every_request_of_a_tunnel_is_judged(root: Path) -> None:
    async def scenario() -> None:
        async with lab(root, paths=["/public"]) as it:
            reader, writer = await it.open()
            writer.write(it.request(path="/public") + it.request(path="/admin"))  # pipelined, even
            assert (await response(reader)).endswith(b"ok")
            assert code_of(await reader.read()) == "CSM-P009"
            writer.close()
        assert len(it.server.received) == 1
        assert it.log.denied == ["CSM-P009"]

    run(scenario())


def test_row_23_the_second_hop_of_a_redirect_is_judged(root: Path) -> None:
    async def scenario() -> None:
        moved = b"HTTP/1.1 302 Found\r\nLocation: /admin\r\nContent-Length: 0\r\n\r\n"
        async with lab(root, paths=["/public"], answer=moved) as it:
            reader, writer = await it.open()
            writer.write(it.request(path="/public"))
            assert b"302 Found" in await response(reader)
            writer.write(it.request(path="/admin"))
            assert code_of(await reader.read()) == "CSM-P009"
            writer.close()
        assert len(it.server.received) == 1

    run(scenario())


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_are_streamed_both_ways(root: Path, chunked: bool) -> None:
    async def scenario() -> None:
        body = b"0123456789" * 300_000
        more = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {len(body)}\r\n"
        framed = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:7], body[7:])) + b"0\r\n\r\n"
        async with lab(root) as it:
            reader, writer = await it.open()
            writer.write(it.request("POST", more=more) + (framed if chunked else body))
            assert (await response(reader)).endswith(b"ok" + body)
            writer.close()
        assert it.log.denied == []

    run(scenario())


def test_an_answer_before_the_end_of_the_request_arrives(root: Path) -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await writer.drain()

        async with lab(root, server=Server(), serve=serve) as it:
            reader, writer = await it.open()
            writer.write(it.request("POST", more="Content-Length: 1000000\r\n") + b"x" * 1000)
            assert (await response(reader)).startswith(b"HTTP/1.1 413 Too Large")
            writer.close()

    run(scenario())


def test_a_client_that_waits_for_continue_is_told(root: Path) -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"expect: 100-continue" in head.lower()
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await reader.readexactly(4) == b"body"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

        async with lab(root, server=Server(), serve=serve) as it:
            reader, writer = await it.open()
            writer.write(it.request("POST", more="Content-Length: 4\r\nExpect: 100-continue\r\n"))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(b"body")
            assert (await response(reader)).endswith(b"ok")
            writer.close()

    run(scenario())


def test_an_upstream_that_closed_an_idle_connection_is_asked_again(root: Path) -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()  # and closes, without having said so

        async with lab(root, server=Server(), serve=serve) as it:
            reader, writer = await it.open()
            for pause in (0.0, 0.2, 0.0):
                await asyncio.sleep(pause)
                writer.write(it.request())
                assert (await response(reader)).endswith(b"ok")
            writer.close()
        assert it.server.connections == 3
        assert len(it.log.named("egress.decided")) == 3

    run(scenario())


def test_the_authority_signs_for_hosts_only_and_its_key_is_in_no_file(root: Path) -> None:
    issuer = Issuer()
    assert "PRIVATE" not in issuer.certificate
    contexts = {issuer.context(f"h{n}.example") for n in range(300)}
    assert len(contexts) == 300
    assert len(issuer._contexts) <= 256
    assert Issuer().certificate != issuer.certificate


@pytest.mark.parametrize("kind", ["inspected", "plain"])
def test_who_still_sends_reads_why_it_was_refused(root: Path, kind: str) -> None:
    """Closed at once, with bytes unread, a connection is reset, and the answer is lost."""

    async def scenario() -> None:
        def more(port: int) -> list[EgressRule]:
            return [rule("b.example", 80, "http", methods=["GET"])]

        async with lab(root, methods=["GET"], more=more) as it:
            body = "Content-Length: 500000\r\n"
            if kind == "inspected":
                reader, writer = await it.open()
                writer.write(it.request("POST", more=body))
            else:
                reader, writer = await asyncio.open_unix_connection(door(root))
                writer.write(f"POST http://b.example/ HTTP/1.1\r\nHost: b.example\r\n{body}\r\n".encode())
            with suppress(ConnectionError):  # this client gives up writing once it has been told
                for _ in range(50):
                    writer.write(b"x" * 10_000)
                    await writer.drain()
                    await asyncio.sleep(0)
            assert code_of(await reader.read()) == "CSM-P009"
            writer.close()
        assert it.server.received == []

    run(scenario())

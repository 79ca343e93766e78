"""A walk over what the firewall calls while it serves a cell: each raises once, and each time it fails closed.

What can be called is enumerated from the objects that come in by constructors (the way out, the authority, the event
log) and from the connections that they open or that come in at a door, so that a new method is walked as well. Nothing
of our own is patched. After each fault, the same door serves the next connection.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from policies.events import EventLogError
from policies.plan import HeaderCredential
from policies.slices import StageEgress
from policies.vocabulary import Component, EventName
from proxy.egress.addresses import Outside
from proxy.egress.credential import credentials
from proxy.egress.exchange import Access
from proxy.egress.front import StageDoor
from proxy.egress.issuer import Issuer
from proxy.egress.quota import Meters
from proxy.start import Events
from tests.proxy.kit import Log, Names, loopback, rule, run
from tests.proxy.outside import Server, certificate, web

HOME = ["127.0.0.1"]
SECRET = "walk-canary-0123456789"
BOUND = HeaderCredential(header="authorization", secret="hub", scheme="Bearer")
KINDS = ("plain", "inspected", "tunnel")
ERRORS: list[type[Exception]] = [ZeroDivisionError, OSError, KeyError, ssl.SSLError, ValueError]


@dataclass
class Fault:
    """One thing that raises when it is called, once, for as long as it is armed."""

    where: str
    error: type[Exception] = ZeroDivisionError
    armed: bool = True
    raised: int = 0

    def at(self, where: str) -> None:
        if self.armed and where == self.where:
            self.armed = False
            self.raised += 1
            raise self.error


class Watched:
    """An object whose every method is a place where the fault may be."""

    def __init__(self, inner: Any, role: str, fault: Fault) -> None:
        self._inner, self._role, self._fault = inner, role, fault

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        where = f"{self._role}.{name}"
        if inspect.iscoroutinefunction(found):

            async def later(*args: Any, **named: Any) -> Any:
                self._fault.at(where)
                return await found(*args, **named)

            return later

        def now(*args: Any, **named: Any) -> Any:
            self._fault.at(where)
            return found(*args, **named)

        return now


class WatchedOutside(Outside):
    """The way out, watched, with the streams that it opens."""

    fault: Fault

    async def pin(self, *args: Any, **named: Any) -> str:
        self.fault.at("Outside.pin")
        return await super().pin(*args, **named)

    async def connect(self, *args: Any, **named: Any) -> Any:
        self.fault.at("Outside.connect")
        return self._watched(await super().connect(*args, **named))

    async def connect_tls(self, *args: Any, **named: Any) -> Any:
        self.fault.at("Outside.connect_tls")
        return self._watched(await super().connect_tls(*args, **named))

    def _watched(self, streams: Any) -> Any:
        return Watched(streams[0], "upstream reader", self.fault), Watched(streams[1], "upstream writer", self.fault)


class WatchedIssuer(Issuer):
    """The authority, watched."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault

    def context(self, host: str) -> ssl.SSLContext:
        self.fault.at("Issuer.context")
        return super().context(host)


class WatchedEvents(Events):
    """The event log, watched: each kind of event is a place of its own."""

    fault: Fault

    def __call__(self, event: EventName, **fields: Any) -> None:
        verdict = fields.get("verdict")
        self.fault.at(f"Events.{event.value}.{verdict.value if verdict else None}")
        super().__call__(event, **fields)


def methods(kind: type, role: str) -> list[str]:
    """Every public method of a class, as places."""
    return [f"{role}.{name}" for name, found in inspect.getmembers(kind, callable) if not name.startswith("_")]


STREAMS = [
    place
    for side in ("upstream", "cell")
    for place in (
        *methods(asyncio.StreamReader, f"{side} reader"),
        *methods(asyncio.StreamWriter, f"{side} writer"),
    )
]
BEFORE = ["Outside.pin", "Outside.connect", "Outside.connect_tls", "Outside.resolve", "Outside.permitted",
          "Issuer.context", "Events.egress.decided.allow"]  # fmt: skip
ONLY = {"Issuer.context": ["inspected"], "Outside.connect": ["plain", "tunnel"], "Outside.connect_tls": ["inspected"]}
"""Places where not every kind of traffic comes by."""


def test_the_walk_knows_every_seam() -> None:
    own = {f"Outside.{name}" for name, _ in inspect.getmembers(Outside, inspect.isfunction) if name[0] != "_"}
    own |= {f"Issuer.{name}" for name, _ in inspect.getmembers(Issuer, inspect.isfunction) if name[0] != "_"}
    assert own | {"Outside.resolve", "Outside.permitted"} == {p for p in BEFORE if not p.startswith("Events")}
    assert len(STREAMS) > 30


@dataclass
class Walk:
    """A door with a fault in it, and the outside."""

    door: StageDoor
    log: Log
    fault: Fault
    servers: dict[str, Server]
    client: ssl.SSLContext
    folder: Path
    doors: list[asyncio.Server] = field(default_factory=list)

    async def visit(self, kind: str) -> bytes:
        """One request of a kind over a connection of its own; what came back, as far as it came."""
        with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            return await asyncio.wait_for(self._visit(kind), 8)
        return b""

    async def _visit(self, kind: str) -> bytes:
        host, port = "a.example", self.servers[kind].port
        reader, writer = await asyncio.open_unix_connection(self.folder / "walk.sock")
        try:
            target = "/x"
            if kind == "plain":
                target = f"http://{host}:{port}/x"
            else:
                writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
                if b" 200 " not in (head := await reader.readuntil(b"\r\n\r\n")):
                    return head + await reader.read()
                await writer.start_tls(self.client, server_hostname=host)
            body = "Content-Length: 5\r\nConnection: close\r\n\r\nhello"
            writer.write(f"POST {target} HTTP/1.1\r\nHost: {host}:{port}\r\n{body}".encode())
            if kind == "tunnel":  # nobody closes it for us
                return await reader.readuntil(b"okhello")
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def walk(root: Path, fault: Fault) -> AsyncIterator[Walk]:
    server_tls, trust = certificate(root, "a.example")
    issuer = WatchedIssuer(fault)
    client = ssl.create_default_context(cadata=issuer.certificate)
    client.load_verify_locations(root / "a.example.pem")  # for the opaque tunnel, which ends at the server
    log = Log(Component.FIREWALL)
    events = WatchedEvents(log.events._writer)
    events.fault = fault
    names = Names(a_example=HOME)

    async def resolve(host: str, port: int) -> list[str]:
        fault.at("Outside.resolve")
        return await names(host, port)

    def permitted(address: str) -> bool:
        fault.at("Outside.permitted")
        return loopback(address)

    outside = WatchedOutside(resolve=resolve, permitted=permitted, trust=trust)
    object.__setattr__(outside, "fault", fault)
    async with web() as plain, web(tls=server_tls) as inspected, web(tls=server_tls) as tunnel:
        servers = {"plain": plain, "inspected": inspected, "tunnel": tunnel}
        rules = [
            rule("a.example", plain.port, "http", ["POST"]),
            rule("a.example", inspected.port, "https", ["POST"], inspect=True, credential=BOUND),
            rule("a.example", tunnel.port),
        ]
        held = credentials(rules, {"hub": SECRET})
        access = Access(
            stage="work", rules=rules, events=events, outside=outside, meters=Meters(rules), credentials=held
        )
        part = StageEgress(stage="work", rules=rules, max_connections=16)
        door = StageDoor(part, access, issuer)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            door.accept(Watched(reader, "cell reader", fault), Watched(writer, "cell writer", fault))  # type: ignore[arg-type]

        server = await asyncio.start_unix_server(accept, root / "walk.sock")
        yield Walk(door, log, fault, servers, client, root)
        await door.close()
        server.close()


def scenario(
    root: Path, kind: str, where: str, error: type[Exception], check: Callable[[Walk, bytes], Coroutine[Any, Any, None]]
) -> bool:
    """Visit once with the fault; whether it was met."""

    async def play() -> bool:
        fault = Fault(where, error)
        async with walk(root, fault) as it:
            answer = await it.visit(kind)
            await asyncio.sleep(0.05)
            if fault.raised:
                await check(it, answer)
            fault.armed = False
            before = len(it.log.denied)
            for other in KINDS:
                assert (await it.visit(other)).endswith(b"okhello"), f"{other} is not served after {where}"
            assert len(it.log.denied) == before
            assert SECRET not in str(it.log.lines)
        return bool(fault.raised)

    return run(play(), seconds=60)


async def goes_nowhere(it: Walk, answer: bytes) -> None:
    """Denied, once, in one event; nothing reached the outside."""
    assert b"okhello" not in answer
    assert all(server.received == [] for server in it.servers.values())
    refused = [e for e in it.log.lines if e["rule"] and e["rule"].startswith("CSM-P")]
    assert len(refused) == 1, it.log.lines


async def goes_no_further(it: Walk, answer: bytes) -> None:
    """What was on its way may have arrived once; nothing was done twice, and what went wrong stands in the log."""
    assert sum(len(server.received) for server in it.servers.values()) <= 1
    assert len(it.log.denied) <= 1
    if b"okhello" not in answer:
        assert it.log.named("egress.closed") or it.log.denied, "it went wrong without a word"


async def ends_the_process(it: Walk, answer: bytes) -> None:
    """An event that cannot be written: nothing goes out that it would have announced."""
    assert b"okhello" not in answer
    assert all(server.received == [] for server in it.servers.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", BEFORE)
def test_what_raises_before_anything_goes_out_denies(root: Path, kind: str, where: str) -> None:
    if where.startswith("Events"):
        assert scenario(root, kind, where, EventLogError, ends_the_process)
        return
    met = [scenario(root, kind, where, error, goes_nowhere) for error in ERRORS]
    only = {
        "Issuer.context": ["inspected"],
        "Outside.connect": ["plain", "tunnel"],
        "Outside.connect_tls": ["inspected"],
    }
    assert all(met) if kind in only.get(where, KINDS) else not any(met)


@pytest.mark.parametrize("kind", KINDS)
def test_what_raises_on_a_connection_ends_that_connection_only(root: Path, kind: str) -> None:
    met = {where for where in STREAMS if scenario(root, kind, where, ZeroDivisionError, goes_no_further)}
    # the walk has been somewhere: these are used by every kind
    assert {"cell reader.read", "cell writer.write", "cell writer.drain", "upstream reader.read",
            "upstream writer.write", "upstream writer.drain", "upstream writer.close"} <= met  # fmt: skip

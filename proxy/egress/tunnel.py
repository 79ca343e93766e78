"""Opaque tunnels: nothing goes out before a ClientHello has named the allowed host and the address was checked.

Order: ClientHello, then name resolution, then the event, then the connection. A denied name is never resolved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from policies.events import Attribute
from policies.vocabulary import EventName, Verdict
from proxy.egress.addresses import Outside
from proxy.egress.clienthello import MAX_HELLO, check_hello, parse_client_hello
from proxy.egress.quota import Meter
from proxy.egress.relay import Source, Traffic, close, relay
from proxy.egress.types import Refused
from proxy.start import Events

HELLO_SECONDS = 10.0

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One connection that may be made: for whom, by which rule, and in which private networks it may end."""

    stage: str | None
    rule: str
    reason: str
    attrs: dict[str, Attribute]
    networks: tuple[str, ...] = ()
    meter: Meter | None = None


async def await_hello(source: Source, host: str, seconds: float = HELLO_SECONDS) -> None:
    """Read until there is a ClientHello for `host`, and put it back; raise `Refused` (P007) for anything else."""
    buffer = b""
    try:
        async with asyncio.timeout(seconds):
            while (hello := parse_client_hello(buffer)) is None:
                part = await source.read(MAX_HELLO)
                if not part:
                    raise Refused("CSM-P007", "the tunnel ended before a ClientHello", host=host)
                buffer += part
    except TimeoutError as error:
        raise Refused("CSM-P007", f"no ClientHello within {seconds:.0f} seconds", host=host) from error
    check_hello(hello, host)
    source.put_back(buffer)


async def run_tunnel(
    inner: tuple[Source, asyncio.StreamWriter],
    host: str,
    port: int,
    passage: Passage,
    outside: Outside,
    events: Events,
) -> None:
    """Carry one TLS connection to `host`; raise `Refused` when it must not be made."""
    await await_hello(inner[0], host)
    await run_direct(inner, host, port, passage, outside, events)


async def run_direct(
    inner: tuple[Source, asyncio.StreamWriter],
    host: str,
    port: int,
    passage: Passage,
    outside: Outside,
    events: Events,
) -> None:
    """Carry one connection to `host` without a look at what is said; raise `Refused` when it must not be made."""
    address = await outside.pin(host, port, passage.networks)
    attrs = {**passage.attrs, "network.peer.address": address}
    await _carry(inner, lambda: outside.connect(address, port), passage, attrs, events)


async def run_local(inner: tuple[Source, asyncio.StreamWriter], path: Path, passage: Passage, events: Events) -> None:
    """Carry one connection to the socket of a trusted local model."""

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(10):
                return await asyncio.open_unix_connection(path)
        except OSError as error:
            raise Refused("CSM-P006", f"the local model does not answer: {type(error).__name__}") from error

    await _carry(inner, connect, passage, passage.attrs, events)


async def _carry(
    inner: tuple[Source, asyncio.StreamWriter],
    dial: Dial,
    passage: Passage,
    attrs: dict[str, Attribute],
    events: Events,
) -> None:
    """Announce, connect, relay, account. What fails after the announcement ends the connection, not the verdict."""
    events(
        EventName.EGRESS_DECIDED,
        stage=passage.stage,
        verdict=Verdict.ALLOW,
        rule=passage.rule,
        reason=passage.reason,
        attrs=attrs,
    )
    traffic, broken = Traffic(), None
    try:
        outer, outer_writer = await dial()
        try:
            if passage.meter is None:
                await relay(*inner, outer, outer_writer, traffic)
            else:
                await relay(*inner, outer, outer_writer, traffic, take=passage.meter.take)
        finally:
            await close(outer_writer)
    except Refused as refused:
        broken = refused
        if refused.code == "CSM-P012":
            raise  # not broken but cut, which is a denial
    finally:
        events(
            EventName.EGRESS_CLOSED,
            stage=passage.stage,
            rule=broken.code if broken else passage.rule,
            reason=broken.reason if broken else None,
            attrs={**attrs, "casemate.bytes.out": traffic.sent, "casemate.bytes.in": traffic.received},
        )

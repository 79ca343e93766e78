"""The doors. An egress door reads a head strictly, decides, and hands what is allowed to a tunnel or an exchange."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from pathlib import Path

import structlog

from policies.events import EventLogError
from policies.plan import EgressRule
from policies.slices import StageEgress, Tunnel
from policies.vocabulary import EventName, Verdict
from proxy.egress.addresses import Outside
from proxy.egress.answers import attributes, refusal
from proxy.egress.decide import decide
from proxy.egress.exchange import Access, Exchange
from proxy.egress.framing import read_head
from proxy.egress.head import parse_head
from proxy.egress.inspection import TlsEnd
from proxy.egress.issuer import Issuer
from proxy.egress.normalise import normalise
from proxy.egress.relay import Source, close
from proxy.egress.tunnel import Passage, await_hello, run_direct, run_local, run_tunnel
from proxy.egress.types import EgressRequest, Refused
from proxy.start import Events

_log = structlog.get_logger()


class Door(ABC):
    """What both kinds of door share: a limit, and that whatever goes wrong is a denial with an event."""

    stage: str | None = None

    def __init__(self, events: Events, outside: Outside, limit: int) -> None:
        self.events, self.outside, self._limit = events, outside, limit
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection in a task of its own (the callback of `asyncio.start_unix_server`)."""
        task = asyncio.create_task(self._guarded(Source(reader), writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guarded(self, source: Source, writer: asyncio.StreamWriter) -> None:
        try:
            self._refuse_crowd()
            await self.serve(source, writer)
        except Refused as refused:
            self.deny(writer, refused, None)
        except EventLogError:
            _log.error("event log broken")
        except ConnectionError:
            pass  # the cell hung up; whatever was open has been accounted for
        except Exception as error:  # noqa: BLE001 - an internal failure at a door is a denial
            _log.error("door failed", exc_info=error)
            self.deny(writer, Refused("CSM-P019", type(error).__name__), None)
        finally:
            await close(writer)

    def _refuse_crowd(self) -> None:
        if len(self._tasks) > self._limit:
            raise Refused("CSM-P011", f"over {self._limit} connections at this door")

    @abstractmethod
    async def serve(self, source: Source, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; raise `Refused` to deny it."""

    @abstractmethod
    def answer(self, writer: asyncio.StreamWriter, refused: Refused) -> None:
        """Tell the other side why, in its protocol."""

    def deny(self, writer: asyncio.StreamWriter, refused: Refused, request: EgressRequest | None) -> None:
        """Write the event, then the answer."""
        try:
            self.events(
                EventName.EGRESS_DECIDED,
                stage=self.stage,
                verdict=Verdict.DENY,
                rule=refused.code,
                reason=refused.reason,
                attrs=attributes(request, refused),
            )
        except EventLogError:
            _log.error("event log broken")
            return
        if not writer.is_closing():
            self.answer(writer, refused)


class StageDoor(Door):
    """The egress door of one cell. The socket is the identity."""

    def __init__(self, part: StageEgress, access: Access, issuer: Issuer | None) -> None:
        super().__init__(access.events, access.outside, part.max_connections)
        self.stage, self._rules, self._access, self._issuer = access.stage, part.rules, access, issuer

    async def serve(self, source: Source, writer: asyncio.StreamWriter) -> None:
        """Judge the first request; then a tunnel, opaque or inspected, or plain HTTP while it lasts."""
        data = await read_head(source)
        if data is None:
            return
        head = parse_head(data)
        request = normalise(head)
        if request.scheme == "http":
            await Exchange(self._access, source, writer).run(head)
            return
        decision = decide(request, self._rules)
        if decision.rule is None:
            refused = Refused(decision.code or "CSM-P003", decision.reason, host=request.host)
            self.deny(writer, refused, request)
            return
        meter = self._access.meters.of(decision.rule)
        if not decision.rule.inspect:
            meter.admit()
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        try:
            if decision.rule.inspect:
                await self._inspected(source, writer, request)
            else:
                place, reason = decision.rule.place, decision.reason
                passage = Passage(
                    stage=self.stage,
                    rule=place,
                    reason=reason,
                    attrs=attributes(request),
                    networks=tuple(decision.rule.addresses),
                    meter=meter,
                )
                await run_tunnel((source, writer), request.host, request.port, passage, self.outside, self.events)
        except Refused as refused:
            # 200 was said already, so there are no words left: the connection ends
            self._deny_silently(writer, refused, request)

    async def _inspected(self, source: Source, writer: asyncio.StreamWriter, request: EgressRequest) -> None:
        """End the TLS of a tunnel here, and judge each request in it. What they are is denied in it, in words."""
        if self._issuer is None:
            raise Refused("CSM-P019", "an inspecting rule without an issuer", host=request.host)
        await await_hello(source, request.host)
        inside = TlsEnd(source, writer, self._issuer.context(request.host))
        await inside.handshake(request.host)
        await Exchange(self._access, Source(inside), inside, (request.host, request.port)).run()

    def _deny_silently(self, writer: asyncio.StreamWriter, refused: Refused, request: EgressRequest) -> None:
        writer.close()
        self.deny(writer, refused, request)

    def answer(self, writer: asyncio.StreamWriter, refused: Refused) -> None:
        """Answer in the one JSON shape, over HTTP."""
        writer.write(refusal(refused, self._rules))


class PortDoor(Door):
    """A door of an MCP server that leads to one destination, whatever is spoken there: a database, above all."""

    def __init__(self, part: StageEgress, access: Access, rule: EgressRule) -> None:
        super().__init__(access.events, access.outside, part.max_connections)
        self.stage, self._access, self._rule = access.stage, access, rule

    async def serve(self, source: Source, writer: asyncio.StreamWriter) -> None:
        """Carry the connection to the destination."""
        rule, meter = self._rule, self._access.meters.of(self._rule)
        meter.admit()
        passage = Passage(
            stage=self.stage,
            rule=rule.place,
            reason=f"allowed by {rule.host}",
            attrs={"server.address": rule.host, "server.port": rule.port},
            networks=tuple(rule.addresses),
            meter=meter,
        )
        await run_direct((source, writer), rule.host, rule.port, passage, self.outside, self.events)

    def answer(self, writer: asyncio.StreamWriter, refused: Refused) -> None:
        """Hang up: what is spoken here is not known."""
        _log.info("port refused", code=refused.code)
        writer.close()


class TunnelDoor(Door):
    """A door of another trusted process, which leads to one destination. That process speaks TLS through it."""

    MAX_CONNECTIONS = 256

    def __init__(self, part: Tunnel, models: Path, events: Events, outside: Outside) -> None:
        super().__init__(events, outside, self.MAX_CONNECTIONS)
        self._part, self._models = part, models

    async def serve(self, source: Source, writer: asyncio.StreamWriter) -> None:
        """Carry the connection to the local model, or to the provider after a look at the ClientHello."""
        part = self._part
        attrs = {"server.address": part.local or part.host, "casemate.component": part.holder}
        passage = Passage(
            stage=None,
            rule=part.door,
            reason=f"tunnel of {part.holder}",
            attrs={**attrs},
            networks=tuple(part.addresses),
        )
        if part.local is not None:
            await run_local((source, writer), self._models / part.local / "model.sock", passage, self.events)
        else:
            passage.attrs["server.port"] = part.port
            await run_tunnel((source, writer), part.host, part.port, passage, self.outside, self.events)

    def answer(self, writer: asyncio.StreamWriter, refused: Refused) -> None:
        """Hang up: the other side speaks TLS, and a refusal is no part of its conversation."""
        _log.info("tunnel refused", code=refused.code)
        writer.close()

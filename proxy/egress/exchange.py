"""A connection that speaks HTTP, plain or decrypted: each request is read strictly, judged, carried, and answered.

1. Read a head; it has one reading, or the connection ends.
2. Judge it; a denied name is never resolved.
3. Resolve and check the address, write the event, then connect. The connection is kept for requests to the same place.
4. Send a head written anew, and carry both bodies at once, part by part.

The next request is not read before the last one is answered, so that nothing piles up. Whatever raises is a denial:
nothing more goes out, and an event says why.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

import structlog

from policies.events import EventLogError
from policies.plan import EgressRule
from policies.vocabulary import EventName, Verdict
from proxy.egress.addresses import Outside
from proxy.egress.answers import attributes, refusal
from proxy.egress.credential import Credential, Headers, Redactor, credential_of
from proxy.egress.decide import decide
from proxy.egress.framing import KEEP_ALIVE_SECONDS, body, has_body, onward, read_head, tokens
from proxy.egress.head import parse_head
from proxy.egress.normalise import normalise, normalise_inner
from proxy.egress.quota import Meter, Meters
from proxy.egress.relay import IDLE_SECONDS, Source, Traffic, Writer
from proxy.egress.types import EgressRequest, Head, Refused
from proxy.egress.upstream import Answer, Place, Upstream
from proxy.start import Events

_log = structlog.get_logger()

_HOP = frozenset({b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
                  b"upgrade", b"transfer-encoding"})  # fmt: skip
_BROKEN = frozenset({"CSM-P006", "CSM-P014"})
MAX_UNWANTED, UNWANTED_SECONDS = 1 << 20, 2.0
"""Bytes and seconds for which a refused request may go on."""

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the connections of one cell have in common; `stage` is its name."""

    stage: str
    rules: Sequence[EgressRule]
    events: Events
    outside: Outside
    meters: Meters
    credentials: Sequence[Credential] = ()


@dataclass(slots=True)
class _State:
    """Where a connection stands, for whoever has to end it."""

    request: EgressRequest | None = None
    rule: str | None = None
    admitted: bool = False
    answering: bool = False
    sending: bool = False
    broken: Refused | None = None
    first: EgressRequest | None = None
    traffic: Traffic = field(default_factory=Traffic)
    meter: Meter | None = None
    credential: Credential | None = None


class Exchange:
    """One connection of a cell. `tunnel` is the place of an inspected tunnel; without it, this is plain HTTP."""

    def __init__(self, access: Access, source: Source, writer: Writer, tunnel: tuple[str, int] | None = None) -> None:
        self._access, self._source, self._writer, self._tunnel = access, source, writer, tunnel
        self._upstream: Upstream | None = None
        self._state = _State()

    async def run(self, head: Head | None = None) -> None:
        """Serve requests until either side has enough; `head` is that of the first, where it was read already."""
        try:
            while (head := head or await self._next()) is not None:
                if not await self._serve(head):
                    break
                head = None
        except Refused as refused:
            self._end(refused)
            await self._linger()
        except (ConnectionError, EventLogError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever raises is a denial
            _log.error("exchange failed", exc_info=error)
            self._end(Refused("CSM-P019", type(error).__name__))
        finally:
            await self._close()

    async def _next(self) -> Head | None:
        state = self._state
        state.request, state.admitted, state.answering, state.sending = None, False, False, False
        data = await read_head(self._source, wait=KEEP_ALIVE_SECONDS)
        return None if data is None else parse_head(data)

    async def _serve(self, head: Head) -> bool:
        """Serve one request; return whether another one may follow."""
        state = self._state
        state.sending = has_body(head)
        state.request = request = self._normalised(head)
        decision = decide(request, self._access.rules)
        if decision.rule is None:
            raise Refused(decision.code or "CSM-P003", decision.reason, host=request.host)
        state.credential = credential_of(decision.rule, self._access.credentials)
        state.meter = self._access.meters.of(decision.rule)
        state.meter.admit()
        upstream = await self._prepared(request, decision.rule)
        self._access.events(
            EventName.EGRESS_DECIDED,
            stage=self._access.stage,
            verdict=Verdict.ALLOW,
            rule=decision.rule.place,
            reason=decision.reason,
            attrs={**attributes(request), "network.peer.address": upstream.address},
        )
        state.admitted, state.rule = True, decision.rule.place
        state.first = state.first or request
        headers = onward(head, request)
        if state.credential is not None:
            headers = state.credential.inject(headers, request, decision.rule)
        return await self._carry(upstream, head, request, headers)

    def _normalised(self, head: Head) -> EgressRequest:
        if self._tunnel is not None:
            return normalise_inner(head, *self._tunnel)
        request = normalise(head)
        if request.scheme != "http":
            raise Refused("CSM-P010", "a tunnel wants a connection of its own", host=request.host)
        return request

    # ---- upstream

    async def _prepared(self, request: EgressRequest, rule: EgressRule) -> Upstream:
        """Return the connection that is open to the same place, or one to be opened to a checked address."""
        place = Place(request.scheme, request.host, request.port, tuple(rule.addresses))
        if self._upstream is not None and self._upstream.place == place and self._upstream.reusable:
            return self._upstream
        if self._upstream is not None:
            await self._upstream.close()
        self._upstream = Upstream(place, await self._access.outside.pin(place.host, place.port, place.networks))
        return self._upstream

    async def _connect(self, upstream: Upstream) -> None:
        place, outside = upstream.place, self._access.outside
        if place.scheme == "https":
            upstream.attach(await outside.connect_tls(upstream.address, place.port, place.host))
        else:
            upstream.attach(await outside.connect(upstream.address, place.port))

    # ---- one request

    async def _carry(self, upstream: Upstream, head: Head, request: EgressRequest, headers: Headers) -> bool:
        used_before = upstream.reusable
        if not used_before:
            await self._connect(upstream)
        try:
            async with asyncio.timeout(IDLE_SECONDS) as self._patience:
                await upstream.begin(request.method, request.path, headers, self._spend)
                return await self._both_ways(upstream, head, request)
        except TimeoutError as error:
            raise Refused("CSM-P002", f"nothing moved for {IDLE_SECONDS:.0f} seconds") from error
        except Refused as refused:
            repeatable = request.method in _REPEATABLE and not has_body(head) and not self._state.answering
            if not (used_before and repeatable and refused.code == "CSM-P006"):
                raise
        # a server may close an idle connection just as it is used again; once more, to the same checked address
        await upstream.close()
        self._upstream = fresh = Upstream(upstream.place, upstream.address)
        return await self._carry(fresh, head, request, headers)

    async def _both_ways(self, upstream: Upstream, head: Head, request: EgressRequest) -> bool:
        if not has_body(head):
            await upstream.end()
            keep = await self._answer(upstream, head, request)
            upstream.finish()
            return keep
        sending = asyncio.create_task(self._send_body(upstream, head))
        answering = asyncio.create_task(self._answer(upstream, head, request))
        try:
            await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            keep = await answering
            # an answer that came before the end of the request leaves a body that nobody wants
            keep = keep and sending.done()
        finally:
            await _cancelled(sending, answering)
        upstream.finish()
        return keep

    async def _send_body(self, upstream: Upstream, head: Head) -> None:
        async for part in body(self._source, head):
            if not await self._taken(upstream.part(part)):
                return
            self._moved()
        await self._taken(upstream.end())

    async def _taken(self, sending: Awaitable[None]) -> bool:
        """Whether the upstream took what was sent. If it does not, it may still have an answer."""
        try:
            await sending
        except Refused as refused:
            if refused.code != "CSM-P006":
                raise
            return False
        return True

    def _spend(self, size: int) -> None:
        """Account for bytes that are about to go out; raise `Refused` (P012) when the rule allows no more."""
        if self._state.meter is not None:
            self._state.meter.take(size)
        self._state.traffic.sent += size

    async def _answer(self, upstream: Upstream, head: Head, request: EgressRequest) -> bool:
        """Pass the response on; return whether the connection of the cell can be used again."""
        answer = await upstream.receive()
        while isinstance(answer, Answer) and answer.status < 200:
            if answer.status == 100 and head.get("expect") is not None:
                await self._put(b"HTTP/1.1 100 Continue\r\n\r\n")
            answer = await upstream.receive()
        if not isinstance(answer, Answer):
            raise Refused("CSM-P006", "the upstream sent a body without a head")
        bare = request.method == "HEAD" or answer.status in (204, 304)
        chunked = not bare and answer.get(b"content-length") is None and head.version == "HTTP/1.1"
        endless = not bare and answer.get(b"content-length") is None and head.version == "HTTP/1.0"
        keep = head.version == "HTTP/1.1" and "close" not in tokens(head, "connection") and not endless
        redactor = self._redactor(answer)
        blanked = self._blanked(redactor, _render(answer, chunked=chunked, keep=keep))
        self._state.answering = True
        await self._put(blanked)
        while (part := await upstream.receive()) is not None:
            if isinstance(part, bytes):
                await self._put_part(self._passed(redactor, part), chunked=chunked)
        await self._put_part(redactor.rest() if redactor is not None else b"", chunked=chunked)
        if chunked:
            await self._put(b"0\r\n\r\n")
        return keep

    async def _put_part(self, part: bytes, *, chunked: bool) -> None:
        if part:
            await self._put(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)

    async def _put(self, data: bytes) -> None:
        if self._state.meter is not None:
            self._state.meter.take(len(data))
        self._writer.write(data)
        self._state.traffic.received += len(data)
        await self._writer.drain()
        self._moved()

    def _moved(self) -> None:
        self._patience.reschedule(asyncio.get_running_loop().time() + IDLE_SECONDS)

    _patience: asyncio.Timeout

    # ---- what a destination repeats

    def _redactor(self, answer: Answer) -> Redactor | None:
        credential = self._state.credential
        if credential is None:
            return None
        if (answer.get(b"content-encoding") or b"identity").lower() != b"identity":
            raise Refused("CSM-P015", "the destination compressed an answer that must be read", host=credential.host)
        return Redactor(credential.value)

    def _passed(self, redactor: Redactor | None, part: bytes) -> bytes:
        return part if redactor is None else self._noted(redactor, redactor.part(part))

    def _blanked(self, redactor: Redactor | None, head: bytes) -> bytes:
        return head if redactor is None else self._noted(redactor, redactor.whole(head))

    def _noted(self, redactor: Redactor, clean: bytes) -> bytes:
        """Write one event when the secret came back, before what it was taken out of goes on."""
        state = self._state
        if redactor.found and state.credential is not None:
            self._access.events(
                EventName.EGRESS_DECIDED,
                stage=self._access.stage,
                verdict=Verdict.DENY,
                rule="CSM-P015",
                reason="the destination sent a secret back; it was blanked",
                attrs={**attributes(state.request), "casemate.secret.name": state.credential.name},
            )
            redactor.found = False
        return clean

    # ---- the end

    def _end(self, refused: Refused) -> None:
        """Say why, in the log and to the cell, unless an answer is on its way already."""
        state = self._state
        if state.admitted and refused.code in _BROKEN:
            state.broken = refused  # it was allowed, and could not be served
        else:
            self._access.events(
                EventName.EGRESS_DECIDED,
                stage=self._access.stage,
                verdict=Verdict.DENY,
                rule=refused.code,
                reason=refused.reason,
                attrs=attributes(state.request, refused),
            )
        if not state.answering and not self._writer.is_closing():
            data = refusal(refused, self._access.rules)
            state.traffic.received += len(data)
            self._writer.write(data)

    async def _linger(self) -> None:
        """Take some of a body that nobody wants: closed at once, the other side would not read why it was refused."""
        if not self._state.sending or self._writer.is_closing():
            return
        self._writer.write_eof()
        left = MAX_UNWANTED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNWANTED_SECONDS):
                while left > 0 and (part := await self._source.read()):
                    left -= len(part)

    async def _close(self) -> None:
        try:
            self._account()
        finally:
            self._writer.close()
            if self._upstream is not None:
                await self._upstream.close()

    def _account(self) -> None:
        state = self._state
        if state.first is None:
            return
        self._access.events(
            EventName.EGRESS_CLOSED,
            stage=self._access.stage,
            rule=state.broken.code if state.broken else state.rule,
            reason=state.broken.reason if state.broken else None,
            attrs={
                **attributes(state.first),
                "casemate.bytes.out": state.traffic.sent,
                "casemate.bytes.in": state.traffic.received,
            },
        )


def _render(answer: Answer, *, chunked: bool, keep: bool) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (answer.status, answer.reason)]
    lines += [b"%s: %s" % header for header in answer.headers if header[0] not in _HOP]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    if not keep:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _cancelled(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

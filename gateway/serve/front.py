"""What every server at a stage's door has in common: handshakes, one reply, one event where something was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn, Protocol

import structlog

from gateway.serve.envelope import refuse
from gateway.serve.replies import CALL_PARAMS, DROPPED, discovered, encode, initialized, result, uncached
from gateway.serve.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Message,
    Refusal,
    Reply,
)
from gateway.start import told
from policies.errors import denial
from policies.events import Attribute
from policies.vocabulary import EventName, Verdict

MAX_REFUSALS = 10_000
"""Refused requests of a stage after which its door closes: a flood must not make the event log unbounded."""
_ATTRIBUTE: Final = {"CSM-G004": "mcp.method.name", "CSM-G005": "gen_ai.tool.name"}

_log = structlog.get_logger()


class Emit(Protocol):
    """Writes one event or raises `EventLogError`."""

    def __call__(
        self,
        event: EventName,
        *,
        stage: str | None = None,
        verdict: Verdict | None = None,
        rule: str | None = None,
        reason: str | None = None,
        attrs: Mapping[str, Attribute] | None = None,
    ) -> None: ...


class Front:
    """The side of a server that an agent meets. The caller says which stage by the socket; nothing in a message can."""

    def __init__(self, stage: str, emit: Emit, about: Mapping[str, str], instructions: str) -> None:
        self._stage, self._emit = stage, emit
        self._about, self._instructions = about, instructions
        self._offers: dict[str, dict[str, bool]] = {"tools": {"listChanged": False}}
        self._refusals, self._closed = 0, False

    def refused(self, refusal: Refusal) -> Reply:
        """Return the reply that tells the agent what is refused; write the event that tells everybody else."""
        if not refusal.quiet:
            key = _ATTRIBUTE.get(refusal.code)
            attrs = {key: refusal.denied} if key else {}
            self._record(EventName.TOOL_CALLED, refusal.code, refusal.denied, attrs)
        shape = denial(refusal.code, refusal.denied, hint=refusal.hint, allowed=list(refusal.allowed))
        allow = "POST" if refusal.status == 405 else None
        if refusal.rpc is None:
            close = refusal.status in {408, 413}
            return Reply(status=refusal.status, body=encode(shape), close=close, allow=allow)
        told = shape["error"]
        data = {**told, **refusal.more} if isinstance(told, dict) else refusal.more
        error = {"code": refusal.rpc, "message": f"{refusal.code}: {refusal.denied} refused", "data": data}
        return Reply(status=refusal.status, body=encode({"jsonrpc": "2.0", "id": refusal.id, "error": error}))

    def _greeted(self, message: Message) -> Reply | None:
        """Return the reply to what every server is asked alike; None for the rest, which is a request."""
        if message.id is None:
            if message.method in DROPPED:
                return Reply(status=202)
            self._unknown_method(message, rpc=INVALID_REQUEST, status=400)
        match message.method, message.modern:
            case "initialize", False:
                return self._result(message, initialized(message.params, self._about, self._instructions, self._offers))
            case "ping", False:
                return self._result(message, {})
            case "server/discover", True:
                return self._result(message, discovered(self._instructions, self._offers))
            case _:
                return None

    def _result(self, message: Message, value: Mapping[str, Any]) -> Reply:
        return result(message, value, self._about)

    def _page(self, message: Message, key: str, items: list[Any]) -> Reply:
        """Return the one page of a list."""
        if message.params.get("cursor") is not None:
            self._bad_params(message, "cursor", "there is one page; list without a cursor")
        return self._result(message, {key: items, **(uncached() if message.modern else {})})

    def _called(self, message: Message) -> tuple[str, dict[str, Any]]:
        """Return name and arguments of a call."""
        name, arguments = message.params.get("name"), message.params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict) or message.params.keys() - CALL_PARAMS:
            self._bad_params(message, message.method, "use name and arguments only; arguments is an object")
        return name, arguments

    def _not_given(self, message: Message, name: str, allowed: tuple[str, ...]) -> NoReturn:
        status = 400 if message.modern else 200
        hint = "use one of the allowed"
        refuse("CSM-G005", name[:200], hint, status, rpc=INVALID_PARAMS, id=message.id, allowed=allowed)

    def _crashed(self, message: Message | None, error: Exception) -> Reply:
        """Whatever fails denies the request, with an event."""
        _log.error("desk failed", stage=self._stage, server=self._about["name"], **told(error))
        number = message.id if message else None
        hint = "try again once; then report_incomplete"
        refusal = Refusal(code="CSM-G019", denied="request", hint=hint, status=200, rpc=INTERNAL_ERROR, id=number)
        return self.refused(refusal)

    def _open(self) -> None:
        if self._closed:
            refuse("CSM-G011", "request", "this door is closed for the rest of the run", 403, quiet=True)

    def _record(self, event: EventName, code: str, reason: str, attrs: Mapping[str, Attribute]) -> None:
        """Write the event of a denial, and close the door after too many."""
        if self._closed:
            return
        self._emit(event, stage=self._stage, verdict=Verdict.DENY, rule=code, reason=reason, attrs=attrs)
        self._refusals += 1
        if self._refusals >= MAX_REFUSALS:
            self._closed = True
            reason = f"{self._refusals} requests were refused; further ones are refused without an event"
            self._emit(
                EventName.TOOL_CALLED, stage=self._stage, verdict=Verdict.DENY, rule="CSM-G011", reason=reason, attrs={}
            )

    def _unknown(self, message: Message) -> Reply:
        # Before 2026-07-28 a JSON-RPC error is a successful HTTP exchange; since then it has a status.
        return self._unknown_method(message, rpc=METHOD_NOT_FOUND, status=404 if message.modern else 200)

    def _unknown_method(self, message: Message, *, rpc: int, status: int) -> Reply:
        hint = "this server has tools and nothing else"
        allowed = ("tools/list", "tools/call")
        return refuse("CSM-G004", message.method[:200], hint, status, rpc=rpc, id=message.id, allowed=allowed)

    def _bad_params(self, message: Message, denied: str, hint: str) -> NoReturn:
        status = 400 if message.modern else 200
        refuse("CSM-G001", denied, hint, status, rpc=INVALID_PARAMS, id=message.id)

"""What every server at a stage's door has in common: one reply and, when something was stopped, one event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn, Protocol

from gateway.serve.envelope import refuse
from gateway.serve.replies import encode
from gateway.serve.types import INVALID_PARAMS, Message, Refusal, Reply
from policies.errors import denial
from policies.events import Attribute
from policies.vocabulary import EventName, Verdict

MAX_REFUSALS = 10_000
"""Refused requests of a stage after which its door closes: a flood must not make the event log unbounded."""
_ATTRIBUTE: Final = {"CSM-G004": "mcp.method.name", "CSM-G005": "gen_ai.tool.name"}


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

    def __init__(self, stage: str, emit: Emit) -> None:
        self._stage, self._emit = stage, emit
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

    def _unknown_method(self, message: Message, *, rpc: int, status: int) -> Reply:
        hint = "this server has tools and nothing else"
        allowed = ("tools/list", "tools/call")
        return refuse("CSM-G004", message.method[:200], hint, status, rpc=rpc, id=message.id, allowed=allowed)

    def _bad_params(self, message: Message, denied: str, hint: str) -> NoReturn:
        status = 400 if message.modern else 200
        refuse("CSM-G001", denied, hint, status, rpc=INVALID_PARAMS, id=message.id)

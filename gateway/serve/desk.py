"""The desk of one stage: every request ends in one reply and, when something crossed or was stopped, one event.

Methods run to their end without yielding to another request, so that the order of events is the order of the buffer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from gateway.schema import Problem, Schema
from gateway.serve.admit import Denial, Used, admit
from gateway.serve.buffer import Buffer, BufferBrokenError, Line
from gateway.serve.envelope import read_message, refuse
from gateway.serve.tools import EMPTY_SCHEMA, INSTRUCTIONS, REASON_SCHEMA, definitions
from gateway.serve.types import (
    HANDSHAKE_VERSIONS,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    META_SERVER,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
    Head,
    Message,
    Refusal,
    RefusedError,
    Reply,
)
from gateway.start import told
from policies.canonical import canonical
from policies.errors import denial
from policies.events import Attribute, EventLogError
from policies.plan import Output
from policies.vocabulary import EventName, Verdict

MAX_REFUSALS = 10_000
"""Refused requests of a stage after which its door closes: a flood must not make the event log unbounded."""
MAX_REPORTS = 100
"""Calls of noop and report_incomplete that are recorded."""

SERVER_INFO: Final = {"name": "casemate-writes", "title": "Casemate write buffer", "version": "0.1.0"}
CAPABILITIES: Final = {"tools": {"listChanged": False}}
_DROPPED: Final = frozenset({"notifications/initialized", "notifications/cancelled"})
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


class Ledger:
    """What every output has taken up, over all stages of the run."""

    def __init__(self) -> None:
        self._used: dict[str, Used] = {}

    def used(self, output: str) -> Used:
        """Return what `output` has taken up so far."""
        return self._used.get(output, Used())

    def add(self, output: str, size: int) -> None:
        """Count one row of `size` bytes."""
        used = self.used(output)
        self._used[output] = Used(rows=used.rows + 1, size=used.size + size)


class Desk:
    """Serves one stage. The caller says which stage by the socket; nothing in a message can."""

    def __init__(
        self,
        stage: str,
        outputs: Sequence[Output],
        schemas: Mapping[str, Schema],
        ledger: Ledger,
        buffer: Buffer,
        emit: Emit,
    ) -> None:
        self._stage, self._ledger, self._buffer, self._emit = stage, ledger, buffer, emit
        self._outputs = {output.name: output for output in outputs}
        self._schemas = {name: schemas[name] for name in self._outputs}
        self._reason, self._empty = Schema(REASON_SCHEMA, "noop"), Schema(EMPTY_SCHEMA, "write_status")
        self._tools = definitions(outputs)
        self._names = tuple(str(tool["name"]) for tool in self._tools)
        self._buffered: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._refusals, self._reports, self._closed = 0, 0, False

    def answer(self, head: Head, body: bytes) -> Reply:
        """Return the reply to one POST. Raises only what must end the process (event log or buffer broken)."""
        message: Message | None = None
        try:
            self._open()
            message = read_message(head, body)
            return self._dispatch(message)
        except RefusedError as refused:
            return self.refused(refused.refusal)
        except (EventLogError, BufferBrokenError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever fails here denies the request, with an event
            _log.error("desk failed", stage=self._stage, **told(error))
            number = message.id if message else None
            hint = "try again once; then report_incomplete"
            return self.refused(
                Refusal(code="CSM-G019", denied="request", hint=hint, status=200, rpc=INTERNAL_ERROR, id=number)
            )

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
            return Reply(status=refusal.status, body=_encode(shape), close=close, allow=allow)
        told = shape["error"]
        data = {**told, **refusal.more} if isinstance(told, dict) else refusal.more
        error = {"code": refusal.rpc, "message": f"{refusal.code}: {refusal.denied} refused", "data": data}
        return Reply(status=refusal.status, body=_encode({"jsonrpc": "2.0", "id": refusal.id, "error": error}))

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

    def _dispatch(self, message: Message) -> Reply:
        if message.id is None:
            if message.method in _DROPPED:
                return Reply(status=202)
            self._unknown_method(message, rpc=INVALID_REQUEST, status=400)
        match message.method, message.modern:
            case "initialize", False:
                return _result(message, _initialized(message.params))
            case "ping", False:
                return _result(message, {})
            case "server/discover", True:
                found = {"supportedVersions": list(MODERN_VERSIONS), "capabilities": CAPABILITIES}
                return _result(message, {**found, "instructions": INSTRUCTIONS, **_uncached()})
            case "tools/list", modern:
                if message.params.keys() - {"_meta"} and message.params.get("cursor") is not None:
                    self._bad_params(message, "cursor", "there is one page; list without a cursor")
                return _result(message, {"tools": self._tools, **(_uncached() if modern else {})})
            case "tools/call", _:
                return _result(message, self._call(message))
            case _:
                # Before 2026-07-28 a JSON-RPC error is a successful HTTP exchange; since then it has a status.
                return self._unknown_method(message, rpc=METHOD_NOT_FOUND, status=404 if message.modern else 200)

    def _unknown_method(self, message: Message, *, rpc: int, status: int) -> Reply:
        hint = "this server has tools and nothing else"
        allowed = ("tools/list", "tools/call")
        return refuse("CSM-G004", message.method[:200], hint, status, rpc=rpc, id=message.id, allowed=allowed)

    def _bad_params(self, message: Message, denied: str, hint: str) -> Reply:
        status = 400 if message.modern else 200
        return refuse("CSM-G001", denied, hint, status, rpc=INVALID_PARAMS, id=message.id)

    def _call(self, message: Message) -> dict[str, Any]:
        name, arguments = message.params.get("name"), message.params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict) or message.params.keys() - _CALL_PARAMS:
            self._bad_params(message, "tools/call", "use name and arguments only; arguments is an object")
        match name:
            case "noop" | "report_incomplete":
                return self._report(name, arguments)
            case "write_status":
                if problems := self._empty.problems(arguments):
                    return self._stopped(EventName.TOOL_CALLED, name, admit_problems(problems))
                return _told({"buffered": dict(self._buffered), "refused": dict(self._refused)})
            case str() if name in self._outputs:
                return self._propose(name, arguments)
            case _:
                status, denied = (400 if message.modern else 200), str(name)[:200]
                hint = "call one of the allowed tools"
                return refuse("CSM-G005", denied, hint, status, rpc=INVALID_PARAMS, id=message.id, allowed=self._names)

    def _report(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if problems := self._reason.problems(arguments):
            return self._stopped(EventName.TOOL_CALLED, name, admit_problems(problems))
        if self._reports >= MAX_REPORTS:
            over = Denial(code="CSM-G009", where=f"{MAX_REPORTS} reports", hint="it is recorded already; end now")
            return self._stopped(EventName.TOOL_CALLED, name, over)
        self._emit(EventName.STAGE_REPORTED, stage=self._stage, rule=name, reason=str(arguments["reason"]))
        self._reports += 1
        return _told({"status": "recorded"})

    def _propose(self, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
        output = self._outputs[name]
        problems = self._schemas[name].problems(record)
        line: Line | None = None
        if not problems:
            try:
                line = self._buffer.draft(name, record)
            except ValueError:
                problems = [Problem(pointer="", keyword="number beyond 2^53")]
        refused = admit(output, problems, self._ledger.used(name), len(line.data) if line else 0)
        if refused or line is None:
            self._refused[name] += 1
            return self._stopped(EventName.WRITE_PROPOSED, name, refused or admit_problems(problems))
        self._emit(
            EventName.WRITE_PROPOSED,
            stage=self._stage,
            verdict=Verdict.ALLOW,
            attrs={
                "casemate.output": name,
                "casemate.write.id": line.id,
                "casemate.write.digest": line.digest,
                "casemate.bytes.in": len(line.data),
            },
        )
        self._buffer.append(line)
        self._ledger.add(name, len(line.data))
        self._buffered[name] += 1
        return _told({"id": line.id, "status": "buffered"})

    def _stopped(self, event: EventName, tool: str, stopped: Denial) -> dict[str, Any]:
        attrs = {"casemate.output": tool} if event is EventName.WRITE_PROPOSED else {"gen_ai.tool.name": tool}
        self._record(event, stopped.code, stopped.where, attrs)
        shape = denial(stopped.code, tool, hint=stopped.hint, allowed=list(self._names), where=stopped.where[:2000])
        return {**_told(shape), "isError": True}


_CALL_PARAMS: Final = frozenset({"name", "arguments", "_meta"})


def admit_problems(problems: Sequence[Problem]) -> Denial:
    """Return the denial of arguments that do not fit the schema of their tool."""
    where = ", ".join(f"{problem.pointer or '/'}: {problem.keyword}" for problem in problems)
    return Denial(code="CSM-G006", where=where, hint="correct the named fields and call again")


def _initialized(params: Mapping[str, Any]) -> dict[str, Any]:
    asked = params.get("protocolVersion")
    version = asked if asked in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
    about = {"capabilities": CAPABILITIES, "serverInfo": SERVER_INFO, "instructions": INSTRUCTIONS}
    return {"protocolVersion": version, **about}


def _uncached() -> dict[str, Any]:
    return {"ttlMs": 0, "cacheScope": "private"}


def _told(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool result that says `value` both as text and as structured content."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return {"content": [{"type": "text", "text": text}], "structuredContent": dict(value), "isError": False}


def _result(message: Message, result: Mapping[str, Any]) -> Reply:
    envelope = {"resultType": "complete", "_meta": {META_SERVER: SERVER_INFO}} if message.modern else {}
    return Reply(status=200, body=_encode({"jsonrpc": "2.0", "id": message.id, "result": {**result, **envelope}}))


def _encode(value: Mapping[str, Any]) -> bytes:
    return canonical(value)

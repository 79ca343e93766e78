"""The desk of one tool server of one stage: an agent's request is judged here, and written anew for the server.

Threats: a tool that nobody gave the stage; arguments that break the schema that a person approved; a server that
changes its tools while it runs, answers with something huge, or sends our own secret back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.schema import Schema
from gateway.serve.envelope import MAX_ID, read_message, refuse
from gateway.serve.front import Emit, Front
from gateway.serve.guards import outside
from gateway.serve.notes import LEVELS, Notes, Tell
from gateway.serve.pins import Found, compare
from gateway.serve.replies import as_result, encode, info, uncached
from gateway.serve.results import Cleaned, Keep, Unusable, Washer, clean
from gateway.serve.servers.peer import Answer, ServerFailed
from gateway.serve.servers.session import Session
from gateway.serve.texts import LISTS, Texts, answered
from gateway.serve.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    META_LEVEL,
    NOT_FOUND,
    Head,
    Message,
    Refusal,
    RefusedError,
    Reply,
)
from policies.errors import denial
from policies.events import EventLogError
from policies.plan import Pin, Tool, ToolRule
from policies.vocabulary import EventName, Verdict

MAX_CALLS = 10_000
"""Calls of one server by one stage."""
INSTRUCTIONS = "These tools only read. What is to be changed is proposed at the server `writes`."


class ToolDesk(Front):
    """Serves the tools `wanted` of one server to one stage."""

    def __init__(
        self,
        stage: str,
        server: Tool,
        wanted: Sequence[str],
        session: Session,
        emit: Emit,
        secrets: Sequence[str],
        rules: Sequence[ToolRule] = (),
        texts: Texts | None = None,
        keep: Keep | None = None,
    ) -> None:
        super().__init__(stage, emit, info(f"casemate-{server.name}", f"{server.name}, behind Casemate"), INSTRUCTIONS)
        self._texts, self._keep = texts or Texts(), keep
        self._offers |= {"logging": {}, **self._texts.offers}
        self._server, self._wanted, self._session, self._secrets = server, tuple(wanted), session, secrets
        pins = {pin.name: pin for pin in server.pins}
        place = f"tool {server.name}"
        self._inputs = {n: Schema(pins[n].definition["inputSchema"], place) for n in wanted if n in pins}
        self._outputs = {
            name: Schema(pins[name].definition["outputSchema"], place)
            for name in wanted
            if name in pins and "outputSchema" in pins[name].definition
        }
        self._live: list[dict[str, Any]] = []
        self._found: Found | None = None
        self._said: set[str] = set()
        self._rules = {rule.tool: rule for rule in rules if rule.server == server.name}
        self._calls: Counter[str] = Counter()
        self._level: int | None = None

    async def answer(self, head: Head, body: bytes, tell: Tell | None = None) -> Reply:
        """Return the reply to one POST; `tell` is for what is said before it. Raises only what must end the process."""
        message: Message | None = None
        try:
            self._open()
            message = read_message(head, body)
            return await self._dispatch(message, tell)
        except RefusedError as refused:
            return self.refused(refused.refusal)
        except ServerFailed as failed:
            return self._failed(message, failed.reason)
        except EventLogError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever fails here denies the request, with an event
            return self._crashed(message, error)

    async def _dispatch(self, message: Message, tell: Tell | None) -> Reply:
        if (reply := self._greeted(message)) is not None:
            return reply
        match message.method:
            case "tools/list":
                return self._page(message, "tools", [pin.definition for pin in (await self._tools())[0].values()])
            case "tools/call":
                return self._result(message, await self._call(message, self._notes(message, tell)))
            case "logging/setLevel" if not message.modern:
                return self._result(message, await self._set_level(message))
            case method if self._texts.serves(method):
                return await self._text(message)
            case _:
                return self._unknown(message)

    async def _text(self, message: Message) -> Reply:
        """Answer a question about resources or prompts, of which the stage has some."""
        method, washer, began = message.method, Washer(self._secrets), time.monotonic()
        cut, error = False, ""
        try:
            if method in LISTS:
                self._tell(EventName.TOOL_CALLED, method, None, None, Verdict.ALLOW)
                items = await self._session.listed(method, LISTS[method])
                reply = self._page(message, LISTS[method], self._texts.listed(method, items, washer))
            else:
                answer = await self._session.ask(method, self._asked(message))
                if answer.result is None:
                    error = f"error {answer.code}"
                    reply = self._error(message, answer, washer)
                else:
                    made, cut = answered(method, answer.result, washer)
                    reply = self._result(message, {**made, **(uncached() if message.modern else {})})
        except Unusable as unusable:
            raise ServerFailed(str(unusable)) from unusable
        self._told(method, Cleaned({}, washer.hidden, washer.secrets, cut), began, error)
        return reply

    def _asked(self, message: Message) -> dict[str, Any]:
        """Return the question for the server; refuse what is malformed, was not given, or comes too often."""
        method = message.method
        try:
            params, subject = self._texts.question(method, message.params)
        except ValueError as error:
            self._bad_params(message, method, str(error))
        if not self._texts.allows(method, params, subject):
            self._not_given(message, subject, self._texts.given)
        if self._calls.total() >= MAX_CALLS:
            status, hint = 429 if message.modern else 200, "stop asking, and end"
            refuse("CSM-G016", method, hint, status, rpc=INVALID_REQUEST, id=message.id)
        self._calls[method] += 1
        self._tell(EventName.TOOL_CALLED, method, None, subject[:200], Verdict.ALLOW)
        return params

    def _error(self, message: Message, answer: Answer, washer: Washer) -> Reply:
        """Return a server's error: what it may be, in words that are cleaned."""
        code = answer.code if answer.code in (NOT_FOUND, INVALID_PARAMS) else INTERNAL_ERROR
        if message.modern and code == NOT_FOUND:
            code = INVALID_PARAMS  # since 2026-07-28
        error = {"code": code, "message": washer.wash(answer.message[:500])}
        return Reply(status=200, body=encode({"jsonrpc": "2.0", "id": message.id, "error": error}))

    async def _tools(self) -> tuple[Mapping[str, Pin], list[dict[str, Any]]]:
        """Return the tools that are there and are what was approved, and the list that was compared.

        Tell of each that is not, once.
        """
        live = await self._session.tools()
        if self._found is not None and self._live is live:
            return self._found.tools, live
        found = compare(self._wanted, self._server.pins, live)
        self._live, self._found = live, found
        for name, why in found.gone.items():
            if name not in self._said:
                self._said.add(name)
                self._emit(
                    EventName.TOOL_CHANGED,
                    stage=self._stage,
                    verdict=Verdict.DENY,
                    rule="CSM-G013",
                    reason=why,
                    attrs={"casemate.server": self._server.name, "gen_ai.tool.name": name},
                )
        return found.tools, live

    async def _set_level(self, message: Message) -> dict[str, Any]:
        level = message.params.get("level")
        if level not in LEVELS:
            self._bad_params(message, "level", f"one of {', '.join(LEVELS)}")
        self._level = LEVELS.index(level)
        await self._session.level(level)
        return {}

    def _notes(self, message: Message, tell: Tell | None) -> Notes | None:
        """Return what hears the server while it works on a call; None when the agent would not hear of it."""
        meta = message.params.get("_meta", {})
        if tell is None or not isinstance(meta, dict):
            return None
        token = meta.get("progressToken")
        asked = meta.get(META_LEVEL)
        level = (LEVELS.index(asked) if asked in LEVELS else None) if message.modern else self._level
        valid = isinstance(token, str | int) and not isinstance(token, bool) and len(str(token)) <= MAX_ID
        notes = Notes(tell, token if valid else None, level, self._secrets)
        return notes if notes.wanted else None

    async def _call(self, message: Message, notes: Notes | None) -> dict[str, Any]:
        name, arguments = self._called(message)
        tools, live = await self._tools()
        if name not in tools:
            self._not_given(message, name, tuple(tools))
        if problems := self._inputs[name].problems(arguments):
            where = ", ".join(f"{problem.pointer or '/'}: {problem.keyword}" for problem in problems)
            return self._stopped(name, "CSM-G006", where, "correct the named fields and call again")
        rule = self._rules.get(name)
        if rule is not None and (found := outside(rule, arguments)):
            return self._stopped(name, "CSM-G017", "; ".join(found), "say what is allowed, and call again")
        if rule is not None and rule.calls is not None and self._calls[name] >= rule.calls:
            return self._stopped(name, "CSM-G016", f"{rule.calls} calls of {name} a stage", "do without it")
        if self._calls.total() >= MAX_CALLS:
            return self._stopped(name, "CSM-G016", f"{MAX_CALLS} calls a stage", "stop calling, and end")
        self._calls[name] += 1
        self._tell(EventName.TOOL_CALLED, name, None, None, Verdict.ALLOW)
        began = time.monotonic()
        try:
            answer = await self._session.call(name, arguments, live, notes.take if notes is not None else None)
            reply = self._judged(name, answer, began)
        except (ServerFailed, Unusable) as error:
            reason = error.reason if isinstance(error, ServerFailed) else str(error)
            self._tell(EventName.TOOL_ANSWERED, name, "CSM-G014", reason, Verdict.DENY, began)
            shape = denial("CSM-G014", name, hint=f"the server failed: {reason}", allowed=list(tools))
            return {**as_result(shape), "isError": True}
        return reply

    def _judged(self, name: str, answer: Answer, began: float) -> dict[str, Any]:
        if answer.result is None:
            text = f"error {answer.code}: {answer.message}"
            cleaned = clean({"content": [{"type": "text", "text": text}], "isError": True}, None, self._secrets)
            reason = f"error {answer.code}"
        else:
            cleaned = clean(answer.result, self._outputs.get(name), self._secrets, self._keep)
            reason = ""
        self._told(name, cleaned, began, reason)
        return cleaned.result

    def _told(self, name: str, cleaned: Cleaned, began: float, reason: str) -> None:
        """Write the event of an answer that goes to the agent, and what was done to it."""
        if cleaned.touched:
            whole = "kept as a file" if cleaned.kept else "cut" if cleaned.cut else "whole"
            reason += f"{', ' if reason else ''}{cleaned.hidden} hidden characters, {cleaned.secrets} secrets, {whole}"
        code = "CSM-G015" if cleaned.touched else None
        self._tell(EventName.TOOL_ANSWERED, name, code, reason or None, Verdict.ALLOW, began)

    def _stopped(self, tool: str, code: str, where: str, hint: str) -> dict[str, Any]:
        attrs = {"casemate.server": self._server.name, "gen_ai.tool.name": tool}
        self._record(EventName.TOOL_CALLED, code, where, attrs)
        shape = denial(code, tool, hint=hint, allowed=list(self._wanted), where=where[:2000])
        return {**as_result(shape), "isError": True}

    def _failed(self, message: Message | None, reason: str) -> Reply:
        """A server that does not answer is an error, never an empty list."""
        hint = "the server failed; try again once, then report_incomplete"
        number = message.id if message else None
        return self.refused(
            Refusal(code="CSM-G014", denied=reason, hint=hint, status=200, rpc=INTERNAL_ERROR, id=number)
        )

    def _tell(
        self,
        event: EventName,
        tool: str,
        code: str | None,
        reason: str | None,
        verdict: Verdict,
        began: float | None = None,
    ) -> None:
        what = "mcp.method.name" if "/" in tool else "gen_ai.tool.name"  # no name of a tool has a slash
        attrs = {"casemate.server": self._server.name, what: tool}
        more = {"casemate.duration_ms": int((time.monotonic() - began) * 1000)} if began is not None else {}
        self._emit(event, stage=self._stage, verdict=verdict, rule=code, reason=reason, attrs={**attrs, **more})

"""The desk of one cell: every request ends in one reply and, when something crossed or was stopped, one event.

Methods run to their end without yielding to another request, so that the order of events is the order of the buffer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.schema import Problem, Schema
from gateway.serve.admit import Denial, Used, admit
from gateway.serve.buffer import Buffer, BufferBrokenError, Line
from gateway.serve.envelope import read_message
from gateway.serve.front import Emit, Front
from gateway.serve.replies import as_result, info
from gateway.serve.tools import EMPTY_SCHEMA, FILE_SCHEMA, INSTRUCTIONS, REASON_SCHEMA, definitions
from gateway.serve.types import Head, Message, RefusedError, Reply
from policies.cells import parted
from policies.errors import CasemateError, denial
from policies.events import Attribute, EventLogError
from policies.plan import Output
from policies.vocabulary import EventName, Verdict
from policies.writes import place_of, references

SERVER_INFO: Final = info("casemate-writes", "Casemate write buffer")
MAX_REPORTS = 100
"""Calls of noop and report_incomplete that are recorded."""
MAX_FILES = 100
"""Files of records that one stage may propose."""


class Ledger:
    """What every output has taken up, over all stages of the run; in one that was resumed, those before included."""

    def __init__(self, facts: Mapping[str, str] | None = None) -> None:
        """Begin with what the facts `used/<output>` (rows, bytes) and `proposals/<cell>` say. Raises CSM-R010."""
        self._used: dict[str, Used] = {}
        self._proposals: Counter[str] = Counter()
        for fact, value in (facts or {}).items():
            kind, _, name = fact.partition("/")
            try:
                if kind == "used":
                    rows, size = map(int, value.split())
                    self._used[name] = Used(rows=rows, size=size)
                elif kind == "proposals":
                    self._proposals[name] = int(value)
            except ValueError as error:
                raise CasemateError("CSM-R010", f"{fact}: {value}", place="gateway") from error

    def used(self, output: str) -> Used:
        """Return what `output` has taken up so far."""
        return self._used.get(output, Used())

    def add(self, stage: str, output: str, size: int, rows: int = 1) -> None:
        """Count one proposal of `size` bytes."""
        used = self.used(output)
        self._used[output] = Used(rows=used.rows + rows, size=used.size + size)
        self._proposals[stage] += 1

    def knows(self, proposal: object, by: str) -> bool:
        """Tell whether something is the id of a proposal that is buffered. Of another shard, a cell is told nothing."""
        place = place_of(proposal)
        if place is None or (place[0] != by and parted(place[0])[0] == parted(by)[0]):
            return False
        return place[1] < self._proposals[place[0]]


class Desk(Front):
    """The buffer-only server of one stage."""

    def __init__(
        self,
        stage: str,
        outputs: Sequence[Output],
        schemas: Mapping[str, Schema],
        ledger: Ledger,
        buffer: Buffer,
        emit: Emit,
    ) -> None:
        super().__init__(stage, emit, SERVER_INFO, INSTRUCTIONS)
        self._ledger, self._buffer = ledger, buffer
        self._outputs = {output.name: output for output in outputs}
        self._schemas = {name: schemas[name] for name in self._outputs}
        self._reason, self._empty = Schema(REASON_SCHEMA, "noop"), Schema(EMPTY_SCHEMA, "write_status")
        self._file = Schema(FILE_SCHEMA, "propose_file")
        self._references = {output.name: references(output.schema) for output in outputs}
        self._files = 0
        self._tools = definitions(outputs)
        self._names = tuple(str(tool["name"]) for tool in self._tools)
        self._buffered: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._reports = 0

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
            return self._crashed(message, error)

    def _dispatch(self, message: Message) -> Reply:
        if (reply := self._greeted(message)) is not None:
            return reply
        match message.method:
            case "tools/list":
                return self._page(message, "tools", self._tools)
            case "tools/call":
                return self._result(message, self._call(message))
            case _:
                return self._unknown(message)

    def _call(self, message: Message) -> dict[str, Any]:
        name, arguments = self._called(message)
        match name:
            case "noop" | "report_incomplete":
                return self._report(name, arguments)
            case "write_status":
                if problems := self._empty.problems(arguments):
                    return self._stopped(EventName.TOOL_CALLED, name, admit_problems(problems))
                return as_result({"buffered": dict(self._buffered), "refused": dict(self._refused)})
            case "propose_file" if self._outputs:
                return self._propose_file(arguments)
            case str() if name in self._outputs:
                return self._propose(name, arguments)
            case _:
                return self._not_given(message, name, self._names)

    def _report(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if problems := self._reason.problems(arguments):
            return self._stopped(EventName.TOOL_CALLED, name, admit_problems(problems))
        if self._reports >= MAX_REPORTS:
            over = Denial(code="CSM-G009", where=f"{MAX_REPORTS} reports", hint="it is recorded already; end now")
            return self._stopped(EventName.TOOL_CALLED, name, over)
        self._emit(EventName.STAGE_REPORTED, stage=self._stage, rule=name, reason=str(arguments["reason"]))
        self._reports += 1
        return as_result({"status": "recorded"})

    def _propose(self, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
        output = self._outputs[name]
        problems = self._schemas[name].problems(record) or [
            Problem(pointer=f"/{field}", keyword="no earlier proposal has this id")
            for field in self._references[name]
            if field in record and not self._ledger.knows(record[field], self._stage)
        ]
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
        return self._buffer_line(name, line, 1, {})

    def _propose_file(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Buffer the promise of a file. Its rows count at customs, where there is a copy that nobody changes."""
        if problems := self._file.problems(arguments):
            return self._stopped(EventName.TOOL_CALLED, "propose_file", admit_problems(problems))
        name, path = str(arguments["output"]), str(arguments["path"])
        if name not in self._outputs:
            return self._stopped(
                EventName.TOOL_CALLED, "propose_file", admit_problems([Problem(pointer="/output", keyword="enum")])
            )
        if self._files >= MAX_FILES:
            over = Denial(code="CSM-G010", where=f"{MAX_FILES} files a stage", hint="write fewer and larger files")
            return self._stopped(EventName.WRITE_PROPOSED, name, over)
        line = self._buffer.draft(name, {}, file=path)
        self._files += 1
        return self._buffer_line(name, line, 0, {"casemate.path": path})

    def _buffer_line(self, name: str, line: Line, rows: int, more: Mapping[str, Attribute]) -> dict[str, Any]:
        self._emit(
            EventName.WRITE_PROPOSED,
            stage=self._stage,
            verdict=Verdict.ALLOW,
            attrs={
                "casemate.output": name,
                "casemate.write.id": line.id,
                "casemate.write.digest": line.digest,
                "casemate.bytes.in": len(line.data),
                **more,
            },
        )
        self._buffer.append(line)
        self._ledger.add(self._stage, name, len(line.data), rows)
        self._buffered[name] += 1
        return as_result({"id": line.id, "status": "buffered"})

    def _stopped(self, event: EventName, tool: str, stopped: Denial) -> dict[str, Any]:
        attrs = {"casemate.output": tool} if event is EventName.WRITE_PROPOSED else {"gen_ai.tool.name": tool}
        self._record(event, stopped.code, stopped.where, attrs)
        shape = denial(stopped.code, tool, hint=stopped.hint, allowed=list(self._names), where=stopped.where[:2000])
        return {**as_result(shape), "isError": True}


def admit_problems(problems: Sequence[Problem]) -> Denial:
    """Return the denial of arguments that do not fit the schema of their tool."""
    where = ", ".join(f"{problem.pointer or '/'}: {problem.keyword}" for problem in problems)
    return Denial(code="CSM-G006", where=where, hint="correct the named fields and call again")

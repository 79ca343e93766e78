"""The run's event log: one hash-chained file, merged from what every component reports.

Line by line canonical JSON; `seq` counts from 0, `prev` is the digest of the line before (of nothing, for the first).
The head (how many lines, and the digest of the last) is kept beside the file, so that a cut-off end is seen too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from policies.canonical import StrictJsonError, canonical, digest, strict_loads
from policies.cells import parted, shard_name
from policies.errors import CasemateError
from policies.events import Attribute, ComponentEvent, clean, now
from policies.plan import Count, Digest, Frozen
from policies.vocabulary import Component, EventName, ExitCode, Verdict
from policies.writes import GENESIS

_GENESIS_HEAD: dict[str, int | str] = {"count": 0, "head": GENESIS}
SCHEMA = Path(__file__).resolve().parents[2] / "policies" / "schemas" / "event.schema.json"


class RunEvent(Frozen, frozen=True, kw_only=True):
    """One line of events.jsonl."""

    seq: Count
    prev: Digest
    run: str
    plan: Digest
    n: Count
    time: str
    actor: Component
    event: EventName
    stage: str | None
    shard: int | None
    verdict: Verdict | None
    rule: str | None
    reason: str | None
    attrs: dict[str, Attribute]

    @property
    def cell(self) -> str | None:
        """The name of the cell that it is about."""
        return shard_name(self.stage, self.shard) if self.stage is not None and self.shard is not None else self.stage


class RunLog:
    """Appends events to a run's log. Raises `CasemateError` CSM-R011 when a component's numbering has a gap."""

    def __init__(self, folder: Path, run: str, plan: str, *, goes_on: bool = False) -> None:
        """`goes_on`: the log is there, and more is added to it; raises CSM-R011 where its chain does not hold."""
        self._path, self._run, self._plan = folder / "events.jsonl", run, plan
        self._head = folder / "events.head"
        self._seq, self._prev = 0, GENESIS
        self._expected: dict[Component, int] = {}
        self._last: dict[Component, RunEvent] = {}
        there = goes_on and self._path.exists()
        size = self._take_up() if there else 0
        flags = os.O_WRONLY | os.O_APPEND | (0 if there else os.O_CREAT | os.O_EXCL)
        self._file = os.open(self._path, flags, 0o600)
        os.ftruncate(self._file, size)

    def _take_up(self) -> int:
        """Find the end of the log, and return its bytes. A line that a crash cut short was never acted on: it is none.

        The head is written last, so it may be behind; but it must lie on the chain.
        """
        size, head = 0, _GENESIS_HEAD
        try:
            if self._head.exists():
                head = msgspec.json.decode(self._head.read_bytes(), type=dict[str, int | str])
            on_chain = head == _GENESIS_HEAD
            with self._path.open("rb") as stream:
                for raw in stream:
                    if not raw.endswith(b"\n"):
                        break
                    record = msgspec.json.decode(raw, type=RunEvent)
                    if (record.seq, record.prev, record.run) != (self._seq, self._prev, self._run):
                        raise self._broken("the chain is broken here")
                    self._took(record, raw[:-1])
                    size += len(raw)
                    on_chain = on_chain or head == {"count": self._seq, "head": self._prev}
        except ValueError as error:  # whatever cannot be decoded is one
            raise self._broken(str(error)) from error
        if not on_chain:
            raise self._broken(f"the log ends here, but its head is at {head.get('count')}")
        return size

    def _broken(self, why: str) -> CasemateError:
        place = f"events.jsonl:{self._seq + 1}"
        return CasemateError("CSM-R011", clean(why), place=place, exit_code=ExitCode.REFUSED)

    def _took(self, record: RunEvent, line: bytes) -> None:
        self._seq, self._prev = self._seq + 1, digest(line)
        self._expected[record.actor], self._last[record.actor] = record.n + 1, record

    def begin(self, actor: Component) -> None:
        """Expect a new process of a component, which counts from 0."""
        self._expected[actor] = 0

    def last(self, actor: Component) -> RunEvent | None:
        """Return the last event of a component, if it has said anything."""
        return self._last.get(actor)

    def own(
        self,
        event: EventName,
        *,
        stage: str | None = None,
        verdict: Verdict | None = None,
        rule: str | None = None,
        reason: str | None = None,
        attrs: Mapping[str, Attribute] | None = None,
    ) -> RunEvent:
        """Append an event of the orchestrator itself. `stage` may be the cell of a shard."""
        where, shard = parted(stage) if stage is not None else (None, None)
        return self.append(
            ComponentEvent(
                n=self._expected.get(Component.SANDBOX, 0),
                time=now(),
                actor=Component.SANDBOX,
                event=event,
                stage=where,
                shard=shard,
                verdict=verdict,
                rule=rule,
                reason=clean(reason) if reason else None,
                attrs={k: clean(v, 4000) if isinstance(v, str) else v for k, v in (attrs or {}).items()},
            )
        )

    def append(self, event: ComponentEvent) -> RunEvent:
        """Append a component's event, in the order in which it arrived."""
        expected = self._expected.get(event.actor, 0)
        if event.n != expected:
            raise CasemateError("CSM-R011", f"event {expected} of {event.actor.value} is missing (got {event.n})")
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        record = RunEvent(seq=self._seq, prev=self._prev, run=self._run, plan=self._plan, **fields)
        line = canonical(msgspec.to_builtins(record))
        try:
            os.write(self._file, line + b"\n")
        except OSError as error:
            raise CasemateError("CSM-R011", f"the event log cannot be written: {error.strerror}") from error
        self._took(record, line)
        return record

    def checkpoint(self) -> None:
        """Make everything so far durable, and note the head."""
        os.fsync(self._file)
        temporary = self._head.with_suffix(".head.new")
        temporary.write_bytes(canonical({"count": self._seq, "head": self._prev}) + b"\n")
        temporary.replace(self._head)

    def close(self) -> None:
        """Checkpoint and close."""
        self.checkpoint()
        os.close(self._file)


def parse_component_event(line: bytes, actor: Component) -> ComponentEvent:
    """Read a component's line; raise CSM-R011 when it is not an event of that component."""
    try:
        event = msgspec.convert(strict_loads(line), ComponentEvent, strict=True)
    except (StrictJsonError, msgspec.ValidationError) as error:
        raise CasemateError("CSM-R011", f"{actor.value} wrote no event: {error}", place=actor.value) from error
    if event.actor is not actor:
        raise CasemateError("CSM-R011", f"{actor.value} spoke as {event.actor.value}", place=actor.value)
    return event


def read_events(folder: Path) -> Iterator[RunEvent]:
    """Yield the events of a run, without verifying their chain."""
    path = folder / "events.jsonl"
    if path.exists():
        with path.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):  # the last line may still be on its way
                    yield msgspec.json.decode(line, type=RunEvent)


def verify(folder: Path) -> int:
    """Return the number of events after checking every line against the schema, the chain and the head.

    Raises `CasemateError` CSM-R011 at the first line that was flipped, dropped, reordered, added or cut off.
    """

    def broken(number: int, why: str) -> CasemateError:
        place = f"events.jsonl:{number + 1}"
        return CasemateError("CSM-R011", why, place=place, exit_code=ExitCode.REFUSED)

    prev, count = GENESIS, 0
    with (folder / "events.jsonl").open("rb") as stream:
        for number, raw in enumerate(stream):
            line = raw.removesuffix(b"\n")
            try:
                record = strict_loads(line)
                _schema().validate(record)
            except Exception as error:  # whatever it is, the line is not an event
                raise broken(number, f"not an event: {clean(str(error), 200)}") from error
            if not isinstance(record, dict) or canonical(record) != line or not raw.endswith(b"\n"):
                raise broken(number, "not the canonical encoding")
            if record["seq"] != number or record["prev"] != prev:
                raise broken(number, "the chain is broken here")
            prev, count = digest(line), number + 1
    try:
        head: Any = json.loads((folder / "events.head").read_bytes())
    except (OSError, ValueError) as error:
        raise broken(count, "the head of the log is missing or unreadable") from error
    if head != {"count": count, "head": prev}:
        raise broken(count, f"the log ends here, but its head is at {head.get('count')}")
    return count


@cache
def _schema() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text()))

"""Applying: what customs accepted is written, once, and the journal says how far that is.

It can be called again at any time: what was applied is left alone, what was intended is looked for in its sink, and
what the sink cannot tell waits for a person.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from policies.errors import CasemateError
from policies.events import Attribute
from policies.plan import Output, Plan, decode
from policies.sinks import At, Batch, Moment, Sink, batch_key, kept, pass_by, settle
from policies.vocabulary import EventName, ExitCode, Verdict
from policies.writes import Declaration, Written
from sandbox.archives import Kept, digest_of_file
from sandbox.records.store import Store
from sandbox.records.writes import State, Write
from sandbox.sinks.placing import Placed, place_of
from sandbox.sinks.sqlite import SCHEME as SQLITE
from sandbox.sinks.sqlite import SqliteSink

ACCEPTED = "accepted"
"""The folder of a run in which accepted rows stay; and the name of that part of its writes."""
_AFTER = {"CSM-W010": State.WAITING, "CSM-W016": State.UNKNOWN}
"""How far a write is after it failed so; after anything else, it stays intended."""
IN_PROJECT = frozenset({"dataset", "file"})


class Note(Protocol):
    """Logs an event of the orchestrator."""

    def __call__(self, event: EventName, **fields: object) -> None: ...


class Way(Protocol):
    """How the sink of one output is reached."""

    def settle(self, batch: Batch, *, again: bool) -> str:
        """Apply a batch once, and return its receipt. `again`: somebody has begun before."""
        ...

    def undo(self, batch: Batch, receipt: str, /) -> None:
        """Take it back."""
        ...


class Here:
    """A sink that the orchestrator itself writes."""

    def __init__(self, sink: Sink, at: At) -> None:
        self._sink, self._at, self.undo = sink, at, sink.undo

    def settle(self, batch: Batch, *, again: bool) -> str:
        """Apply a batch once."""
        return settle(self._sink, batch, again=again, at=self._at)


Reach = Callable[[Output, Path], Way]
"""How a sink outside of the project, whose folder is given, is reached."""


def unreachable(output: Output, _root: Path) -> Way:
    """Reach nothing: for who has only sinks of the project."""
    raise kept(f"a sink {output.sink} is not reached from here")


def keep(folder: Path, plan: Plan, written: list[Written], files: Mapping[str, Kept]) -> None:
    """Keep what customs declared with the run, after checking that it is what the plan allows and customs wrote."""
    outputs = {output.name: output for output in plan.outputs}
    (folder / ACCEPTED).mkdir(mode=0o700, exist_ok=True)
    for item in written:
        kept_file, output = files.get(item.file), outputs.get(item.output)
        if kept_file is None or output is None or output.path != item.path or kept_file.digest != item.digest:
            raise CasemateError("CSM-W010", f"what customs declared for {item.output} is not what it wrote")
        for name in (item.file, f"{item.output}.manifest.json"):
            if name in files:
                files[name].path.replace(folder / ACCEPTED / name)


HELD = "held"
"""The same, for rows that wait for a person."""


def keep_held(folder: Path, held: list[Written], files: Mapping[str, Kept]) -> None:
    """Keep the rows that wait, after checking that they are what customs wrote."""
    (folder / HELD).mkdir(mode=0o700, exist_ok=True)
    for item in held:
        kept_file = files.get(item.file)
        if kept_file is None or kept_file.digest != item.digest:
            raise CasemateError("CSM-W010", f"what customs holds of {item.output} is not what it wrote")
        kept_file.path.replace(folder / HELD / item.file)


def enter(
    store: Store, run: str, root: Path, written: list[Written], part: str = ACCEPTED, state: State = State.WAITING
) -> None:
    """Write down everything that is to be applied, or waits for a person. Nothing was sent yet."""
    store.writes.add(
        Write(
            run=run,
            output=item.output,
            part=part,
            key=batch_key(run, item.output, part, item.digest),
            digest=item.digest,
            file=f"{part}/{item.file}",
            rows=item.rows,
            root=str(root.resolve()),
            state=state,
        )
        for item in written
    )


class Applier:
    """Applies, and takes back, the writes of one run."""

    def __init__(
        self, store: Store, run: str, plan: Plan, note: Note, reach: Reach = unreachable, at: At = pass_by
    ) -> None:
        self._store, self._run, self._plan, self._note, self._reach, self._at = store, run, plan, note, reach, at
        self._folder = store.folder(run)
        self._outputs = {output.name: output for output in plan.outputs}

    def apply(self) -> None:
        """Apply what is not applied yet, all that can be; then raise the first failure."""
        failures = []
        for write in self._store.writes.of(self._run):
            try:
                if write.state in (State.WAITING, State.INTENDED):
                    self._one(write)
                elif write.state is State.UNKNOWN:
                    raise _undecided(write)
            except CasemateError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def decide(self, output: str, *, done: bool) -> None:
        """Take a person's word for a write of which the sink cannot tell: it is `done`, or is to be made again."""
        found = [w for w in self._store.writes.of(self._run) if w.output == output and w.state is State.UNKNOWN]
        if not found:
            message = f"nothing of {output} is unknown"
            raise CasemateError("CSM-R018", message, exit_code=ExitCode.USAGE)
        for write in found:
            if done:
                self._applied(write, "confirmed")
            else:
                self._store.writes.mark(write.key, State.WAITING)

    def undo(self) -> None:
        """Take back what was applied, the last first; raise CSM-W017 at what cannot be taken back."""
        for write in reversed(self._store.writes.of(self._run)):
            if write.state is State.APPLIED:
                output = self._outputs[write.output]
                self._way(output, write).undo(self._batch(write), write.receipt or "")
                self._store.writes.mark(write.key, State.UNDONE, write.receipt)
                self._say(EventName.WRITE_UNDONE, write, write.receipt)

    def _one(self, write: Write) -> None:
        output = self._outputs[write.output]
        batch, way = self._batch(write), self._way(output, write)
        self._store.writes.mark(write.key, State.INTENDED)
        self._at(Moment.INTENDED)
        try:
            receipt = way.settle(batch, again=write.state is State.INTENDED)
        except CasemateError as error:
            if error.code in _AFTER:
                self._store.writes.mark(write.key, _AFTER[error.code])
            error.place = error.place or f"output {write.output}"
            raise
        self._applied(write, receipt)
        self._at(Moment.APPLIED)

    def _applied(self, write: Write, receipt: str) -> None:
        self._say(EventName.WRITE_APPLIED, write, receipt)
        self._store.writes.mark(write.key, State.APPLIED, receipt)
        declared = decode((self._folder / "declaration.json").read_bytes().removesuffix(b"\n"), Declaration)
        values = {name: fields for name, fields in declared.values.items() if name == write.output}
        self._store.candidates.learn(self._plan, values)

    def _say(self, event: EventName, write: Write, receipt: str | None) -> None:
        output = self._outputs[write.output]
        placed = json.loads(receipt) if receipt and output.sink in IN_PROJECT else {}
        attrs: dict[str, Attribute] = {
            "casemate.output": write.output,
            "casemate.path": place_of(output, write.run) or None,
            "casemate.digest": placed.get("digest", write.digest),
            "casemate.write.count": write.rows,
            "casemate.receipt": receipt,
        }
        self._note(event, verdict=Verdict.ACCEPT, attrs=attrs)

    def _batch(self, write: Write) -> Batch:
        path = self._folder / write.file
        try:
            intact = digest_of_file(path) == write.digest
        except OSError:
            intact = False
        if not intact:
            raise CasemateError("CSM-W010", f"the accepted rows of {write.output} are not those that customs wrote")
        return Batch(key=write.key, digest=write.digest, rows=path, count=write.rows)

    def _way(self, output: Output, write: Write) -> Way:
        root = Path(write.root)
        if output.sink == "sql" and output.target["url"].startswith(SQLITE):
            return Here(SqliteSink(root, output), self._at)
        if output.sink not in IN_PROJECT:
            return self._reach(output, root)
        manifest = self._folder / ACCEPTED / f"{output.name}.manifest.json"
        content = manifest.read_bytes() if manifest.exists() else None
        before = self._folder / "before" / output.name
        return Here(Placed(root, place_of(output, write.run), output.sink, content, before), self._at)


def _undecided(write: Write) -> CasemateError:
    hint = f"look at the sink, then: casemate apply {write.run} --done {write.output}, or --retry {write.output}"
    message = f"nobody knows whether {write.output} was written"
    return CasemateError("CSM-W016", message, hint=hint, exit_code=ExitCode.WRITES_HELD)

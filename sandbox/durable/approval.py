"""Approval: rows that customs holds wait in the run's folder until a person has seen them, and decided.

An output of which rows wait is written whole once that is decided, never in part. What a person sees is a review, and
what a person decides is bound to its digest: over the rows that wait, the rows that were accepted beside them, and what
is in the sink's place now. Where any of these is another by then, the decision is void. Approved rows go through
customs once more, which compares them with what was approved, and are applied like others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from policies.canonical import digest, digest_of
from policies.errors import CasemateError
from policies.events import clean
from policies.plan import Output, Plan
from policies.vocabulary import EventName, ExitCode
from sandbox import apply
from sandbox.applying import ACCEPTED
from sandbox.log import RunEvent, read_events
from sandbox.placing import place_of
from sandbox.store import Store
from sandbox.writes import State, Write

EXPIRES = timedelta(days=7)
"""For how long what waits can be approved after it was judged. It can be rejected at any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What waits of one output: the lines that are shown, and the digest that a decision is bound to."""

    output: str
    rows: int
    judged: datetime
    lines: tuple[str, ...]
    digest: str


def waiting(store: Store, run: str, output: str | None = None, begun: State = State.HELD) -> list[Write]:
    """Return what waits of a run (of one output), or was `begun` to be decided so; raise CSM-R018 when nothing does.

    What was begun is over when its rows are written, and, with the last of them, the run says how it ended.
    """
    writes = store.writes.of(run)
    over = {w.output for w in writes if w.part == ACCEPTED and w.state not in (State.WAITING, State.INTENDED)}
    if store.exit_code(run) == ExitCode.WRITES_HELD and not any(write.state is State.HELD for write in writes):
        over = set()
    wanted = [write for write in writes if output in (None, write.output)]
    found = [w for w in wanted if w.state is State.HELD or (w.state is begun and w.output not in over)]
    if not found:
        what = run if output is None else f"{output} of {run}"
        raise CasemateError("CSM-R018", f"nothing of {what} waits for a person", exit_code=ExitCode.USAGE)
    return found


def review(folder: Path, plan: Plan, write: Write) -> Review:
    """Show what would change in the sink; raise CSM-W018 when the rows are not those that customs held."""
    output = next(output for output in plan.outputs if output.name == write.output)
    held = (folder / write.file).read_bytes()
    if digest(held) != write.digest:
        raise void(write.output, "the rows that wait are not those that customs held")
    declared = apply.judged(folder)
    written = next((item for item in declared.written if item.output == write.output), None)
    before = _before(Path(write.root), output, write.run)
    bound = {
        "run": write.run,
        "output": write.output,
        "held": write.digest,
        "accepted": written.digest if written else None,
        "before": digest(before) if before is not None else None,
    }
    accepted = (folder / ACCEPTED / written.file).read_bytes() if written and output.format != "parquet" else b""
    return Review(
        output=write.output,
        rows=write.rows,
        judged=judged_at(read_events(folder)),
        lines=tuple(_diff(output, before, accepted, held, written.rows if written else 0)),
        digest=digest_of(bound),
    )


def judged_at(events: Iterable[RunEvent]) -> datetime:
    """Return when customs held what waits, by the chained log; raise CSM-W018 when it never did.

    After a decision it judges once more, which gives nobody more time.
    """
    at = None
    for event in events:
        if event.event is EventName.WRITE_DECIDED:
            break
        if event.event is EventName.WRITE_JUDGED:
            at = datetime.fromisoformat(event.time)
    if at is None:
        raise void("all", "the log does not say when it was judged")
    return at


def check_decision(shown: Review, seen: str, now: datetime, *, approves: bool) -> None:
    """Raise CSM-W018 unless a decision was made over what is there now, in time."""
    if shown.digest != seen:
        raise void(shown.output, "what waits, or what is in its place, is not what was shown")
    if approves and now - shown.judged > EXPIRES:
        raise void(shown.output, f"it was judged more than {EXPIRES.days} days ago")


def void(output: str, why: str) -> CasemateError:
    """Return the refusal of a decision."""
    hint = "look at it again: casemate review"
    return CasemateError("CSM-W018", why, place=f"output {output}", hint=hint, exit_code=ExitCode.REFUSED)


def _before(root: Path, output: Output, run: str) -> bytes | None:
    if output.sink not in ("dataset", "file"):
        return None
    try:
        return (root / place_of(output, run)).read_bytes()
    except OSError:
        return None


def _diff(output: Output, before: bytes | None, accepted: bytes, held: bytes, count: int) -> Iterator[str]:
    """Yield what goes and what comes, line by line, with every character that could hide made visible."""
    place = output.path or output.target.get("repository") or output.sink
    yield f"{output.name}: {place}"
    if output.format == "parquet":
        yield f"  {'replaces the file that is there' if before is not None else 'no file is there'}; {count} rows pass"
        before = None
    coming = Counter([*accepted.splitlines(), *held.splitlines()])
    for line in (before or b"").splitlines():
        if coming[line]:
            coming[line] -= 1
        else:
            yield f"- {_visible(line)}"
    for mark, rows in (("+", accepted), ("?", held)):
        for row in rows.splitlines():
            yield from (f"{mark} {_visible(line)}" for line in _read(output, row))


def _read(output: Output, row: bytes) -> list[bytes]:
    """Return a row as people read it: a proposal for a repository line by line, each with the name of its field."""
    if output.git is None:
        return [row]
    fields: dict[str, str] = json.loads(row)
    names = [name for name in ("title", "body", "patch") if name in fields]
    return [f"{name}: {line}".encode() for name in names for line in fields[name].split("\n")]


def _visible(line: bytes) -> str:
    text = line.decode(errors="replace")
    return clean(text, 10 * len(text) + 1)  # nothing is cut off

"""Approval: rows that customs holds wait in the run's folder until a person has seen them, and decided.

An output of which rows wait is written whole once that is decided, never in part. What a person sees is a review, and
what a person decides is bound to its digest: over the rows that wait, the rows that were accepted beside them, and what
is in the sink's place now. Where any of these is another by then, the decision is void. Approved rows go through
customs once more, which compares them with what was approved, and are applied like others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from policies.canonical import digest_of
from policies.errors import CasemateError
from policies.plan import Output, Plan
from policies.vocabulary import EventName, ExitCode
from sandbox.archives import digest_of_file
from sandbox.durable.change import Change
from sandbox.records.log import RunEvent, read_events
from sandbox.records.store import Store
from sandbox.records.writes import State, Write
from sandbox.sinks import customs
from sandbox.sinks.applying import ACCEPTED
from sandbox.sinks.placing import place_of

EXPIRES = timedelta(days=7)
"""For how long what waits can be approved after it was judged. It can be rejected at any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What waits of one output: the change whose lines are shown, and the digest that a decision is bound to."""

    output: str
    rows: int
    judged: datetime
    change: Iterable[str]
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
    held = folder / write.file
    if digest_of_file(held) != write.digest:
        raise void(write.output, "the rows that wait are not those that customs held")
    written = next((item for item in customs.judged(folder).written if item.output == write.output), None)
    before = _before(Path(write.root), output, write.run)
    bound = {
        "run": write.run,
        "output": write.output,
        "held": write.digest,
        "accepted": written.digest if written else None,
        "before": digest_of_file(before) if before is not None else None,
    }
    return Review(
        output=write.output,
        rows=write.rows,
        judged=judged_at(read_events(folder)),
        change=Change(
            output=output,
            before=before,
            accepted=folder / ACCEPTED / written.file if written else None,
            held=held,
            count=written.rows if written else 0,
        ),
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


def _before(root: Path, output: Output, run: str) -> Path | None:
    """Return the file in the place that a decision would write to, where there is one that can be read."""
    if output.sink not in ("dataset", "file"):
        return None
    path = root / place_of(output, run)
    return path if os.access(path, os.R_OK) and path.is_file() else None

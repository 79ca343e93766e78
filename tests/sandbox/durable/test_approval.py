"""A decision is over what was shown, and an approval is given in time."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from policies.canonical import canonical
from policies.errors import CasemateError
from policies.vocabulary import EventName, ExitCode, Outcome
from sandbox.compiler.repositories import repository
from sandbox.durable.approval import EXPIRES, Review, check_decision, judged_at
from sandbox.durable.change import Change
from sandbox.durable.outcome import decided_of
from sandbox.language.sinks import SinkSpec
from sandbox.records.log import RunEvent
from sandbox.records.writes import State
from tests.plans import SHA, plan
from tests.sandbox.records.test_account import event

JUDGED = datetime(2026, 11, 21, 12, tzinfo=UTC)
SHOWN = Review(output="rows", rows=2, judged=JUDGED, change=("? {}",), digest=SHA)
SECOND = timedelta(seconds=1)


def test_what_was_shown_is_approved_in_time() -> None:
    check_decision(SHOWN, SHA, JUDGED + EXPIRES, approves=True)


def test_an_approval_expires_and_a_rejection_does_not() -> None:
    with pytest.raises(CasemateError, match="CSM-W018"):
        check_decision(SHOWN, SHA, JUDGED + EXPIRES + SECOND, approves=True)
    check_decision(SHOWN, SHA, JUDGED + EXPIRES + SECOND, approves=False)


@pytest.mark.parametrize("approves", [True, False])
def test_a_decision_over_something_else_is_void(approves: bool) -> None:
    with pytest.raises(CasemateError, match="CSM-W018"):
        check_decision(SHOWN, SHA[:-1], JUDGED, approves=approves)


def test_a_patch_that_waits_is_shown_line_by_line_each_with_its_field(tmp_path: Path) -> None:
    git, where = repository(SinkSpec(kind="git", repository="r", base="main")), {"repository": "r"}
    sink = msgspec.structs.replace(plan().outputs[0], sink="git", path="", format="", git=git, target=where)
    row = {"title": "Say two", "body": "why\n? patch: +fake", "patch": "@@ -1 +1 @@\n-one\n+two\u202e\n"}
    (tmp_path / "held").write_bytes(canonical(row) + b"\n")
    shown = list(Change(output=sink, before=None, accepted=None, held=tmp_path / "held", count=0))
    assert shown == [
        "rows: r",
        "? title: Say two",
        "? body: why",
        "? body: ? patch: +fake",
        "? patch: @@ -1 +1 @@",
        "? patch: -one",
        "? patch: +two\\u{202e}",
        "? patch: ",
    ]


def test_a_line_that_comes_as_often_as_it_was_there_is_not_shown_as_going(tmp_path: Path) -> None:
    files = {"before": b"a\r\nb\na\na\nz", "accepted": b"a\nc\n", "held": b"a\nb\n"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    change = Change(output=plan().outputs[0], count=2, **{name: tmp_path / name for name in files})
    assert list(change) == ["rows: out/rows.jsonl", "- a", "- z", "+ a", "+ c", "? a", "? b"]
    assert list(change) == list(change), "it can be read again"


def test_a_set_of_any_size_is_shown_in_little_memory(tmp_path: Path) -> None:
    rows = 30_000
    for name, first in (("before", 1), ("held", 0)):
        lines = (f'{{"n":{n},"text":"{"x" * 200}"}}\n' for n in range(first, first + rows))
        (tmp_path / name).write_text("".join(lines))
    change = Change(
        output=plan().outputs[0], before=tmp_path / "before", accepted=None, held=tmp_path / "held", count=0
    )
    tracemalloc.start()
    gone = sum(line.startswith("- ") for line in change)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert gone == 1
    assert peak < (tmp_path / "held").stat().st_size / 4


def test_the_time_counts_from_the_log_and_no_decision_gives_more() -> None:
    def judged(at: int) -> RunEvent:
        return event(EventName.WRITE_JUDGED, None, at=at)

    decided = event(EventName.WRITE_DECIDED, None, at=8)
    first = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert judged_at([judged(3), judged(5), decided, judged(9)]) == first
    assert judged_at([judged(5)]) == first
    with pytest.raises(CasemateError, match="CSM-W018"):
        judged_at([decided, judged(9)])


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ({State.HELD, State.APPLIED}, (Outcome.INCOMPLETE, ExitCode.WRITES_HELD)),
        ({State.APPROVED, State.UNKNOWN}, (Outcome.INCOMPLETE, ExitCode.WRITES_HELD)),
        ({State.APPROVED, State.APPLIED}, (Outcome.COMPLETED, ExitCode.DONE)),
        ({State.REJECTED, State.APPLIED}, (Outcome.COMPLETED, ExitCode.DONE)),
        ({State.REJECTED}, (Outcome.DENIED, ExitCode.WRITES_REJECTED)),
    ],
)
def test_a_run_ends_as_what_was_decided_of_it(states: set[State], outcome: tuple[Outcome, ExitCode]) -> None:
    assert decided_of(states) == outcome

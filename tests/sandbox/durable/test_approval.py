"""A decision is over what was shown, and an approval is given in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from policies.canonical import canonical
from policies.errors import CasemateError
from sandbox.durable.approval import EXPIRES, Review, _diff, check_decision
from sandbox.repositories import repository
from sandbox.sink_spec import SinkSpec
from tests.plans import SHA, plan

JUDGED = datetime(2026, 11, 21, 12, tzinfo=UTC)
SHOWN = Review(output="rows", rows=2, judged=JUDGED, lines=("? {}",), digest=SHA)
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


def test_a_patch_that_waits_is_shown_line_by_line_each_with_its_field() -> None:
    git, where = repository(SinkSpec(kind="git", repository="r", base="main")), {"repository": "r"}
    sink = msgspec.structs.replace(plan().outputs[0], sink="git", path="", format="", git=git, target=where)
    row = {"title": "Say two", "body": "why\n? patch: +fake", "patch": "@@ -1 +1 @@\n-one\n+two\u202e\n"}
    shown = list(_diff(sink, None, b"", canonical(row), 0))
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

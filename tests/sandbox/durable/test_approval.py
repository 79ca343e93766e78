"""A decision is over what was shown, and an approval is given in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from policies.errors import CasemateError
from sandbox.durable.approval import EXPIRES, Review, check_decision
from tests.plans import SHA

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

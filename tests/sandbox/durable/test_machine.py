"""The tables: every pair of state and move either leads somewhere or is refused; nothing is stuck, ENDED is the end."""

from __future__ import annotations

from itertools import product

import pytest

from policies.errors import CasemateError
from policies.plan import Retry
from policies.vocabulary import Outcome
from sandbox.durable.machine import RUN, STAGE, RunMove, RunState, StageMove, StageState, after, may_retry, stage_after


@pytest.mark.parametrize(("state", "move"), list(product(RunState, RunMove)))
def test_a_run_moves_by_its_table_alone(state: RunState, move: RunMove) -> None:
    if (state, move) in RUN:
        assert after(state, move) is RUN[state, move]
    else:
        with pytest.raises(CasemateError, match="CSM-R026"):
            after(state, move)


@pytest.mark.parametrize(("state", "move"), list(product(StageState, StageMove)))
def test_a_stage_moves_by_its_table_alone(state: StageState, move: StageMove) -> None:
    if (state, move) in STAGE:
        assert stage_after(state, move) is STAGE[state, move]
    else:
        with pytest.raises(CasemateError, match="CSM-R026"):
            stage_after(state, move)


def test_every_state_but_the_end_can_be_resumed_and_reaches_the_end() -> None:
    for state in RunState:
        assert ((state, RunMove.RESUME) in RUN) is (state is not RunState.ENDED)
        reached, fresh = {state}, {state}
        while fresh:
            fresh = {to for (start, _), to in RUN.items() if start in fresh} - reached
            reached |= fresh
        assert RunState.ENDED in reached


def test_nothing_leads_back_from_customs_to_an_agent() -> None:
    late = {RunState.JUDGING, RunState.APPLYING, RunState.ENDED}
    assert all(to in late for (start, _), to in RUN.items() if start in late)


def test_what_is_being_applied_is_not_cancelled() -> None:
    cancelled = {start for start, move in RUN if move is RunMove.CANCEL}
    assert cancelled == set(RunState) - {RunState.APPLYING, RunState.ENDED}


def test_completed_is_for_ever() -> None:
    assert not any(start is StageState.COMPLETED for start, _ in STAGE)


@pytest.mark.parametrize(
    ("retry", "outcome", "attempts", "again"),
    [
        (None, Outcome.FAILED, 1, False),
        (Retry(attempts=3, on=["failed"]), Outcome.FAILED, 1, True),
        (Retry(attempts=3, on=["failed"]), Outcome.FAILED, 2, True),
        (Retry(attempts=3, on=["failed"]), Outcome.FAILED, 3, False),
        (Retry(attempts=3, on=["failed"]), Outcome.TIMED_OUT, 1, False),
        (Retry(attempts=3, on=["failed"]), Outcome.DENIED, 1, False),
    ],
)
def test_a_stage_is_tried_again_where_the_plan_says_so(
    retry: Retry | None, outcome: Outcome, attempts: int, again: bool
) -> None:
    assert may_retry(retry, outcome, attempts) is again

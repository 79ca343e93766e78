"""The figures of runs, from their logs alone."""

from __future__ import annotations

import msgspec

from policies.vocabulary import EventName
from sandbox.durable.figures import Figures, figures
from sandbox.records.log import RunEvent
from tests.sandbox.records.test_account import event, settled


def ended(outcome: str) -> RunEvent:
    return event(EventName.RUN_ENDED, None, casemate__outcome=outcome)


RESUMED = event(EventName.RUN_RESUMED, None)
FAILED_CALL = msgspec.structs.replace(settled(cost=3), rule="CSM-P025")


def test_a_run_that_went_straight_through_recovered_from_nothing() -> None:
    assert figures([settled(), settled(), ended("completed")]) == Figures(
        runs=1, ended=1, completed=1, attempts=2, answered=2, usd_nanos=14
    )


def test_a_run_that_was_resumed_has_recovered_only_when_it_completed() -> None:
    assert figures([ended("failed"), RESUMED, ended("completed")]).recovered == 1
    assert figures([ended("failed"), RESUMED, ended("failed")]).recovered == 0
    gone_on = figures([ended("failed"), RESUMED])
    assert (gone_on.ended, gone_on.shaken, gone_on.completed) == (0, 1, 0)
    retried = figures([event(EventName.STAGE_RETRIED), ended("completed")])
    assert (retried.shaken, retried.recovered) == (1, 1)


def test_an_attempt_that_failed_multiplies_and_an_answer_that_was_paid_before_does_not() -> None:
    one = figures([FAILED_CALL, settled(), settled(cost=0, casemate__cache="paid"), ended("completed")])
    assert (one.attempts, one.answered, one.usd_nanos) == (2, 1, 10)
    assert one.as_json()["call_multiplier"] == 2.0


def test_a_success_bears_the_cost_of_the_failures() -> None:
    both = figures([settled(), ended("completed")]) + figures([settled(), ended("failed")])
    assert (both.usd_nanos_per_success, both.as_json()["completion"]) == (14, 0.5)
    none = figures([settled(), ended("failed")])
    assert none.usd_nanos_per_success is None
    assert Figures().as_json()["recovery"] is None

"""Quotas over runs: reserved before rows are judged, by however many at once, and never passed."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.errors import CasemateError
from policies.plan import DayBudget, Plan
from sandbox.records.store import Store
from tests.plans import plan as whole

_line: Barrier
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def plan(per_day: int | None = None, per_minute: int | None = None, name: str = "example", usd: int = 10**9) -> Plan:
    base = whole()
    output = msgspec.structs.replace(
        base.outputs[0], name="rows", per_run=10**6, per_day=per_day, per_minute=per_minute
    )
    budget = msgspec.structs.replace(base.budget, usd_nanos=100, tokens=1, calls=1, per_day=DayBudget(usd_nanos=usd))
    return msgspec.structs.replace(base, name=name, outputs=[output], budget=budget)


def reserve(store: Store, run: str, wanted: Plan, rows: int, at: datetime = NOON) -> int:
    return store.quotas.reserve(run, wanted, {"rows": rows}, at).get("rows", -1)


def start(line: Barrier) -> None:
    global _line
    _line = line


def race(home: str, prefix: str) -> list[tuple[int, bool]]:
    """Try 500 times for a quota of 10 rows and for money that one run may have; return rows and whether it had it."""
    store, won = Store(Path(home)), []
    for number in range(500):
        wanted = plan(per_day=10, name=f"workflow-{number}", usd=199)
        _line.wait(timeout=60)  # both start every try together
        rows = reserve(store, f"{prefix}-{number}", wanted, 7)
        try:
            store.days.reserve(f"{prefix}-{number}", wanted, "2026-11-21")
        except CasemateError as error:
            if error.code != "CSM-R024":
                raise
            won.append((rows, False))
        else:
            won.append((rows, True))
    return won


def test_two_processes_racing_for_one_quota_and_one_ceiling_never_pass_either(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn, start, (spawn.Barrier(2),)) as racers:
        tries = list(zip(*racers.map(race, [str(tmp_path)] * 2, ["p0", "p1"], timeout=240), strict=True))
    assert len(tries) == 500
    for (rows, paid), (other_rows, other_paid) in tries:
        assert {rows, other_rows} == {7, 3}
        assert paid is not other_paid


def test_what_is_left_is_given_in_part_and_then_nothing(tmp_path: Path) -> None:
    store, wanted = Store(tmp_path), plan(per_day=10)
    assert [reserve(store, run, wanted, 7) for run in "abc"] == [7, 3, 0]
    assert reserve(store, "d", plan(per_day=10, name="other"), 7) == 7
    assert reserve(store, "e", plan(), 7) == -1  # the control: without a quota nothing is told


def test_what_was_not_accepted_is_given_back_and_a_run_that_goes_on_has_its_own(tmp_path: Path) -> None:
    store, wanted = Store(tmp_path), plan(per_day=10)
    assert reserve(store, "a", wanted, 10) == 10
    assert reserve(store, "a", wanted, 10) == 10  # resumed
    store.quotas.settle("a", {"rows": 4})
    assert reserve(store, "b", wanted, 10) == 6
    store.quotas.settle("a", {"rows": 9})  # more than was settled is never taken again
    assert reserve(store, "c", wanted, 10) == 0


@pytest.mark.parametrize(
    ("limits", "later", "left"),
    [
        ({"per_day": 10}, timedelta(hours=11), 0),
        ({"per_day": 10}, timedelta(hours=12), 10),
        ({"per_minute": 10}, timedelta(seconds=59), 0),
        ({"per_minute": 10}, timedelta(seconds=60), 10),
        ({"per_minute": 10, "per_day": 15}, timedelta(seconds=60), 5),
    ],
)
def test_a_quota_is_of_the_day_or_of_any_minute(
    tmp_path: Path, limits: dict[str, Any], later: timedelta, left: int
) -> None:
    store, wanted = Store(tmp_path), plan(**limits)
    assert reserve(store, "a", wanted, 10) == 10
    assert reserve(store, "b", wanted, 10, NOON + later) == left

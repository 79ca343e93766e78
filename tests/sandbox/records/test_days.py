"""A day's budget: reserved whole before a run starts, by however many at once, and never passed."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from policies.errors import CasemateError
from policies.plan import DayBudget, Plan
from policies.vocabulary import ExitCode
from sandbox.records.store import Store
from sandbox.records.tally import StageTally, Tally
from tests.plans import plan as whole

ROOT = Path(__file__).resolve().parents[3]
DAY = "2026-11-21"


def plan(name: str = "example", day: dict[str, int] | None = None) -> Plan:
    budget = msgspec.structs.replace(
        whole().budget, usd_nanos=100, tokens=10, calls=1, per_day=DayBudget(**day) if day else None
    )
    return msgspec.structs.replace(whole(), name=name, budget=budget)


def tries(home: Path, prefix: str, count: int, usd_nanos: int) -> int:
    """Try to reserve `count` times; return how often it went."""
    days, went = Store(home).days, 0
    for number in range(count):
        try:
            days.reserve(f"{prefix}-{number}", plan(day={"usd_nanos": usd_nanos}), DAY)
            went += 1
        except CasemateError as error:
            if error.code != "CSM-R024":
                raise
    return went


def test_two_threads_racing_for_a_day_never_pass_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        went = list(pool.map(lambda n: tries(tmp_path, f"t{n}", 250, 5_000), range(4)))
    assert sum(went) == 50
    assert Store(tmp_path).days.spent("example", DAY) == (5_000, 500, 50)


def test_two_processes_racing_for_a_day_never_pass_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.sandbox.records.test_days import tries; "
        "print(tries(Path(sys.argv[1]), sys.argv[2], 500, 30_000))"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"p{n}"], cwd=ROOT, stdout=subprocess.PIPE)
        for n in range(2)
    ]
    went = [int(process.communicate(timeout=120)[0]) for process in racing]
    assert sum(went) == 300  # of 1,000 tries
    assert Store(tmp_path).days.spent("example", DAY)[0] == 30_000


@pytest.mark.parametrize("limit", [{"usd_nanos": 250}, {"tokens": 25}, {"calls": 2}])
def test_every_dimension_is_a_ceiling_of_its_own(tmp_path: Path, limit: dict[str, int]) -> None:
    days = Store(tmp_path).days
    days.reserve("a", plan(day=limit), DAY)
    days.reserve("b", plan(day=limit), DAY)
    with pytest.raises(CasemateError) as refused:
        days.reserve("c", plan(day=limit), DAY)
    assert (refused.value.code, refused.value.exit_code) == ("CSM-R024", ExitCode.REFUSED)
    days.reserve("c", plan(day=limit), "2026-11-22")  # another day
    days.reserve("d", plan("other", limit), DAY)  # another workflow
    days.reserve("e", plan(), DAY)  # the control: without a ceiling nothing is reserved
    assert days.spent("example", DAY) == (200, 20, 2)


def test_what_was_not_spent_is_given_back_once(tmp_path: Path) -> None:
    days = Store(tmp_path).days
    days.reserve("a", plan(day={"usd_nanos": 100}), DAY)
    spent = Tally(cells={"one": StageTally(calls=1, input_tokens=2, output_tokens=3, usd_nanos=40)})
    days.settle("a", spent)
    assert days.spent("example", DAY) == (40, 5, 1)
    days.settle("a", Tally())
    assert days.spent("example", DAY) == (40, 5, 1)
    days.settle("unknown", spent)
    assert days.spent("example", DAY) == (40, 5, 1)


def test_what_a_run_that_died_had_reserved_stays_spent(tmp_path: Path) -> None:
    Store(tmp_path).days.reserve("a", plan(day={"usd_nanos": 100}), DAY)
    with pytest.raises(CasemateError):  # another process, later
        Store(tmp_path).days.reserve("b", plan(day={"usd_nanos": 100}), DAY)

"""What is ahead of a run: no cell twice, none before what it needs, no more than a leg serves."""

from __future__ import annotations

from collections import defaultdict

import msgspec
import pytest

from policies.plan import Plan, Retry, Shards
from policies.vocabulary import Outcome
from sandbox.durable.ahead import LEG, ahead, is_over
from sandbox.durable.machine import StageState
from sandbox.records.tally import StageTally, Tally
from tests.plans import plan


def sharded(count: int, **more: object) -> Plan:
    """A plan whose stage `one` has shards, and whose stage `two` needs it."""
    one, two = plan().stages
    shards = Shards(over="seeds", size=1, parallel=8, count=count)
    return msgspec.structs.replace(
        plan(),
        stages=[
            msgspec.structs.replace(two, needs=["one"]),
            msgspec.structs.replace(one, shards=shards, needs=[], **more),
        ],
    )


def test_a_leg_serves_so_many_cells_and_nothing_that_must_wait_for_others() -> None:
    legs = []
    states: defaultdict[str, StageState] = defaultdict(lambda: StageState.WAITING)
    while found := ahead(sharded(2 * LEG + 3), states.__getitem__):
        cells = [cell for cells in found.values() for cell in cells]
        assert all(states[cell] is StageState.WAITING for cell in cells)
        states.update(dict.fromkeys(cells, StageState.COMPLETED))
        legs.append({name: len(cells) for name, cells in found.items()})
    assert legs == [{"one": LEG}, {"one": LEG}, {"one": 3, "two": 1}]


def test_stages_without_shards_are_served_in_one_leg_in_the_order_of_their_needs() -> None:
    assert list(ahead(plan(), lambda _: StageState.WAITING).items()) == [("one", ["one"]), ("two", ["two"])]


def test_what_was_begun_or_failed_is_ahead_again() -> None:
    states = {"one.0": StageState.COMPLETED, "one.1": StageState.RUNNING, "one.2": StageState.ENDED}
    found = ahead(sharded(4), lambda cell: states.get(cell, StageState.WAITING))
    assert found == {"one": ["one.1", "one.2", "one.3"], "two": ["two"]}


@pytest.mark.parametrize(("attempts", "over"), [(1, None), (2, Outcome.FAILED)])
def test_each_shard_has_its_own_attempts(attempts: int, over: Outcome | None) -> None:
    made = sharded(3, retry=Retry(attempts=2, on=["failed"]))
    cells = {"one.1": StageTally(outcome="failed", attempts=attempts), "one.2": StageTally(attempts=9)}
    assert is_over(made, "one.1", Tally(cells=cells)) is over

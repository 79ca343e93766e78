"""What is ahead of a run: the cells that a leg will serve, and what becomes of one that did not complete. Pure."""

from __future__ import annotations

from collections.abc import Callable
from graphlib import TopologicalSorter

from policies.cells import parted
from policies.plan import Plan, Stage
from policies.vocabulary import Outcome
from sandbox.durable.machine import StageState, may_retry
from sandbox.records.tally import Tally

LEG = 64
"""For how many cells one set of trusted processes has doors."""

At = Callable[[str], StageState]
"""Where a cell stands."""


def stages_of(plan: Plan) -> dict[str, Stage]:
    """Return the stages in the order of their needs."""
    stages = {stage.name: stage for stage in plan.stages}
    order = TopologicalSorter({name: stage.needs for name, stage in stages.items()}).static_order()
    return {name: stages[name] for name in order}


def ahead(plan: Plan, at: At) -> dict[str, list[str]]:
    """Return the next cells that have not completed, as many as a leg serves, by stage, in the order of needs."""
    found: dict[str, list[str]] = {}
    left = LEG
    for name, stage in stages_of(plan).items():
        cells = [cell for cell in stage.cells if at(cell) is not StageState.COMPLETED]
        if cells and left:
            found[name] = cells[:left]
        if len(cells) > left:
            break  # of what needs it, nothing can begin in this leg
        left -= len(cells)
    return found


def is_over(plan: Plan, cell: str, tally: Tally) -> Outcome | None:
    """Return how a cell ended that did not complete; None when it is tried again."""
    stage = next(stage for stage in plan.stages if stage.name == parted(cell)[0])
    numbers = tally.cells[cell]
    outcome = Outcome(numbers.outcome or Outcome.FAILED.value)
    return None if may_retry(stage.retry, outcome, numbers.attempts) else outcome

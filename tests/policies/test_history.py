"""A baseline that cannot be walked away, beside those that can."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence

import pytest

from policies.history import drift, learn, limits, measure_of, promoted
from policies.plan import Candidate, Distribution

RUNS, ROWS = 200, 100


def distribution(values: Sequence[float], nulls: float = 0.0) -> Distribution:
    ordered = sorted(values)
    centiles = [float(ordered[round(part * (len(ordered) - 1) / 100)]) for part in range(101)]
    mean, sd = statistics.fmean(values), statistics.pstdev(values)
    return Distribution(n=len(values), mean=mean, sd=sd, nulls=nulls, centiles=centiles)


def normal(mean: float, seed: int, count: int = ROWS) -> list[float]:
    source = random.Random(seed)
    return [source.gauss(mean, 1.0) for _ in range(count)]


ANCHOR = distribution(normal(0.0, 1, 5000))


def test_honest_sets_pass_run_after_run() -> None:
    candidate: Candidate | None = None
    objections = 0
    for run in range(RUNS):
        batch = distribution(normal(0.0, 100 + run))
        objections += bool(drift(ANCHOR, candidate, batch))
        candidate = learn(ANCHOR, candidate, batch)
    assert objections <= 2


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (normal(1.5, 2), "mean"),
        ([value * 5 for value in normal(0.0, 3)], "spread"),
        ([0.1] * ROWS, "spread"),
        ([-1.0, 1.0] * (ROWS // 2), "apart"),
    ],
)
def test_a_set_that_is_another_is_held(values: list[float], word: str) -> None:
    assert any(word in why for why in drift(ANCHOR, None, distribution(values)))


def test_a_field_that_goes_missing_is_noticed() -> None:
    assert any("missing" in why for why in drift(ANCHOR, None, distribution(normal(0.0, 4), nulls=0.6)))


def test_a_few_rows_are_held_to_the_limits_alone() -> None:
    assert drift(ANCHOR, None, distribution([3.0] * 5)) == []
    low, high = limits(ANCHOR, None, 5)
    assert -5.5 < low < -4.5
    assert 4.5 < high < 5.5


def worst(passes: Callable[[list[float]], bool], seed: int) -> list[float]:
    """Return the set with the largest shift that still passes: what an agent that knows the rules would send."""
    low, high = 0.0, 50.0
    best = normal(0.0, seed)
    for _ in range(18):
        middle = (low + high) / 2
        batch = [value + middle for value in normal(0.0, seed)]
        if passes(batch):
            low, best = middle, batch
        else:
            high = middle
    return best


def walked(estimate: Callable[[list[list[float]]], tuple[float, float]], sigma: float = 1.0) -> float:
    """Return how far the centre of a self-updating estimator is after `RUNS` just-passing sets."""
    sets = [normal(0.0, seed, 500) for seed in range(3)]
    for run in range(RUNS):
        centre, spread = estimate(sets)

        def passes(batch: list[float], centre: float = centre, spread: float = spread) -> bool:
            return abs(statistics.fmean(batch) - centre) <= sigma * spread

        sets.append(worst(passes, 1000 + run))
    return estimate(sets)[0]


def running(sets: list[list[float]]) -> tuple[float, float]:
    every = [value for batch in sets for value in batch]
    return statistics.fmean(every), statistics.pstdev(every)


def window(sets: list[list[float]]) -> tuple[float, float]:
    return running(sets[-5:])


def robust(sets: list[list[float]]) -> tuple[float, float]:
    every = [value for batch in sets[-5:] for value in batch]
    centre = statistics.median(every)
    return centre, 1.4826 * statistics.median(abs(value - centre) for value in every)


def smoothed(sets: list[list[float]]) -> tuple[float, float]:
    centre, spread = 0.0, 1.0
    for batch in sets:
        centre += 0.1 * (statistics.fmean(batch) - centre)
        spread += 0.1 * (statistics.pstdev(batch) - spread)
    return centre, spread


def trimmed(sets: list[list[float]]) -> tuple[float, float]:
    every = sorted(value for batch in sets[-5:] for value in batch)
    kept = every[len(every) // 10 : -len(every) // 10]
    return statistics.fmean(kept), statistics.pstdev(every)


@pytest.mark.parametrize("estimate", [running, window, robust, smoothed, trimmed], ids=lambda one: one.__name__)
def test_every_baseline_that_updates_itself_is_walked_away(estimate: Callable[..., tuple[float, float]]) -> None:
    assert walked(estimate) > 3.0


def test_ours_is_not_walked_past_the_anchor() -> None:
    candidate: Candidate | None = None
    applied = 0
    for run in range(RUNS):

        def passes(batch: list[float], candidate: Candidate | None = candidate) -> bool:
            low, high = limits(ANCHOR, candidate, 5)
            return all(low <= value <= high for value in batch) and not drift(ANCHOR, candidate, distribution(batch))

        batch = worst(passes, 1000 + run)
        if passes(batch):  # a set that does not pass is held, and teaches nothing
            applied += 1
            candidate = learn(ANCHOR, candidate, distribution(batch))
    assert applied > RUNS // 4
    assert candidate is not None
    assert abs(candidate.mean - ANCHOR.mean) <= ANCHOR.sd
    _, high = limits(ANCHOR, candidate, 5)
    assert high - ANCHOR.mean <= 6.5 * ANCHOR.sd
    assert abs(promoted(candidate, 0.0).mean) <= ANCHOR.sd


def test_a_candidate_far_away_moves_the_limits_by_one_deviation() -> None:
    far = Candidate(n=10**9, mean=1000.0, sd=1.0, centiles=[1000.0] * 101)
    assert limits(ANCHOR, far, 5)[1] <= ANCHOR.mean + 6.5 * ANCHOR.sd


def test_a_set_is_learned_one_set_later_and_never_counts_for_more_than_a_tenth() -> None:
    first = learn(ANCHOR, None, distribution(normal(0.4, 7, 10**5)))
    assert first.mean == ANCHOR.mean
    second = learn(ANCHOR, first, distribution(normal(0.0, 8)))
    assert 0.0 < second.mean - ANCHOR.mean < 0.06


def shares(count: int = 200, nulls: float = 0.0, **named: float) -> Distribution:
    return Distribution(n=count, mean=0, sd=0, nulls=nulls, centiles=[], shares=dict(named))


KINDS = shares(5000, good=0.6, fair=0.3, bad=0.1)


def test_shares_that_are_as_they_were_pass() -> None:
    assert drift(KINDS, None, shares(good=0.55, fair=0.33, bad=0.12)) == []
    assert drift(KINDS, None, shares(10, good=1.0)) == [], "a few rows say nothing of shares"


@pytest.mark.parametrize(
    "batch",
    [
        shares(good=0.2, fair=0.3, bad=0.5),
        shares(good=1.0),
        shares(good=0.6, other=0.4),
        shares(2000, good=0.9, bad=0.1),
    ],
)
def test_shares_that_have_moved_are_held(batch: Distribution) -> None:
    assert any("shares" in why for why in drift(KINDS, None, batch))


def test_shares_cannot_be_walked_away() -> None:
    candidate: Candidate | None = None
    held = 0
    for run in range(RUNS):
        step = min(0.002 * run, 0.6)
        batch = shares(1000, good=0.6 - step, fair=0.3, bad=0.1 + step)
        if drift(KINDS, candidate, batch):
            held += 1
        else:
            candidate = learn(KINDS, candidate, batch)
    assert candidate is not None
    assert held > RUNS / 2
    assert candidate.shares["bad"] - 0.1 < 0.15
    assert promoted(candidate, 0.0).shares == candidate.shares


@pytest.mark.parametrize(
    ("field", "measure"),
    [
        ({"type": "integer"}, "value"),
        ({"type": "string"}, "length"),
        ({"type": "string", "enum": ["a", "b"]}, "share"),
        ({"type": "boolean"}, "share"),
        ({"type": "array"}, None),
        ({"type": ["string", "null"]}, None),
        (None, None),
        (True, None),
    ],
)
def test_what_is_measured_follows_from_the_schema(field: object, measure: str | None) -> None:
    assert measure_of(field) == measure

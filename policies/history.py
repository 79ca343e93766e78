"""What the values of a field were like, and how far a new set may be from that. Pure.

A baseline that updates itself can be walked anywhere in small steps: each set just passes, and becomes the measure of
the next. So there are two. The `anchor` is a committed file that a person wrote, and nothing else moves it. The
candidate learns from applied writes, one set behind, none of which counts for more than a tenth of it; it moves the
centre of what is allowed, but no further than one standard deviation from the anchor. A set as a whole is held against
the anchor alone, and so is the sum of what all sets were off (CUSUM), so that small steps in one direction add up.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from statistics import median
from typing import Any, Literal

import msgspec

from policies.plan import Candidate, Distribution

FEW = 20
"""Values below which a set says too little about its own mean and spread to be held against them."""
_SHARE = 0.1
_ROBUST = 1.4826
_SLACK, _LIMIT = 0.25, 2.0


Measure = Literal["value", "length", "share"]


def measure_of(field: object) -> Measure | None:
    """Return what is measured of a field with this schema: numbers, lengths of texts, or shares of few values.

    None where nothing is.
    """
    kind: Any = field if isinstance(field, Mapping) else {}
    match kind.get("type"):
        case "number" | "integer":
            return "value"
        case "boolean":
            return "share"
        case "string":
            return "share" if "enum" in kind else "length"
        case _:
            return None


def limits(anchor: Distribution, candidate: Candidate | None, sigma: float) -> tuple[float, float]:
    """Return the smallest and the largest value that a row may have.

    `sigma` standard deviations around the mean or, where that is wider, as many robust ones around the median.
    """
    mean, middle = anchor.mean, _middle(anchor)
    if candidate is not None:
        mean = _near(candidate.mean, anchor.mean, anchor.sd)
        middle = _near(_centre(candidate.centiles), middle, anchor.sd)
    robust = _robust(anchor)
    low = min(mean - sigma * anchor.sd, middle - sigma * robust)
    return low, max(mean + sigma * anchor.sd, middle + sigma * robust)


def drift(anchor: Distribution, candidate: Candidate | None, batch: Distribution) -> list[str]:
    """Return, in words, in what a set is too far from the anchor; empty when it is not."""
    rows = round(batch.n / (1 - batch.nulls))
    found = []
    if rows >= FEW and batch.nulls > anchor.nulls + 0.1 + 3 * math.sqrt(_spread_of(anchor.nulls) / rows):
        found.append(f"the field is missing in {batch.nulls:.0%}")
    if batch.n < FEW:
        return found
    if anchor.shares or batch.shares:
        return found + _moved(anchor.shares, batch)
    unit = anchor.sd or abs(anchor.mean) * 0.01 or 1e-9
    noise = 1 / math.sqrt(batch.n)
    if abs(batch.mean - anchor.mean) > unit * (0.5 + 4 * noise):
        found.append(f"the mean is {_away(batch.mean, anchor.mean, unit)} from the anchor's")
    if abs(_middle(batch) - _middle(anchor)) > max(_robust(anchor), 0.1 * unit) * (0.5 + 5 * noise):
        found.append(f"the median is {_away(_middle(batch), _middle(anchor), unit)} from the anchor's")
    ratio = (batch.sd or (unit * 1e-3 if anchor.sd else unit)) / unit  # what never varied may go on so
    if not 0.5 - 2 * noise <= ratio <= 2 + 8 * noise:
        found.append(f"the spread is {ratio:.2g} times the anchor's")
    if (distance := _kolmogorov(anchor, batch)) > 0.15 + 1.63 * noise:
        found.append(f"the distributions are {distance:.2f} apart")
    up, down = _sums(anchor, candidate, batch)
    if max(up, down) > _LIMIT:
        found.append("small steps in one direction have added up")
    return found


def learn(anchor: Distribution, candidate: Candidate | None, batch: Distribution) -> Candidate:
    """Return the candidate after a set was applied: the set before it is taken in, this one waits."""
    now = candidate or Candidate(
        n=anchor.n, mean=anchor.mean, sd=anchor.sd, centiles=anchor.centiles, shares=anchor.shares
    )
    up, down = _sums(anchor, candidate, batch)
    waiting = now.waiting
    if waiting is None or waiting.n == 0:
        return msgspec.structs.replace(now, waiting=batch, up=up, down=down)
    share = min(waiting.n / (waiting.n + now.n), _SHARE)
    names = sorted({*now.shares, *waiting.shares})
    return Candidate(
        n=now.n + waiting.n,
        mean=now.mean + share * (waiting.mean - now.mean),
        sd=math.sqrt(max((1 - share) * now.sd**2 + share * waiting.sd**2, 0.0)),
        centiles=[old + share * (new - old) for old, new in zip(now.centiles, waiting.centiles, strict=True)],
        shares={name: _mixed(now.shares.get(name, 0), waiting.shares.get(name, 0), share) for name in names},
        waiting=batch,
        up=up,
        down=down,
    )


def _mixed(old: float, new: float, share: float) -> float:
    return old + share * (new - old)


def promoted(candidate: Candidate, nulls: float) -> Distribution:
    """Return the anchor that a candidate would become, if a person says so."""
    return Distribution(
        n=candidate.n,
        mean=candidate.mean,
        sd=candidate.sd,
        nulls=nulls,
        centiles=list(candidate.centiles),
        shares=dict(candidate.shares),
    )


def _moved(anchor: Mapping[str, float], batch: Distribution) -> list[str]:
    """Return, in words, how far shares are from the anchor's, if that is more than chance and a tenth."""
    names = {*anchor, *batch.shares}
    apart = sum(abs(anchor.get(name, 0) - batch.shares.get(name, 0)) for name in names) / 2
    if apart <= 0.1 + math.sqrt(len(names) / batch.n):
        return []
    most = max(sorted(names), key=lambda name: abs(anchor.get(name, 0) - batch.shares.get(name, 0)))
    shares = f"{batch.shares.get(most, 0):.0%} instead of {anchor.get(most, 0):.0%}"
    return [f"the shares are {apart:.2f} apart: {most[:40]} has {shares}"]


def _sums(anchor: Distribution, candidate: Candidate | None, batch: Distribution) -> tuple[float, float]:
    """Return how far sets have been above and below the anchor, beyond a slack, in sum."""
    before = (candidate.up, candidate.down) if candidate is not None else (0.0, 0.0)
    step = (batch.mean - anchor.mean) / (anchor.sd or 1e-9)
    return max(0.0, before[0] + step - _SLACK), max(0.0, before[1] - step - _SLACK)


def _spread_of(share: float) -> float:
    return max(share * (1 - share), 0.01)


def _near(value: float, centre: float, reach: float) -> float:
    return min(max(value, centre - reach), centre + reach)


def _middle(values: Distribution) -> float:
    return _centre(values.centiles)


def _centre(centiles: list[float]) -> float:
    return centiles[len(centiles) // 2]


def _robust(values: Distribution) -> float:
    """Return the standard deviation that the median of the distances from the median stands for."""
    centre = _middle(values)
    return _ROBUST * median(abs(value - centre) for value in values.centiles)


def _kolmogorov(one: Distribution, two: Distribution) -> float:
    """Return the largest distance of two distribution functions, at the centiles of both."""
    points = sorted({*one.centiles, *two.centiles})
    return max(abs(_share_below(one, point) - _share_below(two, point)) for point in points)


def _share_below(values: Distribution, point: float) -> float:
    return bisect.bisect_right(values.centiles, point) / len(values.centiles)


def _away(value: float, centre: float, unit: float) -> str:
    return f"{(value - centre) / unit:+.2f} standard deviations"

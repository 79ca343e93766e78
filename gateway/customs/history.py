"""The values of a set, as it goes by: number, mean and spread exactly, centiles by a sketch of constant size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from datasketches import kll_doubles_sketch  # type: ignore[import-untyped]

from policies.history import drift, limits
from policies.plan import Candidate, Distribution, Output

CENTILES = [part / 100 for part in range(101)]
_K = 400
FACT = "candidate/"


class Values:
    """The values of one field."""

    def __init__(self) -> None:
        self._sketch = kll_doubles_sketch(_K)
        self.rows, self._n, self._mean, self._m2 = 0, 0, 0.0, 0.0

    def add(self, values: Iterable[float], rows: int) -> None:
        """Take in the values that `rows` rows have."""
        found = np.fromiter(values, dtype=np.float64)
        self.rows += rows
        if found.size:
            self._sketch.update(found)
            self._join(found.size, float(found.mean()), float(((found - found.mean()) ** 2).sum()))

    def _join(self, n: int, mean: float, m2: float) -> None:
        total, apart = self._n + n, mean - self._mean
        self._mean += apart * n / total
        self._m2 += m2 + apart * apart * self._n * n / total
        self._n = total

    def distribution(self) -> Distribution | None:
        """Return what the values are like; None when there are none."""
        if not self._n:
            return None
        centiles = [float(value) for value in self._sketch.get_quantiles(CENTILES)]
        nulls = 1 - self._n / self.rows
        return Distribution(
            n=self._n, mean=self._mean, sd=math.sqrt(self._m2 / self._n), nulls=nulls, centiles=centiles
        )


def tightened(output: Output, facts: Mapping[str, str]) -> Output:
    """Return an output whose bounds are also those that history gives for this run."""
    candidates, bounds = candidates_of(output, facts), dict(output.bounds)
    for name, bound in output.bounds.items():
        if bound.sigma is not None and bound.anchor is not None:
            low, high = limits(bound.anchor, candidates.get(name), bound.sigma)
            low = low if bound.min is None else max(low, bound.min)
            high = high if bound.max is None else min(high, bound.max)
            bounds[name] = msgspec.structs.replace(bound, min=low, max=high)
    return msgspec.structs.replace(output, bounds=bounds)


def candidates_of(output: Output, facts: Mapping[str, str]) -> dict[str, Candidate]:
    """Return what the run knows of applied writes, by field."""
    text = facts.get(f"{FACT}{output.name}", "{}")
    return msgspec.json.decode(text, type=dict[str, Candidate])


class SetValues:
    """The values of a whole set, held against the history of each field that asks for it."""

    def __init__(self, output: Output, facts: Mapping[str, str]) -> None:
        self._bounds = {name: bound for name, bound in output.bounds.items() if bound.sigma is not None}
        self._candidates = candidates_of(output, facts)
        self._values = {name: Values() for name in self._bounds}

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def add(self, columns: Mapping[str, list[float]], rows: int) -> None:
        """Take in the values of some rows, by field."""
        for name, values in self._values.items():
            values.add(columns.get(name, []), rows)

    def distributions(self) -> dict[str, Distribution]:
        """Return what the fields are like."""
        found = {name: values.distribution() for name, values in self._values.items()}
        return {name: distribution for name, distribution in found.items() if distribution is not None}

    def objections(self) -> list[tuple[str, str]]:
        """Return field and reason of everything in which the set is too far from its history, or has none."""
        found: list[tuple[str, str]] = []
        for name, bound in self._bounds.items():
            values = self._values[name]
            batch = values.distribution()
            if bound.anchor is None:
                if values.rows and bound.min is None and bound.max is None:
                    found.append((name, "there is no history yet"))
            elif batch is not None:
                found += [(name, why) for why in drift(bound.anchor, self._candidates.get(name), batch)]
            elif values.rows and bound.anchor.nulls < 1:
                found.append((name, "no row has the field"))
        return found


def columns_of(records: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, list[float]]:
    """Return the numbers that records have in some fields."""
    rows = list(records)
    return {name: [row[name] for row in rows if type(row.get(name)) in (int, float)] for name in names}

"""The values of a set, as it goes by: number, mean and spread exactly, centiles by a sketch of constant size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from datasketches import kll_doubles_sketch  # type: ignore[import-untyped]

from policies.history import Measure, drift, limits, measure_of
from policies.plan import Candidate, Distribution, Output

Column = Sequence[Any] | npt.NDArray[np.float64]
"""What is measured of a field: numbers, or names of shares."""
CENTILES = [part / 100 for part in range(101)]
_K = 400
FACT = "candidate/"


class Shares:
    """How often each of a few values is there."""

    def __init__(self) -> None:
        self.rows, self._counts = 0, Counter[str]()

    def add(self, values: Column, rows: int) -> None:
        """Take in the values that `rows` rows have."""
        self.rows += rows
        self._counts.update(values)

    def distribution(self) -> Distribution | None:
        """Return the shares; None when there are no values."""
        if not (total := self._counts.total()):
            return None
        shares: dict[str, int | float] = {name: count / total for name, count in sorted(self._counts.items())}
        return Distribution(n=total, mean=0, sd=0, nulls=1 - total / self.rows, centiles=[], shares=shares)


class Values:
    """The values of one field."""

    def __init__(self) -> None:
        self._sketch = kll_doubles_sketch(_K)
        self.rows, self._n, self._mean, self._m2 = 0, 0, 0.0, 0.0

    def add(self, values: Column, rows: int) -> None:
        """Take in the values that `rows` rows have."""
        found = np.asarray(values, dtype=np.float64)
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
        if bound.sigma is not None and bound.anchor is not None and bound.anchor.centiles:
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
        measures = measures_of(output)
        self._values = {name: Shares() if measures[name] == "share" else Values() for name in self._bounds}

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def add(self, columns: Mapping[str, Column], rows: int) -> None:
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


def measures_of(output: Output) -> dict[str, Measure]:
    """Return what is measured of each bounded field. In a compiled plan there is something."""
    fields = output.schema.get("properties", {})
    return {name: measure_of(fields.get(name)) or "value" for name in output.bounds}


def columns_of(records: Iterable[Mapping[str, Any]], fields: Mapping[str, Measure]) -> dict[str, Column]:
    """Return what is measured of some fields, of the records that have them."""
    rows = list(records)
    return {name: list(_measured(rows, name, measure)) for name, measure in fields.items()}


def _measured(rows: Sequence[Mapping[str, Any]], name: str, measure: Measure) -> Iterable[Any]:
    match measure:
        case "value":
            return (row[name] for row in rows if type(row.get(name)) in (int, float))
        case "length":
            return (len(row[name]) for row in rows if type(row.get(name)) is str)
        case _:
            return (str(row[name]) for row in rows if type(row.get(name)) in (str, bool))

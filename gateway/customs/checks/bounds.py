"""bounds: a named top-level field, where present, is a number between its bounds, or a text with such a length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.customs.checks.base import Candidate
from policies.canonical import pointer
from policies.history import measure_of
from policies.plan import Output
from policies.writes import Reason


class Bounds:
    """Rejects a number or a length outside its bounds, and anything else under a bounded name (CSM-W003).

    A string or null in place of a number is not "no number": it would pass by being unmeasurable. Whether a field must
    be present is the schema's business.
    """

    name = "bounds"

    def __init__(self, output: Output) -> None:
        fields = output.schema.get("properties", {})
        every = {name: (bound, measure_of(fields.get(name))) for name, bound in output.bounds.items()}
        self._texts = {name: bound for name, (bound, measure) in every.items() if measure == "length"}
        self._numbers = {n: bound for n, (bound, measure) in every.items() if measure not in ("length", "share")}

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        for field, why in self.broken(candidate.record or {}):
            yield Reason(check=self.name, code="CSM-W003", pointer=pointer([field]), excerpt=why)

    def broken(self, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the fields that are not within their bounds, and why."""
        for field, bound in self._numbers.items():
            value = record.get(field)
            if field in record and (isinstance(value, bool) or not isinstance(value, int | float)):
                yield field, "not a number"
            elif field in record:
                yield from _outside(field, record[field], bound.min, bound.max)
        for field, bound in self._texts.items():
            if field in record and not isinstance(record[field], str):
                yield field, "not a text"
            elif field in record:
                yield from _outside(field, len(record[field]), bound.min, bound.max)

    def schemas(self) -> dict[str, dict[str, Any]]:
        """Return the same as JSON Schemas, by field."""
        found: dict[str, dict[str, Any]] = {}
        for name, bound in self._numbers.items():
            sides = {"minimum": bound.min, "maximum": bound.max}
            found[name] = {"type": "number"} | {side: value for side, value in sides.items() if value is not None}
        for name, bound in self._texts.items():
            lengths = {"minLength": bound.min and max(math.ceil(bound.min), 0), "maxLength": bound.max}
            found[name] = {"type": "string"} | {side: value for side, value in lengths.items() if value is not None}
            if bound.max is not None:  # no text is shorter than nothing
                found[name] |= {"maxLength": math.floor(bound.max)} if bound.max >= 0 else {"not": {}, "maxLength": 0}
        return found


def _outside(field: str, value: float, low: float | None, high: float | None) -> Iterator[tuple[str, str]]:
    if low is not None and value < low:
        yield field, f"below {low}"
    elif high is not None and value > high:
        yield field, f"above {high}"

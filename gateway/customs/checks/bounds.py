"""bounds: a named top-level field, where present, is a number between its bounds."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.customs.checks.base import Candidate
from policies.canonical import pointer
from policies.plan import Output
from policies.writes import Reason


class Bounds:
    """Rejects a number outside its bounds, and anything else under a bounded name (CSM-W003).

    A string or null there is not "no number": it would pass by being unmeasurable. Whether a field must be present is
    the schema's business.
    """

    name = "bounds"

    def __init__(self, output: Output) -> None:
        self._bounds = output.bounds

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        record = candidate.record or {}
        for field, bound in self._bounds.items():
            if field not in record:
                continue
            value = record[field]
            if isinstance(value, bool) or not isinstance(value, int | float):
                yield self._reason(field, "not a number")
            elif bound.min is not None and value < bound.min:
                yield self._reason(field, f"below {bound.min}")
            elif bound.max is not None and value > bound.max:
                yield self._reason(field, f"above {bound.max}")

    def _reason(self, field: str, excerpt: str) -> Reason:
        return Reason(check=self.name, code="CSM-W003", pointer=pointer([field]), excerpt=excerpt)

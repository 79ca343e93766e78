"""quota: rows and bytes a run. The gateway refused the rest already; customs does not take its word for it."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.customs.checks.base import Candidate
from policies.plan import Output
from policies.writes import Reason


class Quota:
    """Rejects every row after the first `per_run`, and every row that takes the set over `max_bytes` (CSM-W002)."""

    name = "quota"

    def __init__(self, output: Output) -> None:
        self._rows, self._bytes = output.per_run, output.max_bytes
        self._seen, self._size = 0, 0

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        self._seen += 1
        self._size += len(candidate.line) + 1
        if self._seen > self._rows:
            yield Reason(check=self.name, code="CSM-W002", pointer="", excerpt=f"over {self._rows} rows")
        if self._size > self._bytes:
            yield Reason(check=self.name, code="CSM-W002", pointer="", excerpt=f"over {self._bytes} bytes")

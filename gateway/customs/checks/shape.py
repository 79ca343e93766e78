"""shape: the exact bytes have one reading, and that fits the output's schema and its columns."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.customs.checks.base import Candidate
from gateway.customs.columns import Columns
from gateway.schema import Schema
from policies.plan import Output
from policies.writes import Reason

MAX_NODES = 100_000
"""Values in one record, at all depths."""


class Shape:
    """Rejects what cannot be decoded strictly (CSM-W006), or does not fit (CSM-W001)."""

    name = "shape"

    def __init__(self, output: Output) -> None:
        self._schema = Schema(output.schema, f"output {output.name}")
        self._columns = Columns(output.schema) if output.format == "parquet" else None

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        record = candidate.record
        if record is None:
            yield self._reason("CSM-W006", "", "not one strict reading")
            return
        if _nodes(record) > MAX_NODES:
            yield self._reason("CSM-W006", "", f"over {MAX_NODES} values")
            return
        for problem in self._schema.problems(record):
            yield self._reason("CSM-W001", problem.pointer, problem.keyword)
        for name in self._columns.misfits(record) if self._columns else ():
            yield self._reason("CSM-W001", f"/{name}", "does not fit its column")

    def _reason(self, code: str, pointer: str, excerpt: str) -> Reason:
        return Reason(check=self.name, code=code, pointer=pointer, excerpt=excerpt)


def _nodes(record: object) -> int:
    count, stack = 0, [record]
    while stack and count <= MAX_NODES:
        count += 1
        match stack.pop():
            case dict() as mapping:
                stack.extend(mapping.values())
            case list() as items:
                stack.extend(items)
            case _:
                pass
    return count

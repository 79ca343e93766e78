"""source: a model version is made of what lies below the folder that the plan names."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.customs.checks.base import Candidate
from policies.canonical import pointer
from policies.plan import Output
from policies.registered import is_below
from policies.writes import Reason


class Source:
    """Rejects a source elsewhere (CSM-W021)."""

    name = "source"

    def __init__(self, output: Output) -> None:
        self._root = output.target["source"]

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        source = (candidate.record or {}).get("source")
        if not isinstance(source, str) or not is_below(source, self._root):
            yield Reason(
                check=self.name, code="CSM-W021", pointer=pointer(["source"]), excerpt=f"not below {self._root}"
            )

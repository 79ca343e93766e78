"""What a check is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from policies.writes import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One row as a check sees it: its record, None where it has not one strict reading, and its size in bytes."""

    record: dict[str, Any] | None
    size: int


class Check(Protocol):
    """Judges one row by itself. Yields reasons against; nothing means no objection.

    A check has no IO, no clock and no randomness of its own. One that raises rejects (CSM-W009).
    """

    name: str

    def __call__(self, candidate: Candidate) -> Iterable[Reason]: ...

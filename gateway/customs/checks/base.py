"""What a check is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from policies.writes import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One proposal as a check sees it.

    `record` comes from the strict parse of `line`, the exact bytes; it is None when they cannot be parsed strictly.
    `clean` says that no check before this one objected.
    """

    line: bytes
    record: dict[str, Any] | None
    clean: bool


class Check(Protocol):
    """Judges the proposals of one output, one after the other. Yields reasons against; nothing means no objection.

    A check has no IO, no clock and no randomness of its own. One that raises rejects (CSM-W009).
    """

    name: str

    def __call__(self, candidate: Candidate) -> Iterable[Reason]: ...


@runtime_checkable
class Hindsight(Protocol):
    """A check that learns from a later row what was wrong with an earlier one."""

    def late(self) -> Mapping[int, Reason]:
        """Return reasons against earlier proposals, by their number in the order in which the check saw them."""
        ...

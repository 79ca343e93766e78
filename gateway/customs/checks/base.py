"""What a check is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.customs.scan.plane import texts
from policies.canonical import pointer
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


class TextCheck(ABC):
    """A check of every text of a row by itself, keys included. A reason has the rule and the place, never the text."""

    name: str
    code: str

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        for text in texts(candidate.record or {}):
            for rule in self.broken(text.text):
                yield Reason(check=self.name, code=self.code, pointer=pointer(text.path), excerpt=rule)

    @abstractmethod
    def broken(self, text: str) -> Iterator[str]:
        """Yield the rules that a text breaks."""

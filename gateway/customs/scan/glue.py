"""A secret that is spread over rows: each row is harmless, the column read downwards is not.

Keeps, for every column, as much of the end of its squeezed text as the longest needle could reach back over. Pieces
count when they follow each other in one column, whatever punctuation is between them. Honest words between the pieces
defeat this, as they defeat every reader who does not know where to look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.customs.scan.plane import squeeze
from gateway.customs.scan.values import Needle

MAX_COLUMNS = 256
"""Columns that are kept apart; the rest, of an output that allows any field, are read as one."""
_REST = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A secret spread over rows: its name, the column, the numbers of the rows, and what matched."""

    name: str
    column: str
    rows: tuple[int, ...]
    matched: str


class RowGlue:
    """Reads the columns of one output downwards."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        self._parts = [(needle.name, part) for needle in needles for part in needle.squeezed]
        self._longest = max((len(part) for _, part in self._parts), default=0)
        self._ends: dict[str, deque[tuple[int, str]]] = {}
        self._row = 0

    def feed(self, record: Mapping[str, object]) -> Iterator[Spread]:
        """Take the next row; yield every secret that it completes together with rows before it."""
        if not self._parts:
            return
        for field, value in record.items():
            if isinstance(value, str | int | float) and not isinstance(value, bool) and (text := squeeze(str(value))):
                column = field if field in self._ends or len(self._ends) < MAX_COLUMNS else _REST
                ends = self._ends.setdefault(column, deque())
                yield from self._spanning(column, ends, text)
                self._keep(ends, text)
        self._row += 1

    def _spanning(self, column: str, ends: deque[tuple[int, str]], text: str) -> Iterator[Spread]:
        before = "".join(end for _, end in ends)
        whole = before + text[: self._longest]
        for name, part in self._parts:
            start = whole.find(part, max(0, len(before) - len(part) + 1))
            if 0 <= start < len(before):
                yield Spread(name=name, column=column, rows=(*_rows(ends, start), self._row), matched=part)

    def _keep(self, ends: deque[tuple[int, str]], text: str) -> None:
        ends.append((self._row, text[-self._longest :]))
        kept = sum(len(end) for _, end in ends)
        while kept - len(ends[0][1]) >= self._longest:
            kept -= len(ends.popleft()[1])


def _rows(ends: deque[tuple[int, str]], start: int) -> Iterator[int]:
    """Yield the rows whose text reaches beyond `start`."""
    reached = 0
    for row, text in ends:
        reached += len(text)
        if reached > start:
            yield row

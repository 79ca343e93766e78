"""A secret that is spread over rows: each row is harmless, the column read downwards is not.

Pieces count when they follow each other in one column, whatever punctuation is between them. Honest words between the
pieces defeat this, as they defeat every reader who does not know where to look. Within a chunk a column is searched at
once; over the borders of chunks, by as much of both sides as the longest needle could reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.customs.scan.plane import squeeze
from gateway.customs.scan.values import Needle
from gateway.customs.sieve import planes
from gateway.customs.sieve.patterns import Patterns, literals

MAX_COLUMNS = 256
"""Columns that are kept apart; the rest, of an output that allows any field, are read as one."""
_REST = ""
_ROW = planes.ROW.encode()
Piece = tuple[int, str]
"""A row, and its squeezed text in a column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A secret spread over rows: its name, the numbers of the rows, and what matched."""

    name: str
    rows: tuple[int, ...]
    matched: str


@dataclass(slots=True)
class Edges:
    """What a chunk tells of its columns: secrets spread within it, and the beginning and end of each column."""

    found: list[Spread] = field(default_factory=list)
    heads: dict[str, list[Piece]] = field(default_factory=dict)
    tails: dict[str, list[Piece]] = field(default_factory=dict)


class Columns(Protocol):
    """The columns of a chunk: their squeezed texts that are not empty, from the first row or from the last."""

    @property
    def names(self) -> Sequence[str]:
        """The columns."""

    def plane(self) -> bytes:
        """Return the squeezed text of each, ended by the mark of a row."""

    def down(self, name: str) -> Iterator[Piece]:
        """Yield the texts of one."""

    def up(self, name: str) -> Iterator[Piece]:
        """Yield them backwards."""


class Spreads:
    """Reads the columns of one output downwards."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        self._parts = [(needle.name, part) for needle in needles for part in needle.squeezed]
        self._longest = max((len(part) for _, part in self._parts), default=0)
        self._patterns = Patterns({"needles": literals(part for _, part in self._parts)})
        self._ends: dict[str, list[Piece]] = {}

    def edges(self, columns: Columns) -> Edges | None:
        """Look through a chunk; None when there is nothing to look for."""
        if not self._parts:
            return None
        edges = Edges()
        hit = self._patterns.rows(columns.plane())["needles"]
        for number, name in enumerate(columns.names):
            if number in hit:
                edges.found += self._within(columns.down(name))
            edges.heads[name] = list(self._until_enough(columns.down(name)))
            edges.tails[name] = list(self._until_enough(columns.up(name)))[::-1]
        return edges

    def across(self, edges: Edges | None, first: int) -> Iterator[Spread]:
        """Take the edges of the next chunk, whose first row is `first`; yield what is spread in it or into it."""
        if edges is None:
            return
        for spread in edges.found:
            yield Spread(name=spread.name, rows=tuple(first + row for row in spread.rows), matched=spread.matched)
        for name, head in edges.heads.items():
            before = self._ends.get(name, [])
            after = [(first + row, text) for row, text in head]
            if before and after:
                yield from self._within([*before, *after], border=sum(len(text) for _, text in before))
            tail = [(first + row, text) for row, text in edges.tails[name]]
            whole = sum(len(text) for _, text in tail) >= self._longest
            self._ends[name] = tail if whole else list(self._until_enough(reversed([*before, *tail])))[::-1]

    def _until_enough(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        size = 0
        for row, text in pieces:
            yield row, text
            size += len(text)
            if size >= self._longest:
                return

    def _within(self, pieces: Iterator[Piece] | Sequence[Piece], border: int | None = None) -> Iterator[Spread]:
        """Yield what stands in the pieces together and in no piece alone; with a `border`, only over that."""
        listed = list(pieces)
        whole = "".join(text for _, text in listed)
        if not self._patterns.rows(whole.encode() + _ROW):
            return
        for name, part in self._parts:
            start = whole.find(part)
            while start >= 0:
                rows = tuple(_rows(listed, start, start + len(part)))
                if len(rows) > 1 and (border is None or start < border < start + len(part)):
                    yield Spread(name=name, rows=rows, matched=part)
                start = whole.find(part, start + 1)


class RecordColumns:
    """The columns of any records: the values of each top-level field, with their rows."""

    def __init__(self, records: Mapping[int, Mapping[str, object]]) -> None:
        self._cells: dict[str, list[Piece]] = {}
        for row, record in records.items():
            for name, value in record.items():
                known = name in self._cells or len(self._cells) < MAX_COLUMNS
                if type(value) in (str, int, float):
                    self._cells.setdefault(name if known else _REST, []).append((row, str(value)))
        self.names = list(self._cells)

    def plane(self) -> bytes:
        joined = planes.joined(["".join([text for _, text in cells]) for cells in self._cells.values()])
        return planes.squeezed(planes.unhidden(planes.folded(joined)))

    def down(self, name: str) -> Iterator[Piece]:
        return _squeezed(self._cells[name])

    def up(self, name: str) -> Iterator[Piece]:
        return _squeezed(reversed(self._cells[name]))


def _squeezed(cells: Iterable[Piece]) -> Iterator[Piece]:
    return ((row, text) for row, whole in cells if (text := squeeze(whole)))


def _rows(pieces: Sequence[Piece], start: int, end: int) -> Iterator[int]:
    reached = 0
    for row, text in pieces:
        if reached < end and reached + len(text) > start:
            yield row
        reached += len(text)

"""A secret that is spread over rows: each row is harmless, the column read downwards is not.

Pieces count when they follow each other in one column, whatever punctuation is between them. Honest words between the
pieces defeat this, as they defeat every reader who does not know where to look. Within a chunk a column is searched at
once; over the borders of chunks, by as much of both sides as the longest needle could reach.

Columns are read as the sieve reads texts, folded to ASCII; or, where a value of the run has other letters, as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.customs.scan.plane import squeeze, texts
from gateway.customs.scan.values import Needle
from gateway.customs.sieve import planes
from gateway.customs.sieve.patterns import Patterns, literals
from gateway.customs.sieve.planes import Plane

MAX_COLUMNS = 256
"""Columns that are kept apart; the rest, of an output that allows any field, are read as one."""
_REST = ""
_PLAIN, _NESTED = (str, int, float), (dict, list)
_ROW = planes.ROW.encode()
Piece = tuple[int, bytes]
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
    """The columns of a chunk: their squeezed texts that are not empty."""

    @property
    def names(self) -> Sequence[str]:
        """The columns."""

    def plane(self) -> Plane:
        """Return the squeezed text of each, ended by the mark of a row."""

    def first(self, name: str, letters: int) -> list[Piece]:
        """Return the first texts of one, until they have so many letters."""

    def last(self, name: str, letters: int) -> list[Piece]:
        """Return the last, in order."""


class Spreads:
    """Reads the columns of one output downwards."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        self._parts = [(needle.name, part.encode()) for needle in needles for part in needle.squeezed]
        self._longest = max((len(part) for _, part in self._parts), default=0)
        self._patterns = Patterns({"needles": literals(part for needle in needles for part in needle.squeezed)})
        self._ends: dict[str, list[Piece]] = {}
        self.wide = not all(part.isascii() for _, part in self._parts)
        """Whether columns are to be read as they are."""

    def edges(self, columns: Columns) -> Edges | None:
        """Look through a chunk; None when there is nothing to look for."""
        if not self._parts:
            return None
        edges = Edges()
        hit = self._patterns.rows(columns.plane())["needles"]
        for number, name in enumerate(columns.names):
            if number in hit:
                edges.found += self._within(columns.first(name, sys.maxsize))
            edges.heads[name] = columns.first(name, self._longest)
            edges.tails[name] = columns.last(name, self._longest)
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
            self._ends[name] = tail if whole else until_enough([*before, *tail][::-1], self._longest)[::-1]

    def _within(self, pieces: Sequence[Piece], border: int | None = None) -> Iterator[Spread]:
        """Yield what stands in the pieces together and in no piece alone; with a `border`, only over that."""
        whole = b"".join([text for _, text in pieces])
        if not self._patterns.rows(whole + _ROW):
            return
        for name, part in self._parts:
            start = whole.find(part)
            while start >= 0:
                rows = tuple(_rows(pieces, start, start + len(part)))
                if len(rows) > 1 and (border is None or start < border < start + len(part)):
                    yield Spread(name=name, rows=rows, matched=part.decode())
                start = whole.find(part, start + 1)


class RecordColumns:
    """The columns of any records: the values of each field, with their rows. Those of a list are one column."""

    def __init__(self, records: Mapping[int, Mapping[str, object]], *, wide: bool) -> None:
        """`wide`: as they are, and not folded."""
        self._wide = wide
        self._cells: dict[str, list[tuple[int, str]]] = {}
        for row, record in records.items():
            for name, text in _values(record):
                known = name in self._cells or len(self._cells) < MAX_COLUMNS
                self._cells.setdefault(name if known else _REST, []).append((row, text))
        self.names = list(self._cells)

    def plane(self) -> bytes:
        columns = ("".join([text for _, text in cells]) for cells in self._cells.values())
        return b"".join([self._squeezed(column) + _ROW for column in columns])

    def first(self, name: str, letters: int) -> list[Piece]:
        return until_enough(self._pieces(self._cells[name]), letters)

    def last(self, name: str, letters: int) -> list[Piece]:
        return until_enough(self._pieces(reversed(self._cells[name])), letters)[::-1]

    def _pieces(self, cells: Iterable[tuple[int, str]]) -> Iterator[Piece]:
        return ((row, self._squeezed(text)) for row, text in cells)

    def _squeezed(self, text: str) -> bytes:
        if self._wide:
            return squeeze(text).encode("utf-8", "replace")
        return planes.squeezed(planes.unhidden(planes.folded(text)), keep=b"")


def _values(record: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the texts of the values of a record, each with the name of its column."""
    for name, value in record.items():
        if type(value) in _PLAIN:
            yield name, str(value)
        elif type(value) in _NESTED:
            for text in texts(value, (name,)):
                if not text.key:
                    yield "/".join(part for part in text.path if isinstance(part, str)), text.text


def until_enough(pieces: Iterable[Piece], letters: int) -> list[Piece]:
    """Return the first of some pieces, until they have so many letters; those without any do not count."""
    found: list[Piece] = []
    for row, text in pieces:
        if letters <= 0:
            break
        if text:
            found.append((row, text))
            letters -= len(text)
    return found


def _rows(pieces: Sequence[Piece], start: int, end: int) -> Iterator[int]:
    reached = 0
    for row, text in pieces:
        if reached < end and reached + len(text) > start:
            yield row
        reached += len(text)

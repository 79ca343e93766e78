"""A secret that is spread over rows: each row is harmless, the column read downwards is not.

Pieces count when they follow each other in one column, whatever punctuation is between them. Honest words between the
pieces defeat this, as they defeat every reader who does not know where to look. Within a chunk a column is searched at
once; over the borders of chunks, by as much of both sides as the longest needle could reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.customs.scan.plane import squeeze
from gateway.customs.scan.values import Needle
from gateway.customs.sieve import planes
from gateway.customs.sieve.patterns import Patterns, literals

MAX_COLUMNS = 256
"""Columns that are kept apart; the rest, of an output that allows any field, are read as one."""
_REST = ""
_ROW = planes.ROW.encode()
_READ = (str, int, float)
"""Types of what is read in a column; whatever else is there parts nothing."""
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


class Spreads:
    """Reads the columns of one output downwards."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        self._parts = [(needle.name, part) for needle in needles for part in needle.squeezed]
        self._longest = max((len(part) for _, part in self._parts), default=0)
        self._patterns = Patterns({"needles": literals(part for _, part in self._parts)})
        self._ends: dict[str, list[Piece]] = {}

    def edges(
        self, records: Mapping[int, Mapping[str, object]], names: Sequence[str] = (), plane: bytes = b""
    ) -> Edges | None:
        """Look through a chunk; None when there is nothing to look for.

        `plane`: the squeezed texts of the columns `names`, if that is known; then no record has another field.
        """
        if not self._parts:
            return None
        edges = Edges()
        columns = _Even(records, names) if names else _columns(records)
        if not names:
            joined = planes.joined([_text(columns.values(name)) for name in columns.names])
            plane = planes.squeezed(planes.unhidden(planes.folded(joined)))
        hit = self._patterns.rows(plane)["needles"]
        for number, name in enumerate(columns.names):
            if number in hit:
                edges.found += self._within(_pieces(columns.down(name)))
            edges.heads[name] = list(self._until_enough(_pieces(columns.down(name))))
            edges.tails[name] = list(self._until_enough(_pieces(columns.up(name))))[::-1]
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


Cell = tuple[int, object]
"""A row, and its value in a column."""


class _Even:
    """The columns of records that have no other fields than these."""

    def __init__(self, records: Mapping[int, Mapping[str, object]], names: Sequence[str]) -> None:
        self._records, self.names = records, names

    def values(self, name: str) -> Sequence[object]:
        return [record[name] for record in self._records.values() if name in record]

    def down(self, name: str) -> Iterator[Cell]:
        return ((row, record[name]) for row, record in self._records.items() if name in record)

    def up(self, name: str) -> Iterator[Cell]:
        return ((row, record[name]) for row in reversed(self._records) if name in (record := self._records[row]))


class _Uneven:
    """The columns of any records."""

    def __init__(self, records: Mapping[int, Mapping[str, object]]) -> None:
        self._cells: dict[str, list[Cell]] = {}
        for row, record in records.items():
            for name, value in record.items():
                known = name in self._cells or len(self._cells) < MAX_COLUMNS
                self._cells.setdefault(name if known else _REST, []).append((row, value))
        self.names = list(self._cells)

    def values(self, name: str) -> Sequence[object]:
        return [value for _, value in self._cells[name]]

    def down(self, name: str) -> Iterator[Cell]:
        return iter(self._cells[name])

    def up(self, name: str) -> Iterator[Cell]:
        return reversed(self._cells[name])


def _columns(records: Mapping[int, Mapping[str, object]]) -> _Even | _Uneven:
    """Return the values of each top-level field, with their rows."""
    shapes = set(map(tuple, records.values()))
    if len(shapes) == 1 and len(names := shapes.pop()) <= MAX_COLUMNS:
        return _Even(records, names)
    return _Uneven(records)


def _text(values: Sequence[object]) -> str:
    try:
        return "".join(values)  # type: ignore[arg-type]
    except TypeError:
        return "".join([str(value) for value in values if type(value) in _READ])


def _pieces(column: Iterable[Cell]) -> Iterator[Piece]:
    """Yield the texts of a column, squeezed."""
    for row, value in column:
        if type(value) in _READ and (text := squeeze(str(value))):
            yield row, text


def _rows(pieces: Sequence[Piece], start: int, end: int) -> Iterator[int]:
    reached = 0
    for row, text in pieces:
        if reached < end and reached + len(text) > start:
            yield row
        reached += len(text)

"""A chunk of flat records as one sheet: lines to apply, planes to search and columns, without an object for a value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.customs.checks import unicode
from gateway.customs.checks.contamination import letter_of
from gateway.customs.history import Column
from gateway.customs.ready import ready
from gateway.customs.sheet import down, letters, lines
from gateway.customs.sheet.form import Form
from gateway.customs.sieve import planes
from gateway.customs.sieve.decode import MAX_RECORD
from gateway.customs.sieve.planes import Planes
from gateway.customs.spread import Piece
from policies.history import Measure

MARKS = "marks"
"""The name of the table of what `letters` must know of characters."""
_NOTES, _FIELD, _START, _KIND, _TIGHT = 8, 0, 1, 3, 6
"""Numbers that are noted of each value, and which of them are its field, its place, its kind and its place squeezed."""
_read = msgspec.json.decode
Bytes: TypeAlias = "bytes | memoryview[int]"


class Records(Mapping[int, dict[str, Any]]):
    """The records of lines, each made when it is asked for, with its fields in the order of the line."""

    def __init__(self, block: Bytes, ends: npt.NDArray[np.int32]) -> None:
        """`ends`: where each line does."""
        self._block, self.ends = block, ends
        self._made: dict[int, dict[str, Any]] = {}

    def __getitem__(self, row: int) -> dict[str, Any]:
        if row not in self._made:
            start = self.ends[row - 1] + 1 if row else 0
            self._made[row] = _read(self._block[start : self.ends[row]])
        return self._made[row]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.ends)))

    def __reversed__(self) -> Iterator[int]:
        return reversed(range(len(self.ends)))

    def __len__(self) -> int:
        return len(self.ends)


class Reader:
    """Reads chunks of records of one form."""

    def __init__(self, form: Form) -> None:
        self._form, names = form, [name.encode() for name in form.names]
        self._names, self._name_ends = _joined(names)
        self._keys, self._key_ends = _joined([b'"%s":' % name for name in names])
        self._order = _int32(sorted(range(len(names)), key=names.__getitem__))
        self._lengths = memoryview(np.array(form.lengths, dtype=np.int32))
        words = {place: form.words[name] for place, name in enumerate(form.names) if name in form.words}
        self._words = {place: _joined([word.encode() for word in sorted(few)]) for place, few in words.items()}
        self._room = -1

    def read(self, block: Bytes, room: memoryview | None = None) -> Sheet | None:
        """Read lines; None where any of them is unusual, or does not fit. `room`: where they are written as applied."""
        if len(block) > MAX_RECORD:
            return None
        self._make_room(len(block))
        try:
            return self._read(block if block[-1:] == b"\n" else bytes(block) + b"\n", room)
        except IndexError:  # there is more than there is room for
            return None

    def _read(self, data: Bytes, room: memoryview | None) -> Sheet | None:
        form, found = self._form, memoryview(self._found)
        limits = (form.kinds, form.low, form.high, form.required)
        cells = lines.cells(data, self._names, self._name_ends, *limits, found, self._numbers)
        what = (data, found, cells, self._numbers)
        made = self._planes_of(what) if cells >= 0 else None
        if made is None:
            return None
        (text, folded, glued, tight, compared), (deceives, odd) = made
        if not all(lines.fits(text, found, cells, field, *words) for field, words in self._words.items()):
            return None
        places = _int32([-1] * len(form.names))
        out = self._out if room is None else room
        size = lines.written(*what, self._keys, self._key_ends, self._order, text, places, out)
        listed = self._found[:cells]
        return Sheet(
            block=bytes(out[:size]) if room is None else out[:size],
            records=Records(data, listed[np.flatnonzero(listed[:, _FIELD] < 0), _START]),
            planes=Planes(text, folded, glued, tight, listed[:, _TIGHT:], deceives, odd),
            letters=compared,
            cells=(data, listed, self._numbers),
            names=form.names,
            room=self._out,
        )

    def _planes_of(
        self, what: tuple[Bytes, memoryview, int, memoryview]
    ) -> tuple[Sequence[memoryview], tuple[bool, bool]] | None:
        sizes = np.zeros(len(self._room_for), dtype=np.int64)
        tables = (memoryview(marks()), _tight(), self._lengths)
        one, two, three, four, five = self._room_for
        flags = letters.planes(what[0], *what, *tables, one, two, three, four, five, memoryview(sizes))
        if flags < 0:
            return None
        made = [one[:end] for one, end in zip(self._room_for, sizes.tolist(), strict=True)]
        return made, (bool(flags & letters.DECEIVES), bool(flags & letters.ODD))

    def _make_room(self, size: int) -> None:
        """Have room for what is made of so many bytes. None of it takes memory before it is used."""
        if size > self._room:
            self._room = room = size + (size >> 1) + 64
            self._found = np.empty((room, _NOTES), dtype=np.int32)
            self._numbers = memoryview(np.empty(room, dtype=np.float64))
            self._room_for = [memoryview(np.empty(room, dtype=np.uint8)) for _ in range(5)]
            self._out = memoryview(np.empty(room + len(self._form.names), dtype=np.uint8))  # columns have marks


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was read. `block`: canonical lines; `letters`: what probes are compared with. Everything stays what it is
    until the next is read; lines, unless their room is used otherwise."""

    block: Bytes
    records: Records
    planes: Planes
    letters: memoryview
    cells: tuple[Bytes, npt.NDArray[np.int32], memoryview]
    names: Sequence[str]
    room: memoryview

    @property
    def forms(self) -> list[bytes]:
        """The canonical lines."""
        return bytes(self.block).split(b"\n")[:-1]

    def plane(self) -> memoryview:
        """Return the squeezed text of each column, ended by the mark of a row; until the next is asked for."""
        _, found, _ = self.cells
        ends = memoryview(np.zeros(len(self.names) + 1, dtype=np.int64))
        size = down.columns(memoryview(found), len(found), self.planes.tight, ends, self.room)
        return self.room[:size]

    def first(self, name: str, letters: int) -> list[Piece]:
        """Return the first texts of a column, until they have so many letters."""
        found, out = self._places(letters)
        return self._pieces(out[: down.first(found, len(found), self.names.index(name), letters, memoryview(out))])

    def last(self, name: str, letters: int) -> list[Piece]:
        """Return the last, in order."""
        found, out = self._places(letters)
        field, rows = self.names.index(name), len(self.records)
        return self._pieces(out[: down.last(found, len(found), field, letters, rows, memoryview(out))][::-1])

    def _places(self, letters: int) -> tuple[memoryview, npt.NDArray[np.int32]]:
        found = self.cells[1]
        return memoryview(found), np.empty((min(letters, len(found)), 3), dtype=np.int32)

    def _pieces(self, places: npt.NDArray[np.int32]) -> list[Piece]:
        tight = self.planes.tight
        return [(row, bytes(tight[start:end])) for row, start, end in places.tolist()]

    def lines_of(self, names: Sequence[str]) -> bytes:
        """Return the values of a field as JSON, or of several as lists: a line for each row that has them."""
        data, found, numbers = self.cells
        wanted = _int32([self.names.index(name) for name in names])
        what = (data, memoryview(found), len(found), numbers, self.planes.text, wanted, self.room)
        return bytes(self.room[: lines.column(*what)])

    def measured(self, name: str, measure: Measure, without: Collection[int]) -> Column:
        """Return what is measured of a field, of the rows that have it, `without` some (see `history`)."""
        _, found, numbers = self.cells
        here = np.flatnonzero(found[:, _FIELD] == self.names.index(name))
        good = np.ones(len(here), dtype=np.bool_)
        if without:
            good = ~np.isin(np.searchsorted(np.flatnonzero(found[:, _FIELD] < 0), here), list(without))
        if measure == "share":
            values = _read(b"[" + self.lines_of([name]).rstrip().replace(b"\n", b",") + b"]")
            kept = zip(values, good.tolist(), strict=True)
            return [str(value) for value, good in kept if good and value is not None]
        few, kind = lines.NUMBERS if measure == "value" else lines.TEXTS, found[here, _KIND]
        column: npt.NDArray[np.float64] = np.asarray(numbers)[here[good & (kind >= few[0]) & (kind <= few[-1])]]
        return column


def _joined(parts: Sequence[bytes]) -> tuple[bytes, memoryview]:
    """Return parts one after the other, and where each begins and the last ends."""
    return b"".join(parts), _int32([0, *accumulate(map(len, parts))])


def _int32(values: Sequence[int]) -> memoryview:
    return memoryview(np.array(values, dtype=np.int32))


@cache
def marks() -> npt.NDArray[np.uint32]:
    """Return what `letters` must know of each character."""
    return np.frombuffer(ready(MARKS, _marks), dtype=np.uint32)


def _marks() -> bytes:
    return letters.marks_of(planes.ascii_of(), letter_of(), unicode.kinds(), _tight(), planes.HIDDEN).tobytes()


@cache
def _tight() -> bytes:
    """Return what each byte of a folded plane is in a squeezed one."""
    return bytes(code if chr(code).isalnum() else 0 for code in range(128)).lower() + bytes(128)

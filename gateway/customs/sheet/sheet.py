"""A chunk of flat records as one sheet: lines to apply, planes to search and columns, without an object for a value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.customs.checks.contamination import letter_of
from gateway.customs.sheet import letters, lines
from gateway.customs.sheet.form import Form
from gateway.customs.sieve import planes
from gateway.customs.sieve.planes import Planes
from policies.history import Measure

LARGEST = 4 << 20
"""Bytes of a chunk; a larger one is read in another way."""
_NOTES, _FIELD, _KIND = 8, 0, 3
"""Numbers that are noted of each value, and which of them are its field and its kind."""
_read = msgspec.json.decode
_write = msgspec.json.encode


class Records(Mapping[int, dict[str, Any]]):
    """The records of lines, each made when it is asked for, with its fields in the order of the line."""

    def __init__(self, block: bytes, count: int) -> None:
        self._block, self._count = block, count
        self._made: dict[int, dict[str, Any]] = {}

    def __getitem__(self, row: int) -> dict[str, Any]:
        if row not in self._made:
            self._made[row] = _read(self._lines[row])
        return self._made[row]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._count))

    def __reversed__(self) -> Iterator[int]:
        return reversed(range(self._count))

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _lines(self) -> Sequence[bytes]:
        return self._block.split(b"\n")


class Reader:
    """Reads chunks of records of one form."""

    def __init__(self, form: Form) -> None:
        self._form, names = form, [name.encode() for name in form.names]
        self._names, self._name_ends = _joined(names)
        self._keys, self._key_ends = _joined([b'"%s":' % name for name in names])
        self._order = _int32(sorted(range(len(names)), key=names.__getitem__))
        self._lengths = memoryview(np.array(form.lengths, dtype=np.int32))
        self._words = {name: {_write(word) for word in words} | {b""} for name, words in form.words.items()}
        self._room = -1

    def read(self, block: bytes) -> Sheet | None:
        """Read lines, without a last newline; None where any of them is unusual, or does not fit."""
        if len(block) > LARGEST:
            return None
        self._make_room(len(block))
        try:
            return self._read(block, block + b"\n")
        except IndexError:  # there is more than there is room for
            return None

    def _read(self, block: bytes, data: bytes) -> Sheet | None:
        form, found = self._form, memoryview(self._found)
        limits = (form.kinds, form.low, form.high, form.required)
        cells = lines.cells(data, self._names, self._name_ends, *limits, found, self._numbers)
        if cells < 0:
            return None
        tables, sizes = (planes.ascii_of(), letter_of(), _tight()), np.zeros(4, dtype=np.int64)
        what = (data, found, cells, self._numbers)
        if letters.planes(data, *what, *tables, self._lengths, *self._planes, memoryview(sizes)) < 0:
            return None
        text, folded, tight, compared = (bytes(p[:size]) for p, size in zip(self._planes, sizes.tolist(), strict=True))
        places = _int32([-1] * len(form.names))  # new ones, as a reading that ends early leaves its own there
        about = (self._keys, self._key_ends, self._order, text, places, self._out)
        size = lines.written(*what, *about)
        sheet = Sheet(
            block=bytes(self._out[:size]),
            records=Records(block, int(np.count_nonzero(self._found[:cells, _FIELD] < 0))),
            planes=Planes(text, folded, tight),
            letters=compared,
            cells=(data, self._found[:cells], self._numbers),
            names=form.names,
            room=self._out,
        )
        worded = all(words.issuperset(sheet.lines_of([name])) for name, words in self._words.items())
        return sheet if worded else None

    def _make_room(self, size: int) -> None:
        """Have room for what is made of so many bytes. None of it takes memory before it is used."""
        if size > self._room:
            self._room = room = size + (size >> 1) + 64
            self._found = np.empty((room, _NOTES), dtype=np.int32)
            self._numbers = memoryview(np.empty(room, dtype=np.float64))
            self._planes = [memoryview(np.empty(room, dtype=np.uint8)) for _ in range(4)]
            # What fits the planes has to fit here by columns, each of which ends in a mark.
            self._out = memoryview(np.empty(room + len(self._form.names), dtype=np.uint8))


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was read. `block`: canonical lines; `letters`: what probes are compared with. Columns can be had until the
    next is read."""

    block: bytes
    records: Records
    planes: Planes
    letters: bytes
    cells: tuple[bytes, npt.NDArray[np.int32], memoryview]
    names: Sequence[str]
    room: memoryview

    @property
    def forms(self) -> list[bytes]:
        """The canonical lines."""
        return self.block.split(b"\n")[:-1]

    def squeezed(self) -> bytes:
        """Return the squeezed plane by columns in the order of the names, each ended by the mark of a row."""
        _, found, _ = self.cells
        ends = memoryview(np.zeros(len(self.names) + 1, dtype=np.int64))
        size = letters.columns(memoryview(found), len(found), self.planes.tight, ends, self.room)
        return bytes(self.room[:size])

    def lines_of(self, names: Sequence[str]) -> list[bytes]:
        """Return the values of a field as JSON, or of several as lists, of the rows that have them."""
        data, found, numbers = self.cells
        wanted = _int32([self.names.index(name) for name in names])
        what = (data, memoryview(found), len(found), numbers, self.planes.text, wanted, self.room)
        return bytes(self.room[: lines.column(*what)]).split(b"\n")[:-1]

    def measured(self, name: str, measure: Measure, without: Collection[int]) -> Sequence[Any]:
        """Return what is measured of a field, of the rows that have it, `without` some (see `history`)."""
        _, found, numbers = self.cells
        here, kind = found[:, _FIELD] == self.names.index(name), found[:, _KIND]
        rows = np.cumsum(found[:, _FIELD] < 0)
        good = ~np.isin(rows, list(without))
        if measure == "share":
            every = _read(b"[" + b",".join(self.lines_of([name])) + b"]")
            return [str(value) for value, kept in zip(every, good[here].tolist(), strict=True) if kept and value is not None]
        wanted = here & good & np.isin(kind, lines.NUMBERS if measure == "value" else lines.TEXTS)
        values: list[Any] = np.asarray(numbers)[: len(found)][wanted].tolist()
        return values


def _joined(parts: Sequence[bytes]) -> tuple[bytes, memoryview]:
    """Return parts one after the other, and where each begins and the last ends."""
    return b"".join(parts), _int32([0, *accumulate(map(len, parts))])


def _int32(values: Sequence[int]) -> memoryview:
    return memoryview(np.array(values, dtype=np.int32))


@cache
def _tight() -> bytes:
    """Return what each byte of a folded plane is in a squeezed one."""
    return bytes(code if chr(code).isalnum() else 0 for code in range(128)).lower() + bytes(128)

"""contamination: a row that holds what a model will be evaluated by.

Compared are letters and digits alone, folded in case, form and likeness, all texts of a row as one. A row is stopped
when it shares `WINDOW` of them in a row with a probe, or holds the whole of a shorter one. Who says the same in other
words is not found: that takes a reader.

However a window lies in a text, one of every few places of the text begins a piece of `PIECE` letters that is whole in
it. So these few places are looked at, of many rows at once, by a Bloom filter of the pieces of probes; and only
where one could begin are the windows around it compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from gateway.customs.checks.base import Candidate
from gateway.customs.ready import ready
from gateway.customs.scan.plane import squeeze
from gateway.customs.sheet.letters import likely
from gateway.customs.sieve import planes
from policies.probes import LEAST
from policies.writes import Reason

LETTERS = "letters"
"""The name of the table of what characters are taken for."""
WINDOW = 50
PIECE = 16
_PLACES, _TURNS = 64, 3
_FEWEST_BITS, _MOST_BITS = 12, 27
"""Bits of a filter for each of its pieces, how many of them are set, and of how many bits its index is."""
_FEWER = 2
"""Powers of two by which a small table is smaller."""
_AT_ONCE = 1 << 10
"""Places around which windows are compared together."""
_MIX, _SHIFT, _BIT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29), np.uint8(1)
_END = planes.ROW.encode()
_BEYOND = 0x40000
"""There are no letters and no digits from here on."""
_CLASSES = 127
"""In how many a letter can be that is not of ASCII."""
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


class Contamination:
    """Rejects rows with a probe in them (CSM-W022). `probes`: texts by where they stand; `flat`: see `plane_of`."""

    name = "contamination"

    def __init__(self, probes: Mapping[str, str], *, flat: bool = False) -> None:
        self._flat, self._names = flat, list(probes)
        pieces: list[Hashes] = []
        windows: defaultdict[int, list[Hashes]] = defaultdict(list)
        owners: defaultdict[int, list[Places]] = defaultdict(list)
        for owner, text in enumerate(probes.values()):
            letters = letters_of(text)
            if len(letters) < LEAST:
                continue
            size = min(len(letters), WINDOW)
            pieces.append(_along(letters, PIECE))
            windows[size].append(_along(letters, size))
            owners[size].append(np.full(len(windows[size][-1]), owner))
        self._windows = {size: _sorted(windows[size], owners[size]) for size in sorted(windows)}
        self._stride = min(windows, default=WINDOW) - PIECE + 1
        self._pieces = _Some(np.concatenate(pieces)) if pieces else None

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        for where in self.rows([candidate.record or {}]).values():
            yield Reason(check=self.name, code="CSM-W022", pointer="", excerpt=where)

    def rows(self, records: Sequence[Mapping[str, object]]) -> dict[int, str]:
        """Return which of some records hold a probe, and which one."""
        return self.found(letters_of(planes.plane_of(records, flat=self._flat)))

    def found(self, letters: planes.Plane) -> dict[int, str]:
        """Return which rows hold a probe, and which one. `letters`: those of a plane (see `letters_of`)."""
        places = self._places(letters)
        parts = [places[first : first + _AT_ONCE] for first in range(0, len(places), _AT_ONCE)]
        hits = sorted(hit for part in parts for hit in self._around(letters, part))
        if not hits:
            return {}
        ends = np.flatnonzero(np.frombuffer(letters, dtype=np.uint8) == ord(_END))
        rows = np.searchsorted(ends, [place for place, _ in hits]).tolist()
        # the first of a row is the last that is put down
        return {row: self._names[owner] for row, (_, owner) in zip(reversed(rows), reversed(hits), strict=True)}

    def _places(self, letters: planes.Plane) -> Places:
        """Return those of the places that are looked at where a piece of a probe could begin."""
        if self._pieces is None or len(letters) < LEAST:
            return np.zeros(0, dtype=np.int64)
        return self._pieces.among(letters, self._stride)

    def _around(self, letters: planes.Plane, places: Places) -> Iterator[tuple[int, int]]:
        """Yield where windows of probes begin that hold a piece at one of the places, and whose they are."""
        for size, (known, owners) in self._windows.items():
            starts = np.unique(places[:, None] - np.arange(size - PIECE + 1))
            starts = starts[(starts >= 0) & (starts <= len(letters) - size)]
            hashes = _at(letters, starts, size)
            near = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            same = known[near] == hashes
            yield from zip(starts[same].tolist(), owners[near[same]].tolist(), strict=True)


class _Some:
    """A Bloom filter of pieces, and a small table that most others are not in: it stays near the processor."""

    def __init__(self, hashes: Hashes) -> None:
        bits = min(max((_PLACES * len(hashes)).bit_length(), _FEWEST_BITS), _MOST_BITS)
        self._by, self._table = 64 - bits, np.zeros(1 << bits >> 3, dtype=np.uint8)
        self._first_by, self._first = self._by + _FEWER, np.zeros(1 << bits - _FEWER >> 3, dtype=np.uint8)
        _set(self._first, hashes >> np.uint64(self._first_by))
        for _ in range(_TURNS):
            _set(self._table, hashes >> np.uint64(self._by))
            hashes = _hashes([hashes])

    def among(self, letters: planes.Plane, step: int) -> Places:
        """Return those of the places, each a `step` after the one before, where one of them could begin."""
        count = max(len(letters) - PIECE + step, 0) // step
        left = np.empty(count, dtype=np.int64)
        table, out = memoryview(self._first), memoryview(left)
        left = left[: likely(letters, count, step, int(_MIX), int(_SHIFT), table, self._first_by, out)] * step
        hashes = _at(letters, left, PIECE)
        for _ in range(_TURNS):
            at = hashes >> np.uint64(self._by)
            there = self._table[at >> np.uint64(3)] >> (at & np.uint64(7)).astype(np.uint8) & _BIT != 0
            left, hashes = left[there], _hashes([hashes[there]])
        return left


def _set(table: npt.NDArray[np.uint8], places: Hashes) -> None:
    """Set bits of a table."""
    at = np.unique(places)
    bytes_, first = np.unique(at >> np.uint64(3), return_index=True)
    table[bytes_] |= np.bitwise_or.reduceat(_BIT << (at & np.uint64(7)).astype(np.uint8), first)


def _hashes(parts: Iterable[Hashes]) -> Hashes:
    """Return one number for several, each of 64 bits."""
    made: Hashes = np.zeros(1, dtype=np.uint64)
    for part in parts:
        mixed = (part ^ made) * _MIX
        made = mixed ^ mixed >> _SHIFT
    return made


def _along(letters: bytes, size: int) -> Hashes:
    """Return a hash of the `size` letters from each place on."""
    return _at(letters, np.arange(len(letters) - size + 1), size)


def _at(letters: planes.Plane, starts: Places, size: int) -> Hashes:
    """Return a hash of the `size` letters from some places on."""
    eights: Hashes = np.ndarray(max(len(letters) - 7, 0), dtype=np.uint64, buffer=letters, strides=(1,))
    return _hashes(eights[starts + part] for part in _parts(size))


def _parts(size: int) -> Iterable[int]:
    """Return where eights begin that cover `size` letters, which are eight at least."""
    return *range(0, size - 8, 8), size - 8


def _sorted(hashes: Sequence[Hashes], owners: Sequence[Places]) -> tuple[Hashes, Places]:
    """Return hashes in order, and whose they are; of equal ones the first."""
    some, first = np.unique(np.concatenate(hashes), return_index=True)
    return some, np.concatenate(owners)[first]


def letters_of(plane: str) -> bytes:
    """Return the letters and digits of a plane, and the marks of its rows, one byte each."""
    codes = np.frombuffer(plane.encode("utf-32-le", "replace"), dtype=np.uint32)
    return letter_of().take(codes.astype(np.int64)).tobytes().translate(None, b"\0")


@cache
def letter_of() -> npt.NDArray[np.uint8]:
    """Return what each code point is taken for; 0 where it is left out. One that stands for several is the first."""
    return np.frombuffer(ready(LETTERS, _letters), dtype=np.uint8)


def _letters() -> bytes:
    table = np.zeros(planes.CHARACTERS, dtype=np.uint8)
    for code in range(_BEYOND):
        char = chr(code)
        if char.isalnum():
            changes = not 0x3400 <= code < 0xF900 and code < 0x30000
            letter = ord((squeeze(char) if changes else char)[:1] or "\0")
            table[code] = letter if letter < 128 else 128 + letter % _CLASSES
    table[ord(planes.ROW)] = ord(_END)
    return table.tobytes()

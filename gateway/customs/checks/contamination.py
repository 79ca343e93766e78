"""contamination: a row that holds what a model will be evaluated by.

Compared are letters and digits alone, folded in case, form and likeness, all texts of a row as one. A row is stopped
when it shares `WINDOW` of them in a row with a probe, or holds the whole of a shorter one. Who says the same in other
words is not found: that takes a reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from gateway.customs.checks.base import Candidate
from gateway.customs.scan.plane import squeeze
from gateway.customs.sieve import planes
from policies.probes import LEAST
from policies.writes import Reason

WINDOW = 50
_END = ord(planes.ROW)
_BITS = 22
_STEP = 1 << 15
_BASE = 0x9E3779B97F4A7C15
Codes = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]


class Contamination:
    """Rejects rows with a probe in them (CSM-W022). `probes`: texts by where they stand; `flat`: see `Sieve`."""

    name = "contamination"

    def __init__(self, probes: Mapping[str, str], *, flat: bool = False) -> None:
        self._flat = flat
        self._short: dict[int, list[tuple[Codes, str]]] = {}
        windows, places = [np.zeros(0, np.uint64)], list[str]()
        for where, text in probes.items():
            codes = _folded(text)
            if len(codes) >= WINDOW:
                windows.append(_hashes(codes, WINDOW))
                places += [where] * len(windows[-1])
            elif len(codes) >= LEAST:
                self._short.setdefault(int(_hashes(codes, LEAST)[0]), []).append((codes, where))
        self._places: dict[int, str] = dict(zip(np.concatenate(windows).tolist(), places, strict=True))
        self._long, self._brief = _Set(list(self._places)), _Set(list(self._short))

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        for where in self.rows([candidate.record or {}]).values():
            yield Reason(check=self.name, code="CSM-W022", pointer="", excerpt=where)

    def rows(self, records: Sequence[Mapping[str, object]]) -> dict[int, str]:
        """Return which of some records hold a probe, and which one."""
        plane, found = _folded(planes.plane_of(records, flat=self._flat)), dict[int, str]()
        ends = np.flatnonzero(plane == _END)
        for window, known in ((WINDOW, self._long), (LEAST, self._brief)):
            for place, value in known.places(plane, window):
                where = self._where(value, plane[place : place + WINDOW], window)
                if where is not None:
                    found.setdefault(int(np.searchsorted(ends, place)), where)
        return found

    def _where(self, value: int, ahead: Codes, window: int) -> str | None:
        if window == WINDOW:
            return self._places[value]
        found = (where for codes, where in self._short[value] if np.array_equal(ahead[: len(codes)], codes))
        return next(found, None)


class _Set:
    """Some numbers, by which many can be held against them at once."""

    def __init__(self, values: Sequence[int]) -> None:
        self._values = np.array(values, dtype=np.uint64)
        self._likely = np.zeros(1 << _BITS, dtype=np.bool_)
        self._likely[_top(self._values)] = True

    def places(self, codes: Codes, window: int) -> Iterator[tuple[int, int]]:
        """Yield where runs begin whose hash is in the set, and the hash; in parts that a processor keeps near."""
        for first in range(0, len(codes) if len(self._values) else 0, _STEP):
            hashes = _hashes(codes[first : first + _STEP + window - 1], window)
            likely = np.flatnonzero(self._likely[_top(hashes)])
            places = likely[np.isin(hashes[likely], self._values)] if len(likely) else likely
            yield from zip((places + first).tolist(), hashes[places].tolist(), strict=True)


def _top(values: Hashes) -> npt.NDArray[np.int64]:
    return (values * np.uint64(_BASE) >> np.uint64(64 - _BITS)).astype(np.int64)


def _folded(plane: str) -> Codes:
    """Return the letters and digits of a plane, and the marks of its rows, as numbers."""
    codes = _table()[np.frombuffer(plane.encode("utf-32-le", "replace"), dtype=np.uint32)]
    seen: Codes = codes[codes != 0]
    return seen


@cache
def _table() -> npt.NDArray[np.uint32]:
    """Return what each code point is taken for; 0 where it is left out. One that stands for several is the first."""
    table = np.zeros(0x110000, dtype=np.uint32)
    for code in range(0x110000):
        char = chr(code)
        if char.isalnum():
            changes = not 0x3400 <= code < 0xF900 and code < 0x30000
            table[code] = ord((squeeze(char) if changes else char)[:1] or "\0")
    table[_END] = _END
    return table


def _hashes(codes: Codes, window: int) -> Hashes:
    """Return the hash of every run of `window` characters: a polynomial modulo 2^64, by differences of prefix sums."""
    if len(codes) < window:
        return np.zeros(0, np.uint64)
    powers, inverses = _powers(1 << (len(codes) + 1).bit_length())
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])
    hashes: Hashes = (sums[window:] - sums[:-window]) * inverses[: len(codes) - window + 1]
    return hashes


@cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    base = np.full(count, _BASE, dtype=np.uint64)
    inverse = np.full(count, pow(_BASE, -1, 1 << 64), dtype=np.uint64)
    base[0] = inverse[0] = 1
    return np.cumprod(base, dtype=np.uint64), np.cumprod(inverse, dtype=np.uint64)

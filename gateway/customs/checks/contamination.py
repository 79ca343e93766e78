"""contamination: a row that holds what a model will be evaluated by.

Compared are letters and digits alone, folded in case, form and likeness, all texts of a row as one. A row is stopped
when it shares `WINDOW` of them in a row with a probe, or holds the whole of a shorter one. Who says the same in other
words is not found: that takes a reader.

However a window lies in a probe, one of every `_STRIDE` runs of `LEAST` letters is whole in it. So these few runs are
looked for, at all places of many rows at once, by tables of what their first, second and third eight letters could be;
and only where all three could be is the text itself looked at.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from gateway.customs.checks.base import Candidate
from gateway.customs.scan.plane import squeeze
from gateway.customs.sheet.letters import EIGHT, MIX, places
from gateway.customs.sieve import planes
from policies.probes import LEAST
from policies.writes import Reason

WINDOW = 50
_STRIDE = WINDOW - LEAST + 1
_PLACES = 1 << 10
"""Places that are expected in a chunk, at most; if there are more, they are looked for again."""
_FEWEST_BITS, _MOST_BITS = 12, 24
"""Of the index of a table; it has 32 places a run, if it can."""
_END = planes.ROW.encode()
_LETTERS = 0x40000
"""There are no letters and no digits beyond."""
_CLASSES = 127
"""In how many a letter can be that is not of ASCII."""


class Contamination:
    """Rejects rows with a probe in them (CSM-W022). `probes`: texts by where they stand; `flat`: see `plane_of`."""

    name = "contamination"

    def __init__(self, probes: Mapping[str, str], *, flat: bool = False) -> None:
        self._flat, self._names = flat, list(probes)
        self._runs: set[bytes] = set()
        self._short: dict[bytes, int] = {}
        windows, counts = array("q", [0]), [1]  # one at least: what is looked for has a nearest
        for owner, text in enumerate(probes.values()):
            letters = letters_of(text)
            counts.append(max(len(letters) - WINDOW + 1, 0))
            if len(letters) >= WINDOW:
                windows.extend(hash(letters[start : start + WINDOW]) for start in range(counts[-1]))
                starts = range(0, len(letters) - LEAST + 1, _STRIDE)
                self._runs |= {letters[start : start + LEAST] for start in starts}
            elif len(letters) >= LEAST:
                self._short.setdefault(letters, owner)
                self._runs.add(letters[:LEAST])
        self._lengths = sorted(set(map(len, self._short)))
        hashes, owners = np.frombuffer(windows, dtype=np.int64), np.repeat(np.arange(len(counts)) - 1, counts)
        order = np.argsort(hashes, kind="stable")
        self._windows, self._owners = hashes[order], owners[order]
        self._bits, tables = _tables(self._runs)
        self._likely = memoryview(tables)

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        for where in self.rows([candidate.record or {}]).values():
            yield Reason(check=self.name, code="CSM-W022", pointer="", excerpt=where)

    def rows(self, records: Sequence[Mapping[str, object]]) -> dict[int, str]:
        """Return which of some records hold a probe, and which one."""
        return self.found(letters_of(planes.plane_of(records, flat=self._flat)))

    def found(self, letters: bytes) -> dict[int, str]:
        """Return which rows hold a probe, and which one. `letters`: those of a plane (see `letters_of`)."""
        hits = [(place, owner) for place in self._places(letters) if (owner := self._owner(letters, place)) is not None]
        if not hits:
            return {}
        ends = np.flatnonzero(np.frombuffer(letters, dtype=np.uint8) == ord(_END))
        rows = np.searchsorted(ends, [place for place, _ in hits]).tolist()
        # the first of a row is the last that is put down
        return {row: self._names[owner] for row, (_, owner) in zip(reversed(rows), reversed(hits), strict=True)}

    def _places(self, letters: bytes) -> list[int]:
        """Return all places at which one of the runs could begin."""
        if not self._runs:
            return []
        found = memoryview(np.empty(_PLACES, dtype=np.int64))
        count = places(letters, len(letters), self._likely, self._bits, found)
        if count > len(found):
            found = memoryview(np.empty(count, dtype=np.int64))
            places(letters, len(letters), self._likely, self._bits, found)
        return found[:count].tolist()

    def _owner(self, letters: bytes, place: int) -> int | None:
        """Return whose run is at a place, if enough of the probe is there."""
        if letters[place : place + LEAST] not in self._runs:
            return None
        whole = (self._short.get(letters[place : place + length]) for length in self._lengths)
        if (owner := next((owner for owner in whole if owner is not None), None)) is not None:
            return owner
        starts = range(max(place - _STRIDE + 1, 0), place + 1)
        windows = np.array([hash(letters[start : start + WINDOW]) for start in starts], dtype=np.int64)
        near = np.minimum(np.searchsorted(self._windows, windows), len(self._windows) - 1)
        hits = np.flatnonzero(self._windows[near] == windows)
        return int(self._owners[near[hits[0]]]) if len(hits) else None


def _tables(runs: set[bytes]) -> tuple[int, npt.NDArray[np.uint8]]:
    """Return of how many bits an index is; and for each eight letters of the runs a table of what they could be."""
    bits = min(max((32 * len(runs)).bit_length(), _FEWEST_BITS), _MOST_BITS)
    eights = np.frombuffer(b"".join(runs), dtype="<u8").reshape(-1, LEAST // EIGHT)
    tables = np.zeros((LEAST // EIGHT, 1 << bits), dtype=np.uint8)
    for part, table in enumerate(tables):
        table[eights[:, part] * np.uint64(MIX) >> np.uint64(64 - bits)] = 1
    return bits, tables


def letters_of(plane: str) -> bytes:
    """Return the letters and digits of a plane, and the marks of its rows, one byte each."""
    codes = np.frombuffer(plane.encode("utf-32-le", "replace"), dtype=np.uint32)
    return letter_of().take(codes.astype(np.int64)).tobytes().translate(None, b"\0")


@cache
def letter_of() -> npt.NDArray[np.uint8]:
    """Return what each code point is taken for; 0 where it is left out. One that stands for several is the first."""
    table = np.zeros(planes.CHARACTERS, dtype=np.uint8)
    for code in range(_LETTERS):
        char = chr(code)
        if char.isalnum():
            changes = not 0x3400 <= code < 0xF900 and code < 0x30000
            letter = ord((squeeze(char) if changes else char)[:1] or "\0")
            table[code] = letter if letter < 128 else 128 + letter % _CLASSES
    table[ord(planes.ROW)] = ord(_END)
    return table

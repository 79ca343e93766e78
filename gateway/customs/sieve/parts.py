"""Secrets in pieces: rows with several texts that are each a part of one value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gateway.customs.scan.values import PIECE
from gateway.customs.sheet.letters import begun
from gateway.customs.sieve import planes
from gateway.customs.sieve.planes import Planes

_BASE = 37
_DIGITS = np.zeros(256, dtype=np.int32)
_DIGITS[list(b"0123456789abcdefghijklmnopqrstuvwxyz")] = range(1, _BASE)
_SHORT = 400
"""Characters of a secret up to which all of its parts are kept; of a longer one, none is made beforehand."""


class Parts:
    """The parts of some values, all in lower case and without anything but letters and digits.

    Of a value with other letters, those that are ASCII: a part that has others is for `Known`.
    """

    def __init__(self, values: Sequence[str]) -> None:
        letters = ("".join(filter(str.isascii, value)) for value in values)
        data = [value.encode() for value in letters if len(value) >= PIECE]
        self._long = [value for value in data if len(value) > _SHORT]
        self._all = {
            value[start:end]
            for value in data
            if len(value) <= _SHORT
            for start in range(len(value))
            for end in range(start + PIECE, len(value) + 1)
        }
        self._begins = np.zeros(_BASE**3, dtype=np.uint8)
        for value in data:
            codes = np.frombuffer(value, dtype=np.uint8)
            self._begins[(_DIGITS[codes[:-2]] * _BASE + _DIGITS[codes[1:-1]]) * _BASE + _DIGITS[codes[2:]]] = 1

    def rows(self, values: Planes) -> set[int]:
        """Return the rows that hold two texts or more that are each a part."""
        if not self._all and not self._long:
            return set()
        tight, places = values.tight, values.places
        likely = np.empty(len(places), dtype=np.int32)
        count = begun(tight, places, PIECE, _DIGITS, memoryview(self._begins), likely)
        few = places[likely[:count]].tolist()
        ends = [end for start, end in few if self._has(bytes(tight[start:end]))]
        if len(ends) < 2:
            return set()
        numbers, counts = np.unique(np.searchsorted(planes.ends(tight), ends), return_counts=True)
        return set(numbers[counts > 1].tolist())

    def _has(self, text: bytes) -> bool:
        return text in self._all or any(text in value for value in self._long)

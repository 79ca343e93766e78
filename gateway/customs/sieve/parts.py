"""Secrets in pieces: rows with several texts that are each a part of one value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gateway.customs.scan.values import PIECE
from gateway.customs.sieve import planes

Bytes = npt.NDArray[np.uint8]
_BASE = 37
_DIGITS = np.zeros(256, dtype=np.int32)
_DIGITS[list(b"0123456789abcdefghijklmnopqrstuvwxyz")] = range(1, _BASE)
_MARKS = (planes.ROW + planes.TEXT).encode()
_SHORT = 400
"""Characters of a secret up to which all of its parts are kept; of a longer one, none is made beforehand."""


class Parts:
    """The parts of some values, all in lower case and without anything but letters and digits."""

    def __init__(self, values: Sequence[str]) -> None:
        data = [value.encode() for value in values if value.isascii()]
        self._long = [value for value in data if len(value) > _SHORT]
        self._all = {
            value[start:end]
            for value in data
            if len(value) <= _SHORT
            for start in range(len(value))
            for end in range(start + PIECE, len(value) + 1)
        }
        self._begins = np.zeros(_BASE**3, dtype=np.bool_)
        for value in data:
            codes = np.frombuffer(value, dtype=np.uint8)
            self._begins[_code(codes[:-2], codes[1:-1], codes[2:])] = True

    def rows(self, squeezed: bytes) -> set[int]:
        """Return the rows of a squeezed plane, whose texts are apart, that hold two parts or more."""
        if not self._all and not self._long:
            return set()
        plane = np.frombuffer(squeezed, dtype=np.uint8)
        ends = np.flatnonzero(plane < ord("0"))  # the marks
        starts = np.concatenate(([0], ends[:-1] + 1))
        enough = ends - starts >= PIECE
        starts, ends = starts[enough], ends[enough]
        likely = self._begins[_code(plane[starts], plane[starts + 1], plane[starts + 2])]
        places = [
            end for start, end in zip(starts[likely], ends[likely], strict=True) if self._has(squeezed[start:end])
        ]
        if len(places) < 2:
            return set()
        rows = np.searchsorted(np.flatnonzero(plane == _MARKS[0]), places)
        numbers, counts = np.unique(rows, return_counts=True)
        return set(numbers[counts > 1].tolist())

    def _has(self, text: bytes) -> bool:
        return text in self._all or any(text in value for value in self._long)


def _code(one: Bytes, two: Bytes, three: Bytes) -> npt.NDArray[np.int32]:
    return (_DIGITS[one] * _BASE + _DIGITS[two]) * _BASE + _DIGITS[three]

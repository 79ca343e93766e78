"""The columns of a chunk, read downwards. Compiled; see `down.pxd` for the types.

All of it reads what `lines.cells` and `letters.planes` noted of each value: its field (below 0 for the end of a row),
and where it starts and ends in the squeezed plane.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cython

Bytes: TypeAlias = "bytes | memoryview[int]"
Room: TypeAlias = "memoryview[int]"
Numbers: TypeAlias = Any
"""A memory view of numbers, in one dimension or two."""


def columns(found: Numbers, count: int, tight: Bytes, ends: Numbers, out: Room) -> int:
    """Write the squeezed plane column by column, a mark after each; return how long it is.

    `ends`: zeros, one more than there are fields; in the end where each column ends.
    """
    fields = len(ends) - 1
    for cell in range(count):
        if found[cell, 0] >= 0:
            ends[found[cell, 0] + 1] += found[cell, 7] - found[cell, 6]
    for field in range(fields):
        ends[field + 1] += ends[field] + 1
    for cell in range(count):
        field = found[cell, 0]
        if field >= 0:
            start, size = found[cell, 6], found[cell, 7] - found[cell, 6]
            at = ends[field]
            if at < 0 or size < 0 or start < 0 or start + size > len(tight) or at + size > len(out):
                raise IndexError
            with cython.boundscheck(False):
                for place in range(size):
                    out[at + place] = tight[start + place]
            ends[field] = at + size
    for field in range(fields):
        out[ends[field]] = 30
    whole: int = ends[fields]
    return whole


def first(found: Numbers, count: int, field: int, letters: int, out: Numbers) -> int:
    """Note of the first texts of a field its row, and where it starts and ends, until they have so many `letters`.

    A text without any does not count. Returns how many there are.
    """
    cell = row = pieces = 0
    while cell < count and letters > 0:
        if found[cell, 0] < 0:
            row += 1
        elif found[cell, 0] == field and found[cell, 6] < found[cell, 7]:
            out[pieces, 0], out[pieces, 1], out[pieces, 2] = row, found[cell, 6], found[cell, 7]
            letters -= found[cell, 7] - found[cell, 6]
            pieces += 1
        cell += 1
    return pieces


def last(found: Numbers, count: int, field: int, letters: int, rows: int, out: Numbers) -> int:
    """Note the same of the last texts of a field of so many `rows`, the last first."""
    pieces = 0
    cell, row = count - 1, rows
    while cell >= 0 and letters > 0:
        if found[cell, 0] < 0:
            row -= 1
        elif found[cell, 0] == field and found[cell, 6] < found[cell, 7]:
            out[pieces, 0], out[pieces, 1], out[pieces, 2] = row, found[cell, 6], found[cell, 7]
            letters -= found[cell, 7] - found[cell, 6]
            pieces += 1
        cell -= 1
    return pieces

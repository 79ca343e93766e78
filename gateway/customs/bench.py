"""Where chunks are examined, one at a time.

What was read and the rows to be applied lie in memory that a worker and customs both see: each byte is read once, and
what is hashed is what was judged.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import NamedTuple

from gateway.customs.examine import Examined, Examiner
from gateway.customs.intake import MOST_BYTES, Chunk, Slice
from gateway.customs.settle import Settlement
from gateway.customs.spool import Spool


class Found(NamedTuple):
    """What was found in a chunk, and how many bytes its rows take."""

    examined: Examined
    size: int


class Place(NamedTuple):
    """Where a chunk belongs in its output: its first row, and where the bytes of its rows begin."""

    first: int
    start: int


class Task(NamedTuple):
    """What is to be examined: rows of an output, which lie in a file, or as so many bytes in what is shared."""

    output: str
    lines: Slice | int


class Bench:
    """Where chunks are examined, one at a time. What was made of one stays until it is known where it belongs."""

    def __init__(self, examiners: Mapping[str, Examiner], spool: Spool, settled: Mapping[str, Settlement]) -> None:
        self._examiners, self._spool, self._settled = examiners, spool, settled
        self._given, self._made = (memoryview(mmap.mmap(-1, 2 * MOST_BYTES)) for _ in range(2))
        self._last: tuple[str, bytes | memoryview, bytes] = ("", b"", b"")

    def give(self, chunk: Chunk) -> Task:
        """Take a chunk."""
        if isinstance(chunk.lines, Slice):
            return Task(chunk.output, chunk.lines)
        size = len(chunk.lines)
        self._given[:size] = chunk.lines
        return Task(chunk.output, size)

    def work(self, task: Task) -> Found:
        """Examine a chunk."""
        lines = task.lines.read(self._given) if isinstance(task.lines, Slice) else self._given[: task.lines]
        examined = self._examiners[task.output].examine(lines, self._made)
        rows, size = examined.rows, len(examined.rows)
        if isinstance(rows, bytes) and size <= len(self._made):
            self._made[:size] = rows
        if size <= len(self._made):
            examined.rows = b""
        self._last = (task.output, examined.rows or self._made[:size], examined.keys)
        examined.keys = b""
        return Found(examined, size)

    def given(self, chunk: Chunk) -> memoryview:
        """Return what was read of the last chunk."""
        return self._given[: chunk.lines.size if isinstance(chunk.lines, Slice) else len(chunk.lines)]

    def made(self, found: Found) -> bytes | memoryview:
        """Return the rows that were made of it."""
        return found.examined.rows or self._made[: found.size]

    def told(self, place: Place) -> None:
        """Keep the last rows where they belong."""
        output, rows, keys = self._last
        self._spool.keep(output, place.start, rows)
        self._settled[output].keep(place.first, keys)

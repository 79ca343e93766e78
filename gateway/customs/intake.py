"""What was proposed, as chunks of rows: from the buffers of stages, and from the files of records that they name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.customs.chain import Row, broken, expected, rows
from gateway.customs.sieve.decode import MAX_RECORD
from policies.plan import Output

CHUNK_ROWS = 1_000
CHUNK_BYTES = 1 << 20
MOST_BYTES = MAX_RECORD + 1
"""Of a part of a file of records: there is room for one record, and its end."""
_STEP = 1 << 16
SETS = "sets"
TOO_LONG = b" "
"""What stands for a line that is too long to be a record: it is none."""


@dataclass(frozen=True, slots=True)
class Names:
    """The ids of a chunk's rows: of proposals, or of the lines of a `set` from line `first` on (known when those before
    it have been judged)."""

    ids: Sequence[str] = ()
    set: str = ""
    first: int = 0

    def of(self, row: int) -> str:
        """Return the id of a row of the chunk."""
        return f"{self.set}#{self.first + row}" if self.set else self.ids[row]


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a file of records that begins and ends with a line. `long`: it is one that is too long."""

    path: Path
    start: int
    size: int
    long: bool = False

    def read(self, room: memoryview | None = None) -> memoryview:
        """Return its lines, in a `room` (of `MOST_BYTES`) or by themselves. Some may be empty: those are no rows."""
        if self.long:
            return memoryview(TOO_LONG)
        lines = (memoryview(bytearray(self.size)) if room is None else room)[: self.size]
        with self.path.open("rb", buffering=0) as file:
            if os.preadv(file.fileno(), [lines], self.start) != self.size:
                raise broken("a stage", f"the file {self.path.name} has become shorter")
        return lines

    def parts(self) -> Iterator[memoryview]:
        """Yield what is in it, however long it is."""
        end = self.start + self.size
        for at in range(self.start, end, CHUNK_BYTES):
            yield Slice(self.path, at, min(CHUNK_BYTES, end - at)).read()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one output, as they were proposed by one stage: lines, or where they lie.

    What lies in a file is read by who judges it, so that it does not travel.
    """

    output: str
    stage: str
    names: Names
    lines: bytes | Slice

    def read(self, room: memoryview | None = None) -> bytes | memoryview:
        """Return the rows as lines (see `Slice.read`)."""
        return self.lines if isinstance(self.lines, bytes) else self.lines.read(room)


class Intake:
    """Everything that the event log vouches for."""

    def __init__(self, folder: Path, facts: Mapping[str, str], outputs: Mapping[str, Output]) -> None:
        """Verify every line, and that every file is there; raise CSM-W007 for what is not as the log has it."""
        self._folder, self._facts, self._buffers = folder, facts, expected(facts, folder)
        self._seen: dict[str, tuple[str, Any]] = {}
        self.size = 0
        for stage, row in self._rows():
            if row.output not in outputs:
                raise broken(stage, "a proposal for an output that the plan does not have")
            self.size += len(row.record)
            if row.file is not None:
                path = self._path(row.id)
                if f"set/{row.id}" not in facts or path.is_symlink() or not path.is_file():
                    raise broken(stage, f"the file of {row.id} is missing, or the event log does not vouch for it")
                self.size += path.stat().st_size

    def chunks(self) -> Iterator[Chunk]:
        """Yield all rows. Those of one output come in the order in which they were proposed.

        Until it is known that all that was read of files was what the log has (see `saw` and `verify`), nothing may be
        done with any.
        """
        for stage, last in self._buffers.items():
            waiting: dict[str, _Waiting] = {}
            for row in rows(self._folder / f"{stage}.jsonl", stage, last):
                if row.file is not None:
                    yield from _flush({row.output: waiting.pop(row.output, _Waiting())}, stage)
                    yield from self._set(row, stage)
                    continue
                mine = waiting.setdefault(row.output, _Waiting())
                mine.ids.append(row.id)
                mine.lines.append(row.record)
                mine.size += len(row.record)
                if mine.size >= CHUNK_BYTES or len(mine.lines) >= CHUNK_ROWS:
                    yield from _flush({row.output: waiting.pop(row.output)}, stage)
            yield from _flush(waiting, stage)

    def _rows(self) -> Iterator[tuple[str, Row]]:
        for stage, last in self._buffers.items():
            for row in rows(self._folder / f"{stage}.jsonl", stage, last):
                yield stage, row

    def _path(self, proposal: str) -> Path:
        return self._folder / SETS / f"{proposal}.jsonl"

    def _set(self, row: Row, stage: str) -> Iterator[Chunk]:
        self._seen[row.id] = stage, hashlib.sha256()
        for lines in _slices(self._path(row.id)):
            yield Chunk(row.output, stage, Names(set=row.id), lines)

    def saw(self, chunk: Chunk, lines: bytes | memoryview) -> None:
        """Take note of what was read of a chunk. Chunks come in their order."""
        if isinstance(chunk.lines, Slice):
            _, seen = self._seen[chunk.names.set]
            for part in chunk.lines.parts() if chunk.lines.long else (lines,):
                seen.update(part)

    def verify(self) -> None:
        """Raise CSM-W007 unless all that was read of files was what the log has."""
        for name, (stage, seen) in self._seen.items():
            if f"sha256:{seen.hexdigest()}" != self._facts[f"set/{name}"]:
                raise broken(stage, f"the file of {name} is not the one that the event log has")


class _Waiting:
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.lines: list[bytes] = []
        self.size = 0


def _flush(waiting: Mapping[str, _Waiting], stage: str) -> Iterator[Chunk]:
    for output, mine in waiting.items():
        if mine.lines:
            yield Chunk(output, stage, Names(ids=mine.ids), b"\n".join(mine.lines))


def _slices(path: Path) -> Iterator[Slice]:
    """Yield the parts of a file, of `MOST_BYTES` at most but for a line that is longer."""
    with path.open("rb", buffering=0) as file:
        number, size, start = file.fileno(), path.stat().st_size, 0
        while start < size:
            end = _next_line(number, min(start + CHUNK_BYTES, size), size)
            if end - start > MOST_BYTES and (before := os.pread(number, CHUNK_BYTES, start).rfind(b"\n") + 1):
                yield Slice(path, start, before)
                start += before
            yield Slice(path, start, end - start, long=end - start > MOST_BYTES)
            start = end


def _next_line(number: int, at: int, size: int) -> int:
    """Return where the first line begins in a file at `at` or after, or its `size`."""
    at -= 1
    while at < size:
        part = os.pread(number, _STEP, at)
        if (found := part.find(b"\n")) >= 0:
            return at + found + 1
        at += _STEP
    return size

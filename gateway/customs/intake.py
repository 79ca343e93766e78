"""What was proposed, as chunks of rows: from the buffers of stages, and from the files of records that they name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.customs.chain import Row, broken, expected, rows
from gateway.customs.sieve.decode import MAX_RECORD
from policies.plan import Output

CHUNK_ROWS = 1_000
CHUNK_BYTES = 1 << 20
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
    """A part of a file of records that begins and ends with a line."""

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        """Return its lines. Some may be empty: those are no rows."""
        with self.path.open("rb", buffering=0) as file:
            text = os.pread(file.fileno(), self.size, self.start)
        if len(text) != self.size:
            raise broken("a stage", f"the file {self.path.name} has become shorter")
        return text


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one output, as they were proposed by one stage: lines, or where they lie.

    What lies in a file is read by who judges it, so that it does not travel.
    """

    output: str
    stage: str
    names: Names
    lines: bytes | Slice

    def read(self) -> bytes:
        """Return the rows as lines. Some may be empty: those are no rows."""
        return self.lines if isinstance(self.lines, bytes) else self.lines.read()


class Intake:
    """Everything that the event log vouches for."""

    def __init__(self, folder: Path, facts: Mapping[str, str], outputs: Mapping[str, Output]) -> None:
        """Verify every line, and that every file is there; raise CSM-W007 for what is not as the log has it."""
        self._folder, self._facts, self._buffers = folder, facts, expected(facts, folder)
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

        Raises CSM-W007 at the end of a file that is not the one that the log has. Until all have come without that,
        nothing may be done with any.
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
        seen = hashlib.sha256()
        for lines in _slices(self._path(row.id), seen.update):
            yield Chunk(row.output, stage, Names(set=row.id), lines)
        if f"sha256:{seen.hexdigest()}" != self._facts[f"set/{row.id}"]:
            raise broken(stage, f"the file of {row.id} is not the one that the event log has")


class _Waiting:
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.lines: list[bytes] = []
        self.size = 0


def _flush(waiting: Mapping[str, _Waiting], stage: str) -> Iterator[Chunk]:
    for output, mine in waiting.items():
        if mine.lines:
            yield Chunk(output, stage, Names(ids=mine.ids), b"\n".join(mine.lines))


def _slices(path: Path, see: Callable[[bytes], object]) -> Iterator[bytes | Slice]:
    """Yield the parts of a file; a line beyond `MAX_RECORD` comes as `TOO_LONG`, if its part would be too large.

    `see` is given every byte, in order: a part is read twice then, but only once from the disk.
    """
    with path.open("rb", buffering=0) as file:
        number, size, start = file.fileno(), path.stat().st_size, 0
        while start < size:
            end = _next_line(number, min(start + CHUNK_BYTES, size), size)
            for at in range(start, end, CHUNK_BYTES):
                see(os.pread(number, min(CHUNK_BYTES, end - at), at))
            if end - start <= CHUNK_BYTES + MAX_RECORD:
                yield Slice(path, start, end - start)
            else:
                if before := os.pread(number, CHUNK_BYTES, start).rfind(b"\n") + 1:
                    yield Slice(path, start, before)
                yield TOO_LONG
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

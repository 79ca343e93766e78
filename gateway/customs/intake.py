"""What was proposed, as chunks of rows: from the buffers of stages, and from the files of records that they name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.customs.chain import Row, broken, expected, rows
from gateway.customs.sieve.decode import MAX_RECORD
from policies.plan import Output

CHUNK_ROWS = 2_500
CHUNK_BYTES = 1 << 20
_BLOCK = 1 << 20
SETS = "sets"
TOO_LONG = b" "
"""What stands for a line that is too long to be a record: it is none."""


@dataclass(frozen=True, slots=True)
class Names:
    """The ids of a chunk's rows: of proposals, or of the lines of a `set` from line `first` on."""

    ids: Sequence[str] = ()
    set: str = ""
    first: int = 0

    def of(self, row: int) -> str:
        """Return the id of a row of the chunk."""
        return f"{self.set}#{self.first + row}" if self.set else self.ids[row]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one output, as they were proposed by one stage: `count` lines in one block, without a last newline.

    As one block they travel to a worker faster than as many lines.
    """

    output: str
    stage: str
    names: Names
    block: bytes
    count: int

    @property
    def lines(self) -> list[bytes]:
        """The rows."""
        return self.block.split(b"\n")


class Intake:
    """Everything that the event log vouches for."""

    def __init__(self, folder: Path, facts: Mapping[str, str], outputs: Mapping[str, Output]) -> None:
        """Verify every line and every file; raise CSM-W007 for what is not as the log has it. Nothing is judged yet."""
        self._folder, self._buffers = folder, expected(facts, folder)
        self.size = 0
        for stage, row in self._rows():
            if row.output not in outputs:
                raise broken(stage, "a proposal for an output that the plan does not have")
            self.size += len(row.record)
            if row.file is not None:
                path = self._path(row.id)
                if f"set/{row.id}" not in facts or _digest(path, stage) != facts[f"set/{row.id}"]:
                    raise broken(stage, f"the file of {row.id} is not the one that the event log has")
                self.size += path.stat().st_size

    def chunks(self) -> Iterator[Chunk]:
        """Yield all rows. Those of one output come in the order in which they were proposed."""
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
        number = 0
        for block, count in _blocks(self._path(row.id)):
            yield Chunk(row.output, stage, Names(set=row.id, first=number), block, count)
            number += count


class _Waiting:
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.lines: list[bytes] = []
        self.size = 0


def _flush(waiting: Mapping[str, _Waiting], stage: str) -> Iterator[Chunk]:
    for output, mine in waiting.items():
        if mine.lines:
            yield Chunk(output, stage, Names(ids=mine.ids), b"\n".join(mine.lines), len(mine.lines))


def _blocks(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the lines of a file that are not empty, some at a time; one beyond `MAX_RECORD` comes as `TOO_LONG`."""
    left, skipping = b"", False
    with path.open("rb") as file:
        while read := file.read(_BLOCK):
            whole, newline, left = (left + read).rpartition(b"\n")
            if newline and skipping:
                _, newline, whole = whole.partition(b"\n")
                whole, skipping = TOO_LONG + newline + whole, False
            if skipping or len(left) > MAX_RECORD:
                left, skipping = b"", True
            yield from _cut(whole)
    if left or skipping:
        yield TOO_LONG if skipping else left, 1


def _cut(text: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield lines in parts of `CHUNK_ROWS` at most, with their number."""
    data = np.frombuffer(text, dtype=np.uint8)
    ends = np.append(np.flatnonzero(data == ord("\n")), len(text))
    if (np.diff(ends, prepend=-1) == 1).any():
        text = b"\n".join(filter(None, text.split(b"\n")))
        if text:
            yield from _cut(text)
        return
    parts = -(-len(ends) // CHUNK_ROWS)
    start = 0
    for part in np.array_split(ends, parts):
        yield text[start : part[-1]], len(part)
        start = part[-1] + 1


def _digest(path: Path, stage: str) -> str:
    if path.is_symlink() or not path.is_file():
        raise broken(stage, "a file of records is missing")
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

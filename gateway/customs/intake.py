"""What was proposed, as chunks of rows: from the buffers of stages, and from the files of records that they name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.customs.chain import Row, broken, expected, rows
from gateway.customs.sieve.decode import MAX_RECORD
from policies.plan import Output

CHUNK_ROWS = 1_000
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
    """Some rows of one output, as they were proposed by one stage."""

    output: str
    stage: str
    names: Names
    lines: Sequence[bytes]


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
        for lines in _chunked(self._path(row.id)):
            yield Chunk(row.output, stage, Names(set=row.id, first=number), lines)
            number += len(lines)


class _Waiting:
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.lines: list[bytes] = []
        self.size = 0


def _flush(waiting: Mapping[str, _Waiting], stage: str) -> Iterator[Chunk]:
    for output, mine in waiting.items():
        if mine.lines:
            yield Chunk(output, stage, Names(ids=mine.ids), mine.lines)


def _chunked(path: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a file that are not empty, some at a time; one beyond `MAX_RECORD` comes as `TOO_LONG`."""
    lines: list[bytes] = []
    size, left, skipping = 0, b"", False
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            *whole, left = (left + block).split(b"\n")
            if skipping and whole:
                whole[0], skipping = TOO_LONG, False
            if skipping or len(left) > MAX_RECORD:
                left, skipping = b"", True
            for line in filter(None, whole):
                lines.append(line)
                size += len(line)
                if size >= CHUNK_BYTES or len(lines) >= CHUNK_ROWS:
                    yield lines
                    lines, size = [], 0
    if left or skipping:
        lines.append(TOO_LONG if skipping else left)
    if lines:
        yield lines


def _digest(path: Path, stage: str) -> str:
    if path.is_symlink() or not path.is_file():
        raise broken(stage, "a file of records is missing")
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

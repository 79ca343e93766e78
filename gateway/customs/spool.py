"""Rows and reasons between examination and application: in files, in the order in which they were proposed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import msgspec

from gateway.customs.examine import Examined
from gateway.customs.intake import Chunk, Names
from gateway.customs.judge import fatal
from policies.writes import Reason

_reasons = msgspec.json.Decoder(dict[int, list[Reason]])


@dataclass(frozen=True, slots=True)
class Spooled:
    """A chunk on disk: `count` rows of `output` from its row `first` on; where in its file their `size` bytes are, and
    how many bytes of reasons there are."""

    output: str
    stage: str
    names: Names
    first: int
    count: int
    start: int
    size: int
    reasons: int


class Spool:
    """The chunks of a run: a file of rows for each output, and one of reasons.

    Rows are written by who examined them, where they are told to. So the file of an output of which every row is
    accepted is what is to be applied.
    """

    def __init__(self, folder: Path, outputs: Iterable[str]) -> None:
        self._folder, self._outputs = folder, list(outputs)
        self._chunks, self._stack = list[Spooled](), ExitStack()
        self._next: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._lines: dict[str, int] = {}
        self._seen = {name: hashlib.sha256() for name in self._outputs}
        self.rejected: set[str] = set()
        self.open: set[str] = set()
        self.whole = set(self._outputs)
        """Outputs whose rows are all lines of files, and none of them was objected to."""

    def __enter__(self) -> Spool:
        self._rows = {name: self._stack.enter_context(self.path(name).open("x+b")) for name in self._outputs}
        self._notes = self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for name in self._outputs:
            self.path(name).unlink(missing_ok=True)

    def path(self, output: str) -> Path:
        """Return the file of the rows of an output."""
        return self._folder / f".{output}.spool"

    def sha256(self, output: str) -> str:
        """Return the digest of the rows of an output, if it is `whole`."""
        return self._seen[output].hexdigest()

    def keep(self, output: str, start: int, rows: bytes | memoryview) -> None:
        """Write rows where they belong."""
        write_at(self._rows[output].fileno(), start, rows)

    def add(self, chunk: Chunk, examined: Examined, rows: bytes | memoryview) -> int:
        """Append a chunk, with what was found; return where its `rows` are to be kept."""
        size = len(rows)
        notes = msgspec.json.encode(examined.reasons) if examined.reasons else b""
        self._notes.write(notes)
        first, start = self._next.get(chunk.output, 0), self._ends.get(chunk.output, 0)
        self._next[chunk.output], self._ends[chunk.output] = first + examined.count, start + size
        names = replace(chunk.names, first=self._lines.get(chunk.names.set, 0))
        self._lines[names.set] = names.first + examined.count
        about = (chunk.output, chunk.stage, names, first, examined.count, start, size, len(notes))
        self._chunks.append(Spooled(*about))
        if notes or not names.set:
            self.whole.discard(chunk.output)
        if chunk.output in self.whole:
            self._seen[chunk.output].update(rows)
        if examined.rejects:
            self.rejected.add(chunk.output)
        if examined.open:
            self.open.add(chunk.output)
        return start

    def read(self, outputs: Collection[str]) -> Iterator[tuple[Spooled, bytes, Mapping[int, list[Reason]]]]:
        """Yield every chunk of some outputs with its rows (canonical lines) and its reasons by row of the chunk."""
        self._notes.seek(0)
        for chunk in self._chunks:
            notes = self._notes.read(chunk.reasons)
            if chunk.output in outputs:
                lines = os.pread(self._rows[chunk.output].fileno(), chunk.size, chunk.start)
                yield chunk, lines, _reasons.decode(notes) if notes else {}

    def proposals(self) -> Iterator[tuple[Spooled, set[int]]]:
        """Yield every chunk of single proposals, and which of its rows were rejected."""
        self._notes.seek(0)
        for chunk in self._chunks:
            notes = self._notes.read(chunk.reasons)
            if not chunk.names.set:
                found = _reasons.decode(notes) if notes else {}
                yield chunk, {row for row, reasons in found.items() if fatal(reasons)}


def write_at(file: int, at: int, data: bytes | memoryview) -> None:
    """Write all of `data` into a file from `at` on; raises `OSError`. Several processes may, in places of their own."""
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written

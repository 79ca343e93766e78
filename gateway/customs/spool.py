"""Rows and reasons between examination and application: in files, in the order in which they were proposed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from gateway.customs.examine import Examined
from gateway.customs.intake import Chunk, Names
from gateway.customs.judge import fatal
from policies.writes import Reason

_reasons = msgspec.json.Decoder(dict[int, list[Reason]])


@dataclass(frozen=True, slots=True)
class Kept:
    """Where rows are: in the file of a worker, `size` bytes from `start` on."""

    worker: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Spooled:
    """A chunk on disk: `count` rows of `output` from its row `first` on, where they are, and bytes of their reasons."""

    output: str
    stage: str
    names: Names
    first: int
    count: int
    rows: Kept
    reasons: int


class Spool:
    """The chunks of a run. Each worker keeps rows in a file of its own; who started them knows in which order."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder, self._workers, self._chunks, self._stack = folder, workers, list[Spooled](), ExitStack()
        self._next: dict[str, int] = {}
        self._lines: dict[str, int] = {}
        self.rejected: set[str] = set()
        self.open: set[str] = set()

    def __enter__(self) -> Spool:
        self._rows = [self._file(buffering=0) for _ in range(self._workers)]
        self._notes = self._file()
        return self

    def _file(self, buffering: int = -1) -> IO[bytes]:
        return self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder, buffering=buffering))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def keep(self, worker: int, rows: bytes) -> Kept:
        """Write rows, and say where. Only the worker of this number calls it so."""
        file, left = self._rows[worker], memoryview(rows)
        start = file.seek(0, os.SEEK_END)
        while left:
            left = left[file.write(left) :]
        return Kept(worker, start, len(rows))

    def add(self, chunk: Chunk, examined: Examined, rows: Kept) -> None:
        """Append a chunk, with what was found, and where its rows are."""
        notes = msgspec.json.encode(examined.reasons) if examined.reasons else b""
        self._notes.write(notes)
        first = self._next.get(chunk.output, 0)
        self._next[chunk.output] = first + examined.count
        names = replace(chunk.names, first=self._lines.get(chunk.names.set, 0))
        self._lines[names.set] = names.first + examined.count
        about = (chunk.output, chunk.stage, names, first, examined.count, rows, len(notes))
        self._chunks.append(Spooled(*about))
        if examined.rejects:
            self.rejected.add(chunk.output)
        if examined.open:
            self.open.add(chunk.output)

    def read(self) -> Iterator[tuple[Spooled, bytes, Mapping[int, list[Reason]]]]:
        """Yield every chunk with its rows (canonical lines) and its reasons by row of the chunk."""
        self._notes.seek(0)
        for chunk in self._chunks:
            notes, rows = self._notes.read(chunk.reasons), chunk.rows
            lines = os.pread(self._rows[rows.worker].fileno(), rows.size, rows.start)
            yield chunk, lines, _reasons.decode(notes) if notes else {}

    def proposals(self) -> Iterator[tuple[Spooled, set[int]]]:
        """Yield every chunk of single proposals, and which of its rows were rejected."""
        self._notes.seek(0)
        for chunk in self._chunks:
            notes = self._notes.read(chunk.reasons)
            if not chunk.names.set:
                found = _reasons.decode(notes) if notes else {}
                yield chunk, {row for row, reasons in found.items() if fatal(reasons)}

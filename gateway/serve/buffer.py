"""The write buffer of one cell: a file that only grows, chained by hash."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from policies.canonical import canonical, digest
from policies.cells import parted
from policies.errors import CasemateError
from policies.writes import GENESIS, Proposal, SetFile


class BufferBrokenError(RuntimeError):
    """A line that was announced could not be appended; the process must not go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line that may be appended next: the proposal's id, the exact bytes with newline, the digest without."""

    id: str
    data: bytes
    digest: str


class Buffer:
    """Appends canonical `Proposal` lines to one file.

    The order that keeps the log and the file in step: `draft` a line, write the event that carries its digest, then
    `append`, then answer. A crash before the event leaves neither; a crash after it leaves an event without its line,
    and customs, which is told the last digest of the log, refuses the whole buffer. There is no moment at which a line
    exists that the log does not vouch for.
    """

    def __init__(self, path: Path, cell: str) -> None:
        """Create the file, or take an empty one; raise CSM-G012 when it holds anything: a gateway is used once."""
        self._cell, self._seq, self._prev, self._broken = cell, 0, GENESIS, False
        self._stage, self._shard = parted(cell)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o640)
        except OSError as error:
            raise CasemateError("CSM-G012", f"{error.strerror}", place=f"buffer of {cell}") from error
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            os.close(self._file)
            raise CasemateError("CSM-G012", "the buffer is not a new file", place=f"buffer of {cell}")

    def draft(self, output: str, record: Mapping[str, Any], file: str | None = None) -> Line:
        """Return the line that `append` would add now. Raises `ValueError` when the record has no canonical form."""
        name = f"{self._cell}-{self._seq}"
        proposal = Proposal(
            seq=self._seq,
            prev=self._prev,
            id=name,
            stage=self._stage,
            shard=self._shard,
            output=output,
            record=dict(record),
            file=SetFile(path=file) if file is not None else None,
        )
        data = canonical(msgspec.to_builtins(proposal))
        return Line(id=name, data=data + b"\n", digest=digest(data))

    def append(self, line: Line) -> None:
        """Append `line` and wait until it is on disk; raise `BufferBrokenError` for ever after one failure."""
        if self._broken:
            raise BufferBrokenError(self._cell)
        self._broken = True
        try:
            written = os.write(self._file, line.data)
            os.fdatasync(self._file)
        except OSError as error:
            raise BufferBrokenError(f"{self._cell}: {error.strerror}") from error
        if written != len(line.data):
            raise BufferBrokenError(f"{self._cell}: short write")
        self._broken = False
        self._seq, self._prev = self._seq + 1, line.digest

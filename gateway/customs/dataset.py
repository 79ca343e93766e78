"""The sink `dataset`: accepted records as JSON lines or Parquet."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from policies.errors import CasemateError
from policies.plan import Output
from policies.writes import Written


class Writer(Protocol):
    """Writes the rows of one file."""

    columns: list[dict[str, str]]

    def add(self, rows: bytes) -> None: ...

    def close(self) -> None: ...


class Dataset:
    """The file of one output under `folder`: absent without rows, and under its name only when it is whole.

    `lines`: it has rows as canonical lines.
    """

    def __init__(self, folder: Path, output: Output, *, extra: bool) -> None:
        """`extra`: some row has fields that the schema does not name."""
        self._output, self._extra = output, extra
        self.name, self.lines = file_name(output), output.format != "parquet"
        self._final, self._part = folder / self.name, folder / f".{self.name}.part"
        self._writer: Writer | None = None
        self._sha256 = ""
        self.rows = 0

    def add(self, rows: bytes, count: int) -> None:
        """Append `count` rows, as canonical lines; raise CSM-W010 when they cannot be written."""
        if not count:
            return
        try:
            if self._writer is None:
                self._writer = self._open(self._part.open("xb"))
            self._sha256 = ""  # what was adopted is no longer all there is
            self._writer.add(rows)
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        self.rows += count

    def adopt(self, file: Path, count: int, sha256: str) -> None:
        """Take over a file of `count` rows, as canonical lines, and its digest; raise CSM-W010 when that cannot be."""
        if not count:
            return
        try:
            file.rename(self._part)
            self._writer = _Lines(self._part.open("ab"))
        except OSError as error:
            raise self._failed(error) from error
        self.rows, self._sha256 = count, sha256

    def finish(self) -> dict[str, Any] | None:
        """Close the file, put it in place and return `sha256` (`sha256:…`), `size` and `columns`; None without rows."""
        if self._writer is None:
            return None
        try:
            self._writer.close()
            size = self._part.stat().st_size
            sha256 = self._sha256 or _hashed(self._part)
            self._part.replace(self._final)
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        return {"sha256": f"sha256:{sha256}", "size": size, "columns": self._writer.columns}

    def _open(self, file: BinaryIO) -> Writer:
        if self.lines:
            return _Lines(file)
        from gateway.customs.parquet import Parquet  # here, so that workers and other outputs do without its memory

        return Parquet(file, self._output, self._extra)

    def _failed(self, error: Exception) -> CasemateError:
        return CasemateError("CSM-W010", f"{type(error).__name__} at the sink", place=f"output {self._output.name}")


class Held:
    """Rows of one output that wait for a person, as canonical JSON lines."""

    def __init__(self, folder: Path, output: Output) -> None:
        self._path, self._output, self._rows = folder / f"{output.name}.held.jsonl", output, 0
        self._file: BinaryIO | None = None

    def add(self, form: bytes) -> None:
        """Append one row; raise CSM-W010 when it cannot be written."""
        try:
            if self._file is None:
                self._file = self._path.open("xb")
            self._file.write(form + b"\n")
        except OSError as error:
            raise CasemateError("CSM-W010", f"{error.strerror}", place=self._path.name) from error
        self._rows += 1

    def finish(self) -> Written | None:
        """Close the file and say what it holds; None without rows."""
        if self._file is None:
            return None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        about = {"output": self._output.name, "file": self._path.name, "path": self._output.path}
        size = self._path.stat().st_size
        return Written(**about, digest=f"sha256:{_hashed(self._path)}", rows=self._rows, size=size)


def file_name(output: Output) -> str:
    """Return the name of the output's file. An output may be called like one of customs' own files."""
    infix = ".rows" if output.name in {"verdicts", "quarantine"} else ""
    return f"{output.name}{infix}.{output.format or 'jsonl'}"


class _Lines:
    columns: list[dict[str, str]]

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.columns = []

    def add(self, rows: bytes) -> None:
        self._file.write(rows)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

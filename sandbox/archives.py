"""Tar archives, in which files travel between the host and containers: whole in memory, or streamed at any size."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

CHUNK = 1 << 20


def tar_of(files: Mapping[str, bytes], *, uid: int = 0, gid: int = 0, mode: int = 0o444) -> bytes:
    """Return a tar archive of `files` (path → content), with fixed times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.uid, info.gid = len(content), mode, uid, gid
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_stream(files: Mapping[str, Path]) -> Iterator[bytes]:
    """Yield a tar archive of `files` (path → source) without holding any of them."""
    for path, source in sorted(files.items()):
        info = tarfile.TarInfo(path)
        info.size, info.mode = source.stat().st_size, 0o444
        yield info.tobuf()
        with source.open("rb") as content:
            left = info.size
            while left and (chunk := content.read(min(left, CHUNK))):
                left -= len(chunk)
                yield chunk
        yield bytes(left + -info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


class Chunks(io.RawIOBase):
    """A stream of chunks as a file that is read once."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._left = iter(chunks), b""

    def read(self, size: int = -1) -> bytes:
        parts, wanted = [], size
        while wanted and (chunk := self._left or next(self._chunks, b"")):
            parts.append(chunk[:wanted])
            self._left = chunk[wanted:]
            wanted -= len(parts[-1])
        return b"".join(parts)


class TooLargeError(Exception):
    """A file has more bytes than it may have."""


def keep_file(content: IO[bytes], target: Path, limit: int) -> tuple[str, int]:
    """Write a new file of at most `limit` bytes; return its digest (`sha256:…`) and size. Raises `TooLargeError`."""
    hashed, size = hashlib.sha256(), 0
    with target.open("xb") as file:
        while chunk := content.read(CHUNK):
            size += len(chunk)
            if size > limit:
                raise TooLargeError
            hashed.update(chunk)
            file.write(chunk)
    return f"sha256:{hashed.hexdigest()}", size


def write_durably(target: Path, content: bytes) -> None:
    """Write a file so that under its name it is whole, on disk, or as it was before."""
    part = target.with_name(f".{target.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)


def lines_of(path: Path) -> int:
    """Count the lines of a file of any size; one without an end counts."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return count + (last != b"\n")

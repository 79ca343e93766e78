"""Tar archives, in which files travel between the host and containers: whole in memory, or streamed at any size."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

CHUNK = 1 << 20
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an archive, or a folder (without content), and whose it is."""

    content: bytes | None = field(repr=False)  # it may be a secret
    mode: int = 0o444
    uid: int = 0
    gid: int = 0


def tar_of(files: Mapping[str, bytes | Entry]) -> bytes:
    """Return a tar archive of `files` (path → content), with fixed times; everybody may read what is no `Entry`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, file in sorted(files.items()):
            entry = Entry(file) if isinstance(file, bytes) else file
            info, content = tarfile.TarInfo(path), entry.content
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size, info.mode, info.uid, info.gid = len(content or b""), entry.mode, entry.uid, entry.gid
            archive.addfile(info, io.BytesIO(content or b""))
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
        self._chunks, self._left = iter(chunks), memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        parts, wanted = [], size
        while wanted and (chunk := self._left or memoryview(next(self._chunks, b""))):
            parts.append(chunk[:wanted] if wanted > 0 else chunk)
            self._left = chunk[len(parts[-1]) :]
            wanted -= len(parts[-1]) if wanted > 0 else 0
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that was kept, and its digest (`sha256:…`)."""

    path: Path
    digest: str


def keep_files(archive: tarfile.TarFile, folder: Path, limit: int) -> dict[str, Kept]:
    """Write the plain files at the top of an archived directory into `folder`; return them by name.

    `limit` bounds the bytes of each. Raises `TooLargeError`. What was in `folder` is gone.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    found: dict[str, Kept] = {}
    for info in archive:
        name = info.name.rpartition("/")[2]
        content = archive.extractfile(info) if info.isreg() and info.name.count("/") == 1 else None
        if content is not None and _PLAIN.fullmatch(name) and name not in found:
            found[name] = Kept(folder / name, keep_file(content, folder / name, limit)[0])
    return found


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


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield the content of a file of any size."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def digest_of_file(path: Path) -> str:
    """Return the digest (`sha256:…`) of a file of any size."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def lines_of(path: Path) -> int:
    """Count the lines of a file of any size; one without an end counts."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return count + (last != b"\n")

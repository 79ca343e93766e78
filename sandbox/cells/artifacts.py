"""Artifacts: what a stage leaves for the next, taken over by copy.

A tar from a cell is hostile input. Only plain files and folders with plain names pass: no link of any kind, no device,
no setuid bit, nothing above the bounds. What is refused is refused whole, by name.
"""

from __future__ import annotations

import tarfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from policies.errors import CasemateError
from policies.events import clean
from policies.vocabulary import ExitCode

MAX_FILES = 1000
MAX_NAME = 200
MAX_DEPTH = 10


def unpack(archive: tarfile.TarFile, prefix: str, limit: int) -> dict[str, bytes]:
    """Return the files below `prefix` of a tar archive that goes by, by relative path. Nothing else of it is held.

    `limit` bounds the sum of their sizes in bytes. Raises CSM-R008 naming the first entry that may not pass.
    """
    files: dict[str, bytes] = {}
    total = 0
    for info in archive:
        path = PurePosixPath(info.name)
        if not path.is_relative_to(prefix) or path == PurePosixPath(prefix):
            continue
        name = str(path.relative_to(prefix))
        for why in _objections(info, name):
            message = f"artifact {clean(name, 100)!r} is refused: {why}"
            raise CasemateError("CSM-R008", message, exit_code=ExitCode.STAGE_FAILED)
        if info.isdir():
            continue
        total += info.size
        if total > limit or len(files) >= MAX_FILES:
            message = f"artifacts are above {limit} bytes or {MAX_FILES} files"
            raise CasemateError("CSM-R008", message, exit_code=ExitCode.STAGE_FAILED)
        content = archive.extractfile(info)
        files[name] = content.read() if content else b""
    return files


def _objections(info: tarfile.TarInfo, name: str) -> Iterator[str]:
    parts = PurePosixPath(name).parts
    if not (info.isreg() or info.isdir()) or info.issparse() or info.islnk() or info.issym():
        yield "not a plain file"
    if info.mode & 0o7000:
        yield "a setuid, setgid or sticky bit"
    if ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name or len(parts) > MAX_DEPTH:
        yield "a path that leaves its folder"
    if len(name) > MAX_NAME or any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") for c in name):
        yield "a name with hidden characters, or too long a one"


def keep(files: dict[str, bytes], folder: Path) -> None:
    """Write artifacts below a folder of the run."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(content)

"""Files of a project: read below its folder, and nothing outside of it.

A path is taken relative to the project's folder, may not leave it, and no part of it may be a symbolic link: otherwise
a repository could point an agent's input at the host's own secrets.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from policies.errors import CasemateError

MAX_INPUT = 256 << 20


def read_inside(root: Path, name: str, limit: int) -> bytes:
    """Return the bytes of a regular file below `root`. Raises C021 (leaves it), C023 (link) or C022 (anything else)."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or not pure.parts:
        raise CasemateError("CSM-C021", f'"{name}" leaves the project', hint="name a file beside the workflow")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in pure.parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        handle = os.open(pure.parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        _refuse_link(root, pure)
        raise CasemateError("CSM-C022", f'"{name}" cannot be read: {error.strerror}') from error
    finally:
        os.close(folder)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise CasemateError("CSM-C022", f'"{name}" is not a regular file')
    with os.fdopen(handle, "rb") as stream:
        if status.st_size > limit:
            raise CasemateError("CSM-C022", f'"{name}" is larger than {limit} bytes')
        return stream.read(limit)


def _refuse_link(root: Path, pure: PurePosixPath) -> None:
    for depth in range(1, len(pure.parts) + 1):
        part = root.joinpath(*pure.parts[:depth])
        if part.is_symlink():
            raise CasemateError("CSM-C023", f'"{part.relative_to(root)}" is a symbolic link', hint="copy the file")

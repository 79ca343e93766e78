"""What of a tool's results is too large for an answer: files in the stage's own memory, which its agent can only read.

The names are ours. What does not fit any more is cut, as it would be without this.
"""

from __future__ import annotations

import os
from pathlib import Path

SEEN_AT = "/artifacts/_tools"
"""Where the agent finds them."""
MAX_FILES = 50
MAX_BYTES = 12 << 20
"""Of all files of a stage; less than its volume has."""


class Overflow:
    """The files of one stage."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._files, self._bytes = folder, 0, 0

    def keep(self, data: bytes) -> str | None:
        """Write a file, and return the path under which the agent sees it; None when there is no room for it."""
        if not self._folder.is_dir() or self._files >= MAX_FILES or self._bytes + len(data) > MAX_BYTES:
            return None
        name = f"{self._files:03}.txt"
        self._files += 1
        self._bytes += len(data)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self._folder / name, flags, 0o644), "wb") as file:
                file.write(data)
        except OSError:
            return None
        return f"{SEEN_AT}/{name}"

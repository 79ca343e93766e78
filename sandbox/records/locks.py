"""Named locks of this host: runs that name the same lock, of whatever project of a user, go one after the other.

A run takes all that its stages name before it starts anything, in one order, so that no two wait for each other, and
holds them until it has ended: writes are made at the end. The kernel frees what a process held when it dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path


def folder() -> Path:
    """Return where the locks of this user lie."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "casemate" / "locks"


@contextmanager
def held(names: Iterable[str], where: Path, meanwhile: Callable[[], object]) -> Iterator[None]:
    """Hold the named locks. While somebody else has one, `meanwhile` is called again and again; it may raise."""
    with ExitStack() as stack:
        for name in sorted(set(names)):
            where.mkdir(parents=True, exist_ok=True, mode=0o700)
            # a name may be any text: its digest is a file's name
            handle = os.open(where / sha256(name.encode()).hexdigest(), os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, handle)
            take(handle, meanwhile)
        yield


def take(handle: int, meanwhile: Callable[[], object]) -> None:
    """Lock a file until it is closed. While somebody else has it, `meanwhile` is called again and again."""
    while not _taken(handle):
        meanwhile()


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

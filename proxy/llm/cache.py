"""A stage's exact-match cache: the same question gets the same answer, at no cost. In memory, bounded, for one run.

Only complete answers that were judged are kept: never an error, a cut stream, or one whose cost nobody told.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from proxy.llm.taken import Taken

MAX_CHARACTERS: Final = 32 * 1024 * 1024
MAX_ENTRY: Final = 4 * 1024 * 1024


class Cache:
    """Answers by key; the least recently used goes first."""

    def __init__(self, most: int = MAX_CHARACTERS, largest: int = MAX_ENTRY) -> None:
        self._most, self._largest, self._size = most, largest, 0
        self._kept: OrderedDict[str, Taken] = OrderedDict()

    def get(self, key: str) -> Taken | None:
        """Return the answer, if there is one."""
        taken = self._kept.get(key)
        if taken is not None:
            self._kept.move_to_end(key)
        return taken

    def put(self, key: str, taken: Taken) -> None:
        """Keep an answer, if it may be kept."""
        if not taken.complete or taken.size > self._largest or key in self._kept:
            return
        self._kept[key] = taken
        self._size += taken.size
        while self._size > self._most:
            _, gone = self._kept.popitem(last=False)
            self._size -= gone.size

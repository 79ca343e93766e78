"""Many patterns over one plane, in one pass. The only file that talks to Hyperscan.

The engine reports where a match ends, not where it begins: enough to say which row must be looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import hyperscan

from gateway.customs.ready import ready
from gateway.customs.sieve import planes

_MANY = 4
"""If not fewer than one of so many rows are asked about, all are looked at."""


class Patterns:
    """Compiled patterns, in groups."""

    def __init__(self, groups: Mapping[str, Iterable[str]], *, rare: bool = False) -> None:
        """Compile; raises `hyperscan.error` for what the engine does not take. `rare`: not before they are needed."""
        pairs = [(name, expression.encode()) for name, group in groups.items() for expression in group]
        self._names, self._expressions = [name for name, _ in pairs], [expression for _, expression in pairs]
        digest = hashlib.sha256(b"\0".join(self._expressions)).hexdigest()
        self.name = f"{digest}.hyperscan"
        """Of the file in which they are compiled."""
        if self._names and not rare:
            self._database  # noqa: B018 - before customs forks

    @cached_property
    def _database(self) -> hyperscan.Database:
        try:
            database = hyperscan.loadb(bytes(ready(self.name, self.kept)), hyperscan.HS_MODE_BLOCK)
        except hyperscan.error:  # of another version, or for another processor
            database = hyperscan.loadb(self.kept(), hyperscan.HS_MODE_BLOCK)
        database.scratch = hyperscan.Scratch(database)
        return database

    def kept(self) -> bytes:
        """Compile, for this processor."""
        database, count = hyperscan.Database(), len(self._names)
        database.compile(expressions=self._expressions, ids=list(range(count)), elements=count)
        return hyperscan.dumpb(database)

    def __bool__(self) -> bool:
        return bool(self._names)

    def rows(self, plane: planes.Plane, mark: bytes = planes.ROW.encode()) -> Mapping[str, set[int]]:
        """Return the rows of a plane, each ended by a mark, in which a pattern of a group matches, by group."""
        ends: defaultdict[int, list[int]] = defaultdict(list)
        if self._names:
            self._database.scan(plane, match_event_handler=_keep, context=ends)  # type: ignore[type-var]
        found: defaultdict[str, set[int]] = defaultdict(set)
        for number, places in ends.items():
            found[self._names[number]] |= planes.rows_at(plane, places, mark)
        return found

    def among(self, plane: planes.Plane, rows: Collection[int]) -> set[int]:
        """Return those of some rows of a plane in which a pattern matches."""
        if not rows:
            return set()
        ends = planes.ends(plane)
        if len(rows) * _MANY > len(ends):
            return set[int]().union(*self.rows(plane).values()) & set(rows)
        few = sorted(rows)
        found = self.rows(planes.only(plane, few, ends))
        return {few[number] for hits in found.values() for number in hits}


def literals(words: Iterable[str]) -> Sequence[str]:
    """Return the patterns of words that are to be found as they are."""
    return [re.escape(word) for word in sorted(set(words))]


def _keep(number: int, _start: int, end: int, _flags: int, ends: Any) -> None:
    ends[number].append(end - 1)

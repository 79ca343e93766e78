"""The write-ahead journal of writes: each is written down before anything is sent, and with its receipt afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum

TABLE = """
create table if not exists writes (
  run text not null, output text not null, part text not null, key text not null unique, digest text not null,
  file text not null, rows integer not null, root text not null, state text not null, receipt text,
  primary key (run, output, part)
) strict;
"""


class State(StrEnum):
    """How far a write is."""

    WAITING = "waiting"
    """Accepted; nothing was sent."""
    INTENDED = "intended"
    """It is being sent, or was when that broke off."""
    APPLIED = "applied"
    UNKNOWN = "unknown"
    """The sink cannot tell; a person decides."""
    UNDONE = "undone"
    HELD = "held"
    """It waits for a person."""
    APPROVED = "approved"
    """What waited is written, with what was accepted beside it, as one part."""
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One accepted part of an output: `file` holds its rows, below the run's folder; `root` is the project's folder."""

    run: str
    output: str
    part: str
    key: str
    digest: str
    file: str
    rows: int
    root: str
    state: State = State.WAITING
    receipt: str | None = None


class Writes:
    """The writes of every run of a project, in its journal."""

    def __init__(self, journal: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self._journal = journal

    def add(self, writes: Iterable[Write]) -> None:
        """Take in what was accepted. What is known already stays as it is."""
        rows = [
            (w.run, w.output, w.part, w.key, w.digest, w.file, w.rows, w.root, w.state.value, w.receipt) for w in writes
        ]
        with self._journal() as journal:
            journal.executemany("insert or ignore into writes values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def of(self, run: str) -> list[Write]:
        """Return the writes of a run, in order."""
        with self._journal() as journal:
            journal.row_factory = sqlite3.Row
            rows = journal.execute("select * from writes where run = ? order by output, part", (run,)).fetchall()
        return [Write(**{**dict(row), "state": State(row["state"])}) for row in rows]

    def mark(self, key: str, state: State, receipt: str | None = None) -> None:
        """Write down, durably, how far a write is."""
        with self._journal() as journal:
            journal.execute("update writes set state = ?, receipt = ? where key = ?", (state.value, receipt, key))

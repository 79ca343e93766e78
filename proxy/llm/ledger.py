"""The ledger: reserve the worst case, then settle what it was. SQLite, one file, one writer.

    reserve   if any ceiling would be passed, nothing is written; else one row, committed before the call is made
    settle    the row becomes the charge

What a scope has spent is the sum of its rows, which is read once, when the file is opened, and kept in memory from then
on. A reservation is part of what is spent from the moment of its commit, so concurrent calls never pass a ceiling
together, and what was open when the process died stays spent. Nothing here awaits: a row takes some ten microseconds
and is never interleaved with another.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from policies.errors import CasemateError
from proxy.llm.charges import added, exceeded, replaced
from proxy.llm.types import Amount, Refused

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS charge (
    id INTEGER PRIMARY KEY AUTOINCREMENT, scopes TEXT NOT NULL, open INTEGER NOT NULL DEFAULT 1,
    calls INTEGER NOT NULL, tokens INTEGER NOT NULL, usd_nanos INTEGER NOT NULL
) STRICT;
"""
_RESERVE = "INSERT INTO charge (scopes, calls, tokens, usd_nanos) VALUES (?, ?, ?, ?)"
_CARRY = "INSERT INTO charge (scopes, open, calls, tokens, usd_nanos) VALUES (?, ?, ?, ?, ?)"
_SETTLE = "UPDATE charge SET open = 0, calls = ?, tokens = ?, usd_nanos = ? WHERE id = ? AND open = 1"
_NOTHING = Amount(calls=0, tokens=0, usd_nanos=0)
_SEPARATOR = "\n"  # scopes are `run` and `stage/<name>`, which contain none


class Ledger:
    """What a run has spent. Every method raises `sqlite3.Error` when the file fails: the caller then denies."""

    def __init__(self, path: Path, run: str) -> None:
        """Open or create the ledger of `run`; raise `CasemateError` (R017) for another run's, or a broken one."""
        self._sums: dict[str, Amount] = {}
        self._open: dict[int, tuple[tuple[str, ...], Amount]] = {}
        with ExitStack() as opened:
            try:
                opened.callback(os.close, _only_writer(path))
                # each statement is a transaction of its own
                self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
                opened.callback(self._db.close)
                rows = _read(self._db, run)
            except (sqlite3.Error, OSError) as error:
                raise CasemateError("CSM-R017", f"ledger cannot be opened: {error}", place=str(path)) from error
            for scopes, calls, tokens, usd_nanos in rows:
                for scope in scopes.split(_SEPARATOR):
                    amount = Amount(calls=calls, tokens=tokens, usd_nanos=usd_nanos)
                    self._sums[scope] = added(self.spent(scope), amount)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def reserve(self, amount: Amount, scopes: Mapping[str, Amount]) -> int:
        """Reserve `amount` in every scope, each with its ceiling; return the reservation's number.

        Raises `Refused` (P023), having written nothing, when one ceiling would be passed.
        """
        for scope, most in scopes.items():
            spent = self.spent(scope)
            if (dimension := exceeded(spent, amount, most)) is not None:
                raise _exhausted(scope, dimension, getattr(spent, dimension), getattr(most, dimension))
        row = (_SEPARATOR.join(scopes), amount.calls, amount.tokens, amount.usd_nanos)
        number = self._db.execute(_RESERVE, row).lastrowid
        if number is None:
            raise sqlite3.DatabaseError("no reservation number")
        self._open[number] = (tuple(scopes), amount)
        for scope in scopes:
            self._sums[scope] = added(self.spent(scope), amount)
        return number

    def carry(self, amount: Amount, scopes: Sequence[str]) -> None:
        """Take over what was spent before this ledger was opened: a fact, whether it passed a ceiling or not."""
        row = (_SEPARATOR.join(scopes), 0, amount.calls, amount.tokens, amount.usd_nanos)
        self._db.execute(_CARRY, row)
        for scope in scopes:
            self._sums[scope] = added(self.spent(scope), amount)

    def settle(self, number: int, actual: Amount) -> None:
        """Turn a reservation into a charge; raise `sqlite3.Error` if there is none of that number."""
        row = (actual.calls, actual.tokens, actual.usd_nanos, number)
        if number not in self._open or self._db.execute(_SETTLE, row).rowcount != 1:
            raise sqlite3.DatabaseError(f"no reservation {number}")
        scopes, reserved = self._open.pop(number)
        for scope in scopes:
            self._sums[scope] = replaced(self.spent(scope), reserved, actual)

    def spent(self, scope: str) -> Amount:
        """Return what a scope has spent, open reservations included."""
        return self._sums.get(scope, _NOTHING)


def _read(db: sqlite3.Connection, run: str) -> list[tuple[str, int, int, int]]:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.executescript(_SCHEMA)
    db.execute("INSERT OR IGNORE INTO run VALUES (1, ?)", (run,))
    if db.execute("SELECT name FROM run").fetchone() != (run,):
        raise sqlite3.DatabaseError("it belongs to another run")
    return db.execute("SELECT scopes, calls, tokens, usd_nanos FROM charge").fetchall()


def _only_writer(path: Path) -> int:
    """Lock the ledger, for two writers with a memory each would pass a ceiling together. Raises `OSError`."""
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _exhausted(scope: str, dimension: str, spent: int, most: int) -> Refused:
    return Refused(
        "CSM-P023",
        f"{scope}: {dimension} {spent} of {most} are spent or reserved",
        hint=f"the ceiling {dimension} of {scope} is {most}; ask for less output, or stop here",
        more={"scope": scope, "ceiling": dimension, "spent": spent, "limit": most},
    )

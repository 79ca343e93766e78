"""The ledger: reserve the worst case, then settle what it was. SQLite, one file, one writer.

    reserve   one transaction over all scopes: if any ceiling would be passed, nothing is written
    settle    the reservation becomes the charge, in all its scopes

A reservation is part of what is spent from the moment of its commit, so concurrent calls never pass a ceiling
together, and what was open when the process died stays spent. Nothing here awaits: a transaction takes tens of
microseconds and is never interleaved with another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from policies.errors import CasemateError
from proxy.llm.charges import added, exceeded, replaced
from proxy.llm.types import Amount, Refused

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS spent (
    scope TEXT PRIMARY KEY, calls INTEGER NOT NULL, tokens INTEGER NOT NULL, usd_nanos INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS reservation (
    id INTEGER PRIMARY KEY AUTOINCREMENT, scopes TEXT NOT NULL,
    calls INTEGER NOT NULL, tokens INTEGER NOT NULL, usd_nanos INTEGER NOT NULL
) STRICT;
"""
_NOTHING = Amount(calls=0, tokens=0, usd_nanos=0)
_SEPARATOR = "\n"  # scopes are `run` and `stage/<name>`, which contain none


class Ledger:
    """What a run has spent. Every method raises `sqlite3.Error` when the file fails: the caller then denies."""

    def __init__(self, path: Path, run: str) -> None:
        """Open or create the ledger of `run`; raise `CasemateError` (R017) for another run's, or a broken one."""
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO run VALUES (1, ?)", (run,))
            (owner,) = self._db.execute("SELECT name FROM run").fetchone()
        except sqlite3.Error as error:
            raise CasemateError("CSM-R017", f"ledger cannot be opened: {error}", place=str(path)) from error
        if owner != run:
            self._db.close()
            raise CasemateError("CSM-R017", "the ledger belongs to another run", place=str(path))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def reserve(self, amount: Amount, scopes: Mapping[str, Amount]) -> int:
        """Reserve `amount` in every scope, each with its ceiling; return the reservation's number.

        Raises `Refused` (P023), having written nothing, when one ceiling would be passed.
        """
        with _Transaction(self._db):
            for scope, most in scopes.items():
                spent = self._spent(scope)
                if (dimension := exceeded(spent, amount, most)) is not None:
                    raise _exhausted(scope, dimension, getattr(spent, dimension), getattr(most, dimension))
                self._write(scope, added(spent, amount))
            cursor = self._db.execute(
                "INSERT INTO reservation (scopes, calls, tokens, usd_nanos) VALUES (?, ?, ?, ?)",
                (_SEPARATOR.join(scopes), amount.calls, amount.tokens, amount.usd_nanos),
            )
            number = cursor.lastrowid
        if number is None:
            raise sqlite3.DatabaseError("no reservation number")
        return number

    def settle(self, number: int, actual: Amount) -> None:
        """Turn a reservation into a charge; raise `sqlite3.Error` if there is none of that number."""
        with _Transaction(self._db):
            row = self._db.execute(
                "DELETE FROM reservation WHERE id = ? RETURNING scopes, calls, tokens, usd_nanos", (number,)
            ).fetchone()
            if row is None:
                raise sqlite3.DatabaseError(f"no reservation {number}")
            reserved = Amount(calls=row[1], tokens=row[2], usd_nanos=row[3])
            for scope in row[0].split(_SEPARATOR):
                self._write(scope, replaced(self._spent(scope), reserved, actual))

    def spent(self, scope: str) -> Amount:
        """Return what a scope has spent, open reservations included."""
        return self._spent(scope)

    def _spent(self, scope: str) -> Amount:
        row = self._db.execute("SELECT calls, tokens, usd_nanos FROM spent WHERE scope = ?", (scope,)).fetchone()
        return _NOTHING if row is None else Amount(calls=row[0], tokens=row[1], usd_nanos=row[2])

    def _write(self, scope: str, amount: Amount) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?)", (scope, amount.calls, amount.tokens, amount.usd_nanos)
        )


class _Transaction:
    """`BEGIN IMMEDIATE`: the write lock is taken before the first read, so nobody reads what is about to change."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _exhausted(scope: str, dimension: str, spent: int, most: int) -> Refused:
    return Refused(
        "CSM-P023",
        f"{scope}: {dimension} {spent} of {most} are spent or reserved",
        hint=f"the ceiling {dimension} of {scope} is {most}; ask for less output, or stop here",
        more={"scope": scope, "ceiling": dimension, "spent": spent, "limit": most},
    )

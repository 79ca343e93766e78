"""A SQLite file of the project: rows and the key of their batch, in one transaction."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from policies.errors import CasemateError
from policies.plan import Output
from policies.sinks import At, Batch, Moment, kept
from policies.statements import CREATE, Statements

SCHEME = "sqlite:"
_BUSY_S = 30.0


class SqliteSink:
    """One table of one file, which must exist."""

    tells, repeats = True, False

    def __init__(self, root: Path, output: Output) -> None:
        self._path = root / output.target["url"].removeprefix(SCHEME)
        if not self._path.resolve().is_relative_to(root.resolve()):
            raise CasemateError("CSM-W010", f"{self._path.name} leads out of the project")
        self._name, self._sql = output.name, Statements(output, "?")

    def find(self, batch: Batch) -> str | None:
        """Return the receipt of a batch whose key is in the ledger."""
        with closing(self._open()) as database:
            found = database.execute(self._sql.find, (batch.key,)).fetchone()
        return self._sql.receipt(batch) if found else None

    def apply(self, batch: Batch, at: At) -> str:
        """Insert all rows and the key, or nothing."""
        with closing(self._open()) as database:
            try:
                database.execute("begin immediate")
                database.execute(self._sql.claim, (batch.key, self._name, batch.count))
                database.executemany(self._sql.write, self._sql.parameters(batch))
                at(Moment.SENT)
                database.execute("commit")
            except (sqlite3.Error, OverflowError) as error:
                raise CasemateError("CSM-W010", f"the database refused it: {type(error).__name__}") from error
        return self._sql.receipt(batch)

    def undo(self, batch: Batch, _receipt: str) -> None:
        """Delete the rows and the key, where every row is still as it was written."""
        self._sql.refuse_undo()
        with closing(self._open()) as database:
            database.execute("begin immediate")
            if database.execute(self._sql.forget, (batch.key,)).rowcount == 1:
                for row in self._sql.parameters(batch):
                    if database.execute(self._sql.remove, row).rowcount != 1:
                        raise kept("a row has been changed since")
                database.execute("commit")

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(f"file:{self._path}?mode=rw", uri=True, timeout=_BUSY_S, isolation_level=None)
            database.execute("pragma synchronous=full")
            database.execute(CREATE.replace("table", "table if not exists", 1))
        except sqlite3.Error as error:
            raise CasemateError("CSM-W010", f"{self._path.name} cannot be opened: {type(error).__name__}") from error
        return database

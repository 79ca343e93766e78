"""PostgreSQL: one transaction for a batch, with its key in a ledger table of the same database.

The client library speaks TCP only where it speaks TLS, so a loopback port of this container, which has no network, is
carried to the door that leads to the database. TLS is verified for the host that the plan names.
"""

from __future__ import annotations

from itertools import batched
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

from gateway.customs.sinks.port import carried
from policies.errors import CasemateError
from policies.plan import Output
from policies.sinks import At, Batch, Moment, kept
from policies.slices import SINK_STAGE
from policies.statements import CREATE, Statements

CONNECT_S, STATEMENT_MS = 30, 600_000
_ROWS = 500
_SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")


class PostgresSink:
    """One table."""

    tells, repeats = True, False

    def __init__(self, output: Output, secret: str | None, trust: list[str], root: Path) -> None:
        self._output, self._secret, self._trust, self._root = output, secret, trust, root
        self._sql = Statements(output, "%s")

    def find(self, batch: Batch) -> str | None:
        """Return the receipt of a batch whose key is in the ledger."""
        with _Connection(self) as connection:
            try:
                found = connection.execute(self._sql.find, (batch.key,)).fetchone()
            except psycopg.errors.UndefinedTable:
                return None
        return self._sql.receipt(batch) if found else None

    def apply(self, batch: Batch, at: At) -> str:
        """Insert all rows and the key, or nothing."""
        with _Connection(self) as connection:
            self._ledger(connection)
            try:
                connection.execute(self._sql.claim, (batch.key, self._output.name, batch.count))
                with connection.cursor() as cursor:
                    for part in batched(self._sql.parameters(batch), _ROWS, strict=False):
                        cursor.executemany(self._sql.write, part)
            except psycopg.Error as error:
                raise CasemateError("CSM-W010", f"the database refused it: {_why(error)}") from error
            at(Moment.SENT)
            try:
                connection.commit()
            except psycopg.Error as error:
                raise CasemateError("CSM-W020", f"the commit broke off: {_why(error)}") from error
        return self._sql.receipt(batch)

    def undo(self, batch: Batch, _receipt: str) -> None:
        """Delete the rows and the key, where every row is still as it was written."""
        self._sql.refuse_undo()
        with _Connection(self) as connection:
            if connection.execute(self._sql.forget, (batch.key,)).rowcount == 1:
                for row in self._sql.parameters(batch):
                    if connection.execute(self._sql.remove, row).rowcount != 1:
                        raise kept("a row has been changed since")
                connection.commit()

    def _ledger(self, connection: psycopg.Connection[Any]) -> None:
        try:
            connection.execute(self._sql.find, ("",))
        except psycopg.errors.UndefinedTable:
            connection.rollback()
            try:
                connection.execute(CREATE)
                connection.commit()
            except psycopg.Error as error:
                raise CasemateError("CSM-W010", f"its ledger table cannot be made: {_why(error)}") from error


class _Connection:
    """A connection as a context; what is not committed inside it is not there."""

    def __init__(self, sink: PostgresSink) -> None:
        url = urlsplit(sink._output.target["url"])
        self._words: dict[str, Any] = {
            "host": url.hostname or "",
            "dbname": unquote(url.path.lstrip("/")),
            "user": unquote(url.username or ""),
            "password": sink._secret or "",
        }
        self._door = sink._root / "doors" / SINK_STAGE / f"{url.port or 5432}.sock"
        self._trust = sink._trust

    def __enter__(self) -> psycopg.Connection[Any]:
        authorities = Path("/tmp/authorities.pem")  # noqa: S108 - a private file system of the container
        system = _SYSTEM.read_text() if _SYSTEM.exists() else ""
        authorities.write_text(system + "".join(self._trust))
        self._port = carried(self._door)
        number = self._port.__enter__()
        try:
            self._connection = psycopg.connect(
                **self._words,
                hostaddr="127.0.0.1",
                port=number,
                sslmode="verify-full",
                sslrootcert=str(authorities),
                gssencmode="disable",
                connect_timeout=CONNECT_S,
                options=f"-c statement_timeout={STATEMENT_MS}",
            )
        except psycopg.Error as error:
            self._port.__exit__(None, None, None)
            raise CasemateError("CSM-W010", f"the database does not let us in: {type(error).__name__}") from error
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._port.__exit__(None, None, None)


def _why(error: psycopg.Error) -> str:
    """Return the kind of an error: its message could quote a row."""
    return f"{type(error).__name__} {error.sqlstate or ''}".strip()

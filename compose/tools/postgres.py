"""`postgres.py --host HOST --database NAME --user ROLE`: one tool, `query`, in a transaction that cannot write.

It connects to a port of its own cell, which leads to HOST; who answers there must prove that it is HOST. The password
is in PGPASSWORD. What keeps data safe is that ROLE has no right to write; the rest is so that a mistake ends soon.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import psycopg
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

ROWS, BYTES, SECONDS = 200, 100_000, 5
SETTINGS = f"-c default_transaction_read_only=on -c statement_timeout={SECONDS}s -c lock_timeout=1s"

server = MCPServer("postgres")
where: dict[str, Any] = {}


@server.tool()
def query(sql: str) -> str:
    """Run one SQL statement that only reads. Returns JSON: columns, rows (at most 200), and whether there were more."""
    rows: list[list[Any]] = []
    more, size = False, 0
    try:
        with psycopg.connect(**where, options=SETTINGS, connect_timeout=SECONDS) as connection:
            connection.read_only = True
            with connection.cursor() as cursor:
                # Row by row, by the protocol in which a text is one statement.
                for row in cursor.stream(sql.encode()):
                    size += len(json.dumps(row, default=str))
                    if len(rows) == ROWS or size > BYTES:
                        more = True
                        break
                    rows.append(list(row))
                columns = [column.name for column in cursor.description or ()]
            connection.rollback()
    except psycopg.Error as error:
        raise ToolError(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from None
    return json.dumps({"columns": columns, "rows": rows, "more": more}, default=str, ensure_ascii=False)


def main() -> None:
    """Read where the database is, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--database", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--ca", default="system", help="authorities that the database is verified by")
    options = parser.parse_args()
    where.update(
        host=options.host,
        hostaddr="127.0.0.1",
        port=options.port,
        dbname=options.database,
        user=options.user,
        sslmode="verify-full",
        sslrootcert=options.ca,
    )
    server.run("stdio")


if __name__ == "__main__":
    main()

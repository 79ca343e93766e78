"""SQL of the sink `sql`: text from names of the plan alone; every value is a parameter. Pure; PostgreSQL and SQLite.

A ledger table in the same database has the key of each batch, in the batch's own transaction: so a batch is there with
its key, or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from policies.canonical import canonical
from policies.errors import CasemateError
from policies.plan import Output
from policies.sinks import Batch, kept

LEDGER = "casemate_writes"
CREATE = f"create table {LEDGER} (key text primary key, output text not null, row_count bigint not null)"
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]{0,62}"


class Statements:
    """The statements of one output. `mark` stands for a parameter."""

    def __init__(self, output: Output, mark: str) -> None:
        self.columns = sorted(output.schema.get("properties", {}))
        self._table = ".".join(map(_quoted, output.target["table"].split(".")))
        self._keys, self._mode = output.unique, output.target.get("mode", "insert")
        self._mark = mark
        self.find = f"select row_count from {LEDGER} where key = {mark}"  # noqa: S608 - a constant
        self.claim = f"insert into {LEDGER} (key, output, row_count) values ({mark}, {mark}, {mark})"  # noqa: S608
        self.forget = f"delete from {LEDGER} where key = {mark}"  # noqa: S608

    def receipt(self, batch: Batch) -> str:
        """Return the proof that the batch is there with its key."""
        return canonical({"key": batch.key, "rows": batch.count}).decode()

    def refuse_undo(self) -> None:
        """Raise CSM-W017 where what was written cannot be told from everything else."""
        if self._mode == "upsert" or not self._keys:
            raise kept("without `unique`, or with `mode: upsert`, its rows cannot be told from others")

    def parameters(self, batch: Batch) -> Iterator[Sequence[Any]]:
        """Yield the parameters of each row: what is absent is null, what has parts is JSON text."""
        with batch.rows.open("rb") as file:
            for line in file:
                row = json.loads(line)
                yield [_cell(row.get(column)) for column in self.columns]

    @property
    def write(self) -> str:
        """The statement for each row."""
        names = ", ".join(map(_quoted, self.columns))
        marks = ", ".join([self._mark] * len(self.columns))
        text = f"insert into {self._table} ({names}) values ({marks})"  # noqa: S608 - quoted names
        if self._mode != "upsert":
            return text
        keys = ", ".join(map(_quoted, self._keys))
        rest = [f"{_quoted(c)} = excluded.{_quoted(c)}" for c in self.columns if c not in self._keys]
        return f"{text} on conflict ({keys}) do " + (f"update set {', '.join(rest)}" if rest else "nothing")

    @property
    def remove(self) -> str:
        """The statement that takes back one row, if it is still as it was written."""
        same = " and ".join(f"{_quoted(column)} is not distinct from {self._mark}" for column in self.columns)
        return f"delete from {self._table} where {same}"  # noqa: S608 - quoted names


def _cell(value: object) -> object:
    return canonical(value).decode() if isinstance(value, list | dict) else value


def _quoted(name: str) -> str:
    if not re.fullmatch(IDENTIFIER, name):
        raise CasemateError("CSM-W010", f"{name[:80]!r} is no name of a table or column")
    return f'"{name}"'

"""How many rows of an output all runs of a workflow may write on this host in a day (UTC), and in any minute.

The host reserves what a run proposed before customs judges it, in one transaction with the check, and tells customs how
many rows that leaves. What was not accepted is given back; what a run that broke off had reserved stays taken, and is
its own when it is resumed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

from policies.plan import Output, Plan
from policies.writes import Declaration

TABLE = """
create table if not exists quotas (
  run text not null, name text not null, output text not null, at text not null, granted integer not null,
  rows integer not null,
  primary key (run, output)
) strict;
create index if not exists quotas_at on quotas (name, output, at);
"""
_TAKEN = "select coalesce(sum(rows), 0) from quotas where name = ? and output = ? and at > ?"


class Quotas:
    """What every run of a project has taken up of its outputs' quotas, in its journal."""

    def __init__(self, journal: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self._journal = journal

    def reserve(self, run: str, plan: Plan, wanted: Mapping[str, int], at: datetime | None = None) -> dict[str, int]:
        """Reserve as many of the `wanted` rows as are left, once; return how many, for outputs that have a quota."""
        now = at or datetime.now(UTC)
        limited = [o for o in plan.outputs if o.per_day is not None or o.per_minute is not None]
        with self._journal() as journal:
            # the write lock comes before the first read: nobody reads what is about to change
            journal.execute("begin immediate")
            return {o.name: _reserve(journal, run, plan.name, o, wanted.get(o.name, 0), now) for o in limited}

    def settle(self, run: str, taken: Mapping[str, int]) -> None:
        """Give back what was reserved and is not `taken`."""
        with self._journal() as journal:
            for output, rows in taken.items():
                query = "update quotas set rows = min(rows, ?) where run = ? and output = ?"
                journal.execute(query, (rows, run, output))


def facts(left: Mapping[str, int]) -> dict[str, str]:
    """Return the facts that tell customs how many rows are left."""
    return {f"quota/{output}": str(rows) for output, rows in left.items()}


def taken(declared: Declaration) -> dict[str, int]:
    """Return the rows that customs accepted, or left to a person, by output."""
    held = {item.output: item.rows for item in declared.held}
    return {output: rows + held.get(output, 0) for output, rows in declared.accepted.items()}


def _reserve(journal: sqlite3.Connection, run: str, name: str, output: Output, wanted: int, now: datetime) -> int:
    own = journal.execute("select granted from quotas where run = ? and output = ?", (run, output.name)).fetchone()
    if own is not None:
        return int(own[0])
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(microseconds=1)
    left = min(wanted, output.per_run)
    for most, since in ((output.per_day, midnight), (output.per_minute, now - timedelta(minutes=1))):
        if most is not None:
            (taken,) = journal.execute(_TAKEN, (name, output.name, _text(since))).fetchone()
            left = max(min(left, most - int(taken)), 0)
    journal.execute("insert into quotas values (?, ?, ?, ?, ?, ?)", (run, name, output.name, _text(now), left, left))
    return left


def _text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")

"""What a workflow may spend in a day, over all of its runs on this host (UTC, by the day on which a run starts).

The llm proxy of a run has no access to the host, so the host reserves the run's whole ceiling before anything starts,
in one transaction with the check, and settles it with what the run spent once the run has ended in order. What a run
that died or failed may have spent nobody knows for sure: its reservation stays spent for the day.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from policies.errors import CasemateError
from policies.plan import Plan
from policies.vocabulary import ExitCode
from sandbox.records.tally import Tally

TABLE = """
create table if not exists days (
  run text primary key, name text not null, day text not null, open integer not null,
  usd_nanos integer not null, tokens integer not null, calls integer not null
) strict;
"""
_DIMENSIONS = ("usd_nanos", "tokens", "calls")
Journal = Callable[[], AbstractContextManager[sqlite3.Connection]]


def today() -> str:
    """Return the day that a reservation counts for."""
    return datetime.now(UTC).date().isoformat()


class Days:
    """The reservations of every run of a project, in its journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def reserve(self, run: str, plan: Plan, day: str | None = None) -> None:
        """Reserve a run's ceiling, once; raise CSM-R024, having written nothing, where the day's would be passed."""
        limit, budget, day = plan.budget.per_day, plan.budget, day or today()
        if limit is None:
            return
        with self._journal() as journal:
            # the write lock comes before the first read: nobody reads what is about to change
            journal.execute("begin immediate")
            if journal.execute("select 1 from days where run = ?", (run,)).fetchone():
                return
            spent = self._spent(journal, plan.name, day)
            for name, before in zip(_DIMENSIONS, spent, strict=True):
                most, more = getattr(limit, name), getattr(budget, name)
                if most is not None and before + more > most:
                    raise CasemateError(
                        "CSM-R024",
                        f"{name}: {before} of {most} are spent or reserved on {day}, and this run may come to {more}",
                        hint="wait for the next day (UTC), or lower the run's ceiling",
                        exit_code=ExitCode.REFUSED,
                    )
            row = (run, plan.name, day, budget.usd_nanos, budget.tokens, budget.calls)
            journal.execute("insert into days values (?, ?, ?, 1, ?, ?, ?)", row)

    def settle(self, run: str, tally: Tally) -> None:
        """Turn a run's reservation into what it spent."""
        with self._journal() as journal:
            journal.execute(
                "update days set open = 0, usd_nanos = ?, tokens = ?, calls = ? where run = ? and open = 1",
                (tally.usd_nanos, tally.tokens, tally.calls, run),
            )

    def spent(self, name: str, day: str) -> tuple[int, int, int]:
        """Return nano-USD, tokens and calls of a workflow's day, open reservations included."""
        with self._journal() as journal:
            return self._spent(journal, name, day)

    @staticmethod
    def _spent(journal: sqlite3.Connection, name: str, day: str) -> tuple[int, int, int]:
        query = (
            "select coalesce(sum(usd_nanos), 0), coalesce(sum(tokens), 0), coalesce(sum(calls), 0) from days"
            " where name = ? and day = ?"
        )
        usd, tokens, calls = journal.execute(query, (name, day)).fetchone()
        return int(usd), int(tokens), int(calls)

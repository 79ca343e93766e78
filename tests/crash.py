"""`python -m tests.crash VERB WORKFLOW N before|after`: do something with a run, and die at a point of its journal.

`run` and `resume` die at the Nth transition; `approve` and `reject` at the Nth transaction that writes anything. It
dies by SIGKILL, so nothing can be caught. With N = 0 it lives, and prints the transitions, or how many transactions
there were.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sandbox.cli.base import load
from sandbox.durable.approval import review, waiting
from sandbox.durable.runner import decide, resume_run, run_plan
from sandbox.durable.signed import Person
from sandbox.engine.host import connect
from sandbox.records.store import Options, Store
from sandbox.records.writes import State


class Mortal(Store):
    """A store in which the orchestrator dies."""

    def __init__(self, home: Path, at: int, when: str) -> None:
        super().__init__(home)
        self._at, self._when, self._n = at, when, 0

    def transition(self, run: str, subject: str, state: str, detail: str | None = None) -> None:
        self._n += 1
        if (self._n, self._when) == (self._at, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().transition(run, subject, state, detail)
        if (self._n, self._when) == (self._at, "after"):
            os.kill(os.getpid(), signal.SIGKILL)


class Undecided(Store):
    """A store in which whoever decides dies."""

    def __init__(self, home: Path, at: int) -> None:
        super().__init__(home)
        self._at, self.n = at, 0

    @contextmanager
    def _journal(self) -> Iterator[sqlite3.Connection]:
        with super()._journal() as connection:
            before = connection.total_changes
            yield connection
            wrote = connection.total_changes > before
        self.n += wrote
        if wrote and self.n == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def decide_on(home: Path, at: int, *, approves: bool) -> None:
    """Decide on what waits of the latest run, as it is now."""
    store = Undecided(home, at)
    run = store.latest()
    begun = State.APPROVED if approves else State.REJECTED
    for write in waiting(store, run, begun=begun):
        seen = review(store.folder(run), store.plan(run), write).digest
        person, now = Person(account="tester"), datetime.now(UTC)
        words = {"approves": approves, "person": person, "reason": "looked at it", "now": now}
        decide(connect(), store, run, write, seen, **words)  # type: ignore[arg-type]
    print(store.n)


def main() -> None:
    """Drive, and perhaps die."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["run", "resume", "approve", "reject"])
    parser.add_argument("workflow", type=Path)
    parser.add_argument("at", type=int)
    parser.add_argument("when", choices=["before", "after"])
    asked = parser.parse_args()
    if asked.verb in ("approve", "reject"):
        decide_on(asked.workflow.parent / ".casemate", asked.at, approves=asked.verb == "approve")
        return
    store = Mortal(asked.workflow.parent / ".casemate", asked.at, asked.when)
    if asked.verb == "run":
        plan, root = load(asked.workflow)
        result = run_plan(connect(), plan, store, lambda _event, _tally: None, Options(root=str(root)))
    else:
        run = store.latest()
        result = resume_run(connect(), store.plan(run), store, run, lambda _event, _tally: None)
    for subject, state, _ in store.transitions(result.run):
        print(subject, state)
    raise SystemExit(int(result.exit_code))


if __name__ == "__main__":
    main()

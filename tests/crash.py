"""`python -m tests.crash run|resume …`: drive a run, and die at the Nth transition of its journal, before or after it.

It dies by SIGKILL, so nothing can be caught. With N = 0 it lives, and prints the transitions.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from sandbox.cli.base import load
from sandbox.host import connect
from sandbox.runner import resume_run, run_plan
from sandbox.store import Options, Store


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


def main() -> None:
    """Drive, and perhaps die."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["run", "resume"])
    parser.add_argument("workflow", type=Path)
    parser.add_argument("at", type=int)
    parser.add_argument("when", choices=["before", "after"])
    asked = parser.parse_args()
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

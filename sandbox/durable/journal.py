"""The journal of one run: each move is checked against the tables, and durable, before anybody acts on it."""

from __future__ import annotations

import msgspec

from policies.canonical import canonical
from policies.cells import in_order
from sandbox.durable.machine import RunMove, RunState, StageMove, StageState, after, stage_after
from sandbox.records.store import Store

RUN, LEG, STAGE = "run", "leg", "stage/"


class Journal:
    """Where a run and its cells stand. `sets` are the files of records of completed ones, by proposal.

    A leg is one set of trusted processes. While it is open, what they say may not all be in the event log.
    """

    def __init__(self, store: Store, run: str) -> None:
        """Read what was written so far."""
        self._store, self._run = store, run
        self.state = RunState.OPENED
        self.open_leg = False
        self._cells: dict[str, StageState] = {}
        self._sets: dict[str, dict[str, str]] = {}
        for subject, state, detail in store.transitions(run):
            if subject == RUN:
                self.state = RunState(state)
            elif subject == LEG:
                self.open_leg = state == "open"
            else:
                name = subject.removeprefix(STAGE)
                self._cells[name] = StageState(state)
                self._sets[name] = msgspec.json.decode(detail, type=dict[str, str]) if detail else {}

    @property
    def sets(self) -> dict[str, str]:
        """Digests of the files of records of all completed cells, by proposal."""
        return {proposal: digest for sets in self._sets.values() for proposal, digest in sets.items()}

    def of(self, cell: str) -> StageState:
        """Return where a stage, or a shard of one, stands."""
        return self._cells.get(cell, StageState.WAITING)

    def _in(self, state: StageState) -> list[str]:
        return in_order(cell for cell, now in self._cells.items() if now is state)

    @property
    def completed(self) -> list[str]:
        """The cells that completed."""
        return self._in(StageState.COMPLETED)

    @property
    def failed(self) -> list[str]:
        """The cells that ended, and did not complete."""
        return self._in(StageState.ENDED)

    @property
    def running(self) -> list[str]:
        """The cells that were begun, and did not end."""
        return self._in(StageState.RUNNING)

    def move(self, move: RunMove) -> None:
        """Move the run."""
        state = after(self.state, move)
        self._store.transition(self._run, RUN, state.value)
        self.state = state

    def leg(self, *, is_open: bool) -> None:
        """Begin a set of trusted processes, or say that the last word of each is in the log."""
        self._store.transition(self._run, LEG, "open" if is_open else "closed")
        self.open_leg = is_open

    def stage(self, name: str, move: StageMove, sets: dict[str, str] | None = None) -> None:
        """Move a stage, or a shard of one."""
        state = stage_after(self.of(name), move)
        detail = canonical(sets).decode() if sets else None
        self._store.transition(self._run, STAGE + name, state.value, detail)
        self._cells[name], self._sets[name] = state, sets or {}

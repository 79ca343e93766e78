"""The journal of one run: each move is checked against the tables, and durable, before anybody acts on it."""

from __future__ import annotations

import msgspec

from policies.canonical import canonical
from sandbox.durable.machine import RunMove, RunState, StageMove, StageState, after, stage_after
from sandbox.store import Store

RUN, LEG, STAGE = "run", "leg", "stage/"


class Journal:
    """Where a run and its stages stand. `sets` are the files of records of completed stages, by proposal.

    A leg is one set of trusted processes. While it is open, what they say may not all be in the event log.
    """

    def __init__(self, store: Store, run: str) -> None:
        """Read what was written so far."""
        self._store, self._run = store, run
        self.state = RunState.OPENED
        self.open_leg = False
        self._stages: dict[str, StageState] = {}
        self._sets: dict[str, dict[str, str]] = {}
        for subject, state, detail in store.transitions(run):
            if subject == RUN:
                self.state = RunState(state)
            elif subject == LEG:
                self.open_leg = state == "open"
            else:
                name = subject.removeprefix(STAGE)
                self._stages[name] = StageState(state)
                self._sets[name] = msgspec.json.decode(detail, type=dict[str, str]) if detail else {}

    @property
    def sets(self) -> dict[str, str]:
        """Digests of the files of records of all completed stages, by proposal."""
        return {proposal: digest for sets in self._sets.values() for proposal, digest in sets.items()}

    def of(self, stage: str) -> StageState:
        """Return where a stage stands."""
        return self._stages.get(stage, StageState.WAITING)

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
        """Move a stage."""
        state = stage_after(self.of(name), move)
        detail = canonical(sets).decode() if sets else None
        self._store.transition(self._run, STAGE + name, state.value, detail)
        self._stages[name], self._sets[name] = state, sets or {}

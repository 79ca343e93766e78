"""The state machine of a run, and of its stages and their shards, as tables. Pure.

A move that is not in a table does not exist. `RESUME` leads to where the work of a state can be begun anew: stages that
completed stay completed, what was running waits again, and what customs decided is applied as it was decided.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from policies.errors import CasemateError
from policies.plan import Retry
from policies.vocabulary import ExitCode, Outcome


class RunState(StrEnum):
    """Where a run stands."""

    OPENED = "opened"
    STARTING = "starting"
    RUNNING = "running"
    JUDGING = "judging"
    APPLYING = "applying"
    ENDED = "ended"


class RunMove(StrEnum):
    """What happens to a run."""

    START = "start"
    READY = "ready"
    RENEW = "renew"
    JUDGE = "judge"
    APPLY = "apply"
    RESUME = "resume"
    END = "end"
    CANCEL = "cancel"


class StageState(StrEnum):
    """Where a stage, or a shard of one, stands."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    ENDED = "ended"


class StageMove(StrEnum):
    """What happens to a stage, or to a shard of one."""

    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"
    RESUME = "resume"


RUN: Final[dict[tuple[RunState, RunMove], RunState]] = {
    (RunState.OPENED, RunMove.START): RunState.STARTING,
    (RunState.STARTING, RunMove.READY): RunState.RUNNING,
    # what is left goes on behind processes that never met an agent
    (RunState.RUNNING, RunMove.RENEW): RunState.STARTING,
    # every stage completed, its writes are kept, and no process that met an agent is left
    (RunState.RUNNING, RunMove.JUDGE): RunState.JUDGING,
    # nothing was left to run when it was resumed
    (RunState.STARTING, RunMove.JUDGE): RunState.JUDGING,
    (RunState.STARTING, RunMove.END): RunState.ENDED,
    # what customs decided is kept
    (RunState.JUDGING, RunMove.APPLY): RunState.APPLYING,
    (RunState.OPENED, RunMove.RESUME): RunState.STARTING,
    (RunState.STARTING, RunMove.RESUME): RunState.STARTING,
    (RunState.RUNNING, RunMove.RESUME): RunState.STARTING,
    (RunState.JUDGING, RunMove.RESUME): RunState.JUDGING,
    (RunState.APPLYING, RunMove.RESUME): RunState.APPLYING,
    (RunState.RUNNING, RunMove.END): RunState.ENDED,
    (RunState.JUDGING, RunMove.END): RunState.ENDED,
    (RunState.APPLYING, RunMove.END): RunState.ENDED,
    # what is being applied is applied: half of it would be worse than all or nothing
    (RunState.OPENED, RunMove.CANCEL): RunState.ENDED,
    (RunState.STARTING, RunMove.CANCEL): RunState.ENDED,
    (RunState.RUNNING, RunMove.CANCEL): RunState.ENDED,
    (RunState.JUDGING, RunMove.CANCEL): RunState.ENDED,
}

STAGE: Final[dict[tuple[StageState, StageMove], StageState]] = {
    (StageState.WAITING, StageMove.START): StageState.RUNNING,
    (StageState.RUNNING, StageMove.COMPLETE): StageState.COMPLETED,
    (StageState.RUNNING, StageMove.FAIL): StageState.ENDED,
    (StageState.RUNNING, StageMove.RESUME): StageState.WAITING,
    (StageState.ENDED, StageMove.RETRY): StageState.WAITING,
}


def after(state: RunState, move: RunMove) -> RunState:
    """Return where a run stands after a move; raise CSM-R026 for one that is not in the table."""
    try:
        return RUN[state, move]
    except KeyError:
        raise _refused("run", state, move) from None


def stage_after(state: StageState, move: StageMove) -> StageState:
    """Return where a stage stands after a move; raise CSM-R026 for one that is not in the table."""
    try:
        return STAGE[state, move]
    except KeyError:
        raise _refused("stage", state, move) from None


def may_retry(retry: Retry | None, outcome: Outcome, attempts: int) -> bool:
    """Whether a stage that ended so, after so many attempts, is tried again."""
    return retry is not None and outcome.value in retry.on and attempts < retry.attempts


def _refused(what: str, state: StrEnum, move: StrEnum) -> CasemateError:
    message = f"{move.value}: not in the state {state.value} of a {what}"
    return CasemateError("CSM-R026", message, exit_code=ExitCode.REFUSED)

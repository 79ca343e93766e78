"""How a run ended: from what customs declared, or from the error that ended it. Pure."""

from __future__ import annotations

from collections.abc import Collection

from policies.errors import CasemateError
from policies.vocabulary import ExitCode, Outcome
from policies.writes import Declaration
from sandbox.records.writes import State

_SETTLED = {State.APPLIED, State.APPROVED, State.REJECTED, State.UNDONE}


def verdict_of(declared: Declaration) -> tuple[Outcome, ExitCode]:
    """Return how a run ended of which customs declared this."""
    if declared.held:
        return Outcome.INCOMPLETE, ExitCode.WRITES_HELD
    if any(declared.rejected.values()) and not any(declared.accepted.values()):
        return Outcome.DENIED, ExitCode.WRITES_REJECTED
    return Outcome.COMPLETED, ExitCode.DONE


def decided_of(states: Collection[State]) -> tuple[Outcome, ExitCode]:
    """Return how a run ended after a person's decision, whose writes are so far."""
    if not set(states) <= _SETTLED:
        return Outcome.INCOMPLETE, ExitCode.WRITES_HELD
    if State.APPLIED in states:
        return Outcome.COMPLETED, ExitCode.DONE
    return Outcome.DENIED, ExitCode.WRITES_REJECTED


def outcome_of(error: CasemateError) -> Outcome:
    """Return how a run ended that an error ended."""
    match error.exit_code:
        case ExitCode.TIMED_OUT:
            return Outcome.TIMED_OUT
        case ExitCode.INTERRUPTED:
            return Outcome.CANCELLED
        case ExitCode.REFUSED:
            return Outcome.DENIED
        case ExitCode.WRITES_HELD:
            return Outcome.INCOMPLETE
        case _:
            return Outcome.FAILED

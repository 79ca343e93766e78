"""Whether a failed attempt is made again, and when. Pure: the clock and the dice are the caller's.

Threat: a provider in trouble gets a multiple of its load from everybody's retries. So there are few tries, waits that
spread (full jitter), and a budget: a stage may retry a tenth of its calls, and a handful to begin with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TRIES: Final = 3
"""Attempts at one model for one call."""

BASE_S: Final = 0.5
CAP_S: Final = 8.0
LONGEST_S: Final = 30.0
"""A provider that asks for a longer wait is not waited for."""

PATIENCE_S: Final = 2.0
"""What is waited at most where another model could be asked at once."""

AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that may be made again: nothing of it has reached the agent. `retry_after`: seconds, if told."""

    retry_after: int | None = None


def failure(status: int, retry_after: str | None) -> Failure | None:
    """Return what a status means for another attempt; None: it would fail the same way."""
    return Failure(None if retry_after is None else int(retry_after)) if status in AGAIN else None


def wait(failed: Failure, tries: int, draw: float) -> float | None:
    """Return the seconds to wait after `tries` attempts at a model, or None for no further one.

    `draw` is a random number in [0, 1). What the provider asks for is waited in full, and the jitter on top of it.
    """
    if tries >= TRIES or (failed.retry_after or 0) > LONGEST_S:
        return None
    jitter = draw * min(CAP_S, BASE_S * (1 << tries))
    return float(failed.retry_after or 0) + jitter


class RetryBudget:
    """A token bucket of a stage, in tenths of a retry: each call earns one tenth, each retry costs a whole."""

    START: Final = 30
    MOST: Final = 100

    def __init__(self) -> None:
        self._tenths = self.START

    def earn(self) -> None:
        """A call has come."""
        self._tenths = min(self.MOST, self._tenths + 1)

    def take(self) -> bool:
        """Take a retry, if there is one."""
        if self._tenths < 10:
            return False
        self._tenths -= 10
        return True

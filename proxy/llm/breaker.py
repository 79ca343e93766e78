"""A breaker for one provider and model: after many failures it is left alone, then one call may try. Time is given.

closed      every call may go on; `FAILURES` within `WINDOW_S` open it
open        none may, for `REST_S`, or as long as the provider asked for
half open   one may: if it is answered, closed; if it fails, open again
"""

from __future__ import annotations

from collections import deque
from typing import Final

FAILURES: Final = 5
WINDOW_S: Final = 30.0
REST_S: Final = 15.0
LONGEST_S: Final = 120.0


class Breaker:
    """The state of one provider and model. `now`: monotonic seconds."""

    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._until: float | None = None
        self._probing = False

    def rest(self, now: float) -> float:
        """Return how many seconds are left to rest; 0 where a call may go on."""
        if self._until is None:
            return 0.0
        if self._probing:
            return max(1.0, self._until - now)
        return max(0.0, self._until - now)

    def begin(self, now: float) -> None:
        """A call goes on now; where the rest is over, it is the one that tries."""
        self._probing = self._until is not None and now >= self._until

    def answered(self) -> None:
        """A call was answered: the provider is well."""
        self._failures.clear()
        self._until, self._probing = None, False

    def failed(self, now: float, retry_after: int | None = None) -> None:
        """A call failed in a way that says something about the provider."""
        self._failures.append(now)
        many = len(self._failures) == FAILURES and now - self._failures[0] <= WINDOW_S
        if many or self._probing:
            self._until = now + min(LONGEST_S, max(REST_S, retry_after or 0))
        self._probing = False

    def abandoned(self) -> None:
        """A call ended before anybody knew: whoever comes next may try."""
        self._probing = False

"""Rate limits of a stage: requests and tokens in any minute, and calls at once. In memory; what fails here denies.

Tokens count as the worst case from the moment a call begins, and as what they were from its end on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Final

from policies.plan import Rate
from proxy.llm.types import Refused

MINUTE_S: Final = 60.0


class Ticket:
    """A call that was let in: when (monotonic seconds), and the tokens that it counts for."""

    __slots__ = ("at", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at, self.tokens = at, tokens


class Limiter:
    """Lets calls in, or refuses them (P030) and says when to come again. `now` is a clock: monotonic seconds."""

    def __init__(self, rate: Rate | None, now: Callable[[], float]) -> None:
        self._rate, self._now = rate, now
        self._passed: deque[Ticket] = deque()
        self._inside = self._tokens = 0

    def enter(self, tokens: int) -> Ticket:
        """Let a call in that may come to `tokens`, or raise `Refused`; whoever is let in must `leave`."""
        ticket = Ticket(self._now(), tokens)
        if self._rate is not None:
            self._forget(ticket.at)
            self._check(self._rate, ticket)
            self._passed.append(ticket)
            self._tokens += tokens
        self._inside += 1
        return ticket

    def count(self, ticket: Ticket, tokens: int) -> None:
        """Say what a call came to in place of what it might have."""
        if self._rate is not None and ticket.at > self._now() - MINUTE_S:
            self._tokens += tokens - ticket.tokens
            ticket.tokens = tokens

    def leave(self) -> None:
        """A call has ended."""
        self._inside -= 1

    def _forget(self, now: float) -> None:
        while self._passed and self._passed[0].at <= now - MINUTE_S:
            self._tokens -= self._passed.popleft().tokens

    def _check(self, rate: Rate, ticket: Ticket) -> None:
        if rate.parallel is not None and self._inside >= rate.parallel:
            raise _over("parallel", rate.parallel, 1)
        if rate.requests is not None and len(self._passed) >= rate.requests:
            raise _over("requests", rate.requests, self._passed[-rate.requests].at + MINUTE_S - ticket.at)
        if rate.tokens is not None and self._tokens + ticket.tokens > rate.tokens:
            raise _over("tokens", rate.tokens, self._until_free(self._tokens + ticket.tokens - rate.tokens, ticket.at))

    def _until_free(self, tokens: int, now: float) -> float | None:
        """Return the seconds until enough calls are a minute ago; None where that never comes."""
        for passed in self._passed:
            tokens -= passed.tokens
            if tokens <= 0:
                return passed.at + MINUTE_S - now
        return None


def _over(kind: str, limit: int, seconds: float | None) -> Refused:
    if seconds is None:
        hint = f"one call may never come to over {limit} tokens here: ask for less output, or send less"
    else:
        hint = f"at most {limit} {'at once' if kind == 'parallel' else f'{kind} a minute'}; wait, then ask again"
    return Refused(
        "CSM-P030",
        f"over {limit} {kind}",
        hint=hint,
        status=429 if seconds is not None else 403,
        more={"ceiling": kind, "limit": limit},
        retry_after=None if seconds is None else str(max(1, ceil(seconds))),
    )

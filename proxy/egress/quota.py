"""What a stage may still move by a rule: requests, and bytes of both ways. Reserved before anything moves.

One process and one thread keep the count, so that connections at the same time never pass it together.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.plan import EgressRule
from proxy.egress.types import Refused


class Meter:
    """The count of one rule of one stage."""

    def __init__(self, rule: EgressRule) -> None:
        quota = rule.quota
        self._rule = rule
        self._requests = quota.requests if quota is not None else None
        self._bytes = quota.bytes if quota is not None else None

    def admit(self) -> None:
        """Count one request, or one opaque tunnel; raise `Refused` (P012) when there is none left."""
        if self._requests == 0 or self._bytes == 0:
            raise self._refused("requests" if self._requests == 0 else "bytes")
        if self._requests is not None:
            self._requests -= 1

    def take(self, size: int) -> None:
        """Reserve `size` bytes that are about to move; raise `Refused` (P012), whereupon none of them may."""
        if self._bytes is None:
            return
        if size > self._bytes:
            self._bytes = 0  # what does not fit ends it: nobody probes for the rest
            raise self._refused("bytes")
        self._bytes -= size

    def _refused(self, what: str) -> Refused:
        return Refused("CSM-P012", f"{self._rule.place} allows no more {what}", host=self._rule.host)


class Meters:
    """The meters of a stage."""

    def __init__(self, rules: Sequence[EgressRule]) -> None:
        self._meters = [(rule, Meter(rule)) for rule in rules]

    def of(self, rule: EgressRule) -> Meter:
        """Return the meter of a rule of the stage; rules that are alike share one."""
        return next(meter for known, meter in self._meters if known == rule)

"""What a run came to, from its log alone, and what many came to together. Pure.

cost per success   money of all runs, those that failed too, over the runs that completed
completion         runs that completed, over all that have ended
recovery           runs that completed after a stage was retried or the run resumed, over all that needed it
call multiplier    attempts at providers, over those that were answered
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.vocabulary import EventName, Outcome
from sandbox.plans.explain import money
from sandbox.records.log import RunEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one run, or of many. `shaken`: it was resumed, or a stage was retried."""

    runs: int = 0
    ended: int = 0
    completed: int = 0
    shaken: int = 0
    recovered: int = 0
    attempts: int = 0
    answered: int = 0
    usd_nanos: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    @property
    def usd_nanos_per_success(self) -> int | None:
        """Nano-USD a run that completed; None where none did."""
        return -(-self.usd_nanos // self.completed) if self.completed else None

    def in_words(self) -> str:
        """Return the same as a sentence for people."""
        cost = self.usd_nanos_per_success
        price = "no success" if cost is None else f"{money(cost)} a success"
        recovered = f"{self.recovered} of {self.shaken} recovered"
        calls = f"{self.attempts} attempts for {self.answered} answers"
        return f"{self.completed} of {self.ended} completed, {price}, {recovered}, {calls}"

    def as_json(self) -> dict[str, float | int | None]:
        """Return the numbers, and the ratios; null where there is nothing to divide by."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "usd_nanos_per_success": self.usd_nanos_per_success,
            "completion": _ratio(self.completed, self.ended),
            "recovery": _ratio(self.recovered, self.shaken),
            "call_multiplier": _ratio(self.attempts, self.answered),
        }


def figures(events: Iterable[RunEvent]) -> Figures:
    """Add up the log of one run."""
    outcome, shaken, attempts, answered, usd_nanos = None, False, 0, 0, 0
    for event in events:
        match event.event:
            case EventName.RUN_ENDED:
                outcome = event.attrs.get("casemate.outcome")
            case EventName.RUN_RESUMED | EventName.STAGE_RETRIED:
                shaken, outcome = True, None
            case EventName.LLM_SETTLED:
                cost = event.attrs.get("casemate.cost.usd_nanos")
                usd_nanos += cost if isinstance(cost, int) else 0
                asked = "casemate.cache" not in event.attrs and "casemate.replayed" not in event.attrs
                attempts += asked
                answered += asked and event.rule is None
            case _:
                pass
    completed = outcome == Outcome.COMPLETED.value
    return Figures(
        runs=1,
        ended=int(outcome is not None),
        completed=int(completed),
        shaken=int(shaken),
        recovered=int(completed and shaken),
        attempts=attempts,
        answered=answered,
        usd_nanos=usd_nanos,
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None

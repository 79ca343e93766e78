"""The tally of a run: what its events add up to. Pure; `run` feeds it live, `show` feeds it from the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from policies.cells import in_order, parted
from policies.vocabulary import EventName, Outcome, Verdict
from sandbox.records.log import RunEvent

RUNNING = "running"
_SUMS = ("attempts", "calls", "input_tokens", "output_tokens", "usd_nanos", "denials", "proposed", "refused", "seconds")


@dataclass(slots=True)
class StageTally:
    """Numbers of one stage, or of one of its cells. Money in nano-USD; `seconds` of wall time.

    `attempts` are those that ended; `shards` counts, of a stage that is in parts, how those ended that have.
    """

    attempts: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd_nanos: int = 0
    denials: int = 0
    proposed: int = 0
    refused: int = 0
    reported: str | None = None
    outcome: str | None = None
    seconds: float = 0.0
    shards: Counter[str] = field(default_factory=Counter)

    def join(self, shard: StageTally) -> None:
        """Add up the numbers of a shard. A stage whose shards have ended did so as the first that did not complete."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(shard, name))
        self.shards[shard.outcome or RUNNING] += 1
        others = [outcome for outcome in self.shards if outcome != Outcome.COMPLETED.value]
        self.outcome = None if RUNNING in others else next(iter(others), Outcome.COMPLETED.value)


@dataclass(slots=True)
class OutputTally:
    """Numbers of one output; `reasons` counts rejections by check."""

    accepted: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    path: str | None = None


@dataclass(slots=True)
class Tally:
    """A run in numbers."""

    cells: dict[str, StageTally] = field(default_factory=dict)
    outputs: dict[str, OutputTally] = field(default_factory=dict)
    teachers: Counter[str] = field(default_factory=Counter)
    events: int = 0

    def add(self, event: RunEvent) -> None:
        """Take one event into account."""
        self.events += 1
        attrs = event.attrs
        if event.event is EventName.WRITE_JUDGED and event.n == 0:
            self.outputs.clear()  # customs judges anew, after a crash
        if event.event in (EventName.WRITE_JUDGED, EventName.WRITE_APPLIED):
            self._write(event)
            return
        if event.cell is None:
            return
        stage = self.cells.setdefault(event.cell, StageTally())
        if event.verdict is Verdict.DENY and event.event is not EventName.WRITE_PROPOSED:
            stage.denials += 1
        match event.event:
            case EventName.STAGE_STARTED:
                # again, perhaps: what an earlier attempt said counts no more, what it cost does
                stage.proposed, stage.reported, stage.outcome = 0, None, None
            case EventName.LLM_SETTLED:
                paid = attrs.get("casemate.cache") == "paid"  # counted when it was paid
                # further attempts are of the same call
                stage.calls += _int(attrs.get("casemate.attempt", 1)) == 1 and not paid
                stage.input_tokens += _int(attrs.get("gen_ai.usage.input_tokens"))
                stage.output_tokens += _int(attrs.get("gen_ai.usage.output_tokens"))
                stage.usd_nanos += _int(attrs.get("casemate.cost.usd_nanos"))
                model = attrs.get("gen_ai.response.model")
                if isinstance(model, str):
                    self.teachers[model] += _int(attrs.get("gen_ai.usage.output_tokens"))
            case EventName.WRITE_PROPOSED:
                if event.verdict is Verdict.ALLOW:
                    stage.proposed += 1
                else:
                    stage.refused += 1
            case EventName.STAGE_REPORTED:
                stage.reported = event.rule
            case EventName.STAGE_ENDED:
                outcome = attrs.get("casemate.outcome")
                stage.outcome = outcome if isinstance(outcome, str) else None
                stage.attempts += 1
                stage.seconds = _int(attrs.get("casemate.duration_ms")) / 1000
            case _:
                pass

    def _write(self, event: RunEvent) -> None:
        name = event.attrs.get("casemate.output")
        if not isinstance(name, str):
            return
        output = self.outputs.setdefault(name, OutputTally())
        if event.event is EventName.WRITE_APPLIED:
            path = event.attrs.get("casemate.path")
            output.path = path if isinstance(path, str) else None
        elif "casemate.write.accepted" in event.attrs:
            output.accepted = _int(event.attrs["casemate.write.accepted"])
            output.rejected = _int(event.attrs.get("casemate.write.rejected"))
        else:
            check = event.attrs.get("casemate.check")
            count = _int(event.attrs.get("casemate.write.count")) or 1
            output.reasons[check if isinstance(check, str) else "unknown"] += count

    @property
    def stages(self) -> dict[str, StageTally]:
        """The numbers of each stage, over all of its cells."""
        found: dict[str, StageTally] = {}
        for cell in in_order(self.cells):
            name, shard = parted(cell)
            if shard is None:
                found[name] = self.cells[cell]
            else:
                found.setdefault(name, StageTally()).join(self.cells[cell])
        return found

    @property
    def usd_nanos(self) -> int:
        """Money spent by all stages."""
        return sum(stage.usd_nanos for stage in self.cells.values())

    @property
    def numbers(self) -> dict[str, int]:
        """What is kept of it in the journal."""
        return {"usd_nanos": self.usd_nanos, "tokens": self.tokens, "calls": self.calls, "events": self.events}

    @property
    def tokens(self) -> int:
        """Tokens in and out of all stages."""
        return sum(stage.input_tokens + stage.output_tokens for stage in self.cells.values())

    @property
    def calls(self) -> int:
        """LLM calls of all stages."""
        return sum(stage.calls for stage in self.cells.values())


def _int(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

"""The tally of a run: what its events add up to. Pure; `run` feeds it live, `show` feeds it from the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from policies.vocabulary import EventName, Verdict
from sandbox.log import RunEvent


@dataclass(slots=True)
class StageTally:
    """Numbers of one stage. Money in nano-USD; `seconds` of wall time."""

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

    stages: dict[str, StageTally] = field(default_factory=dict)
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
        if event.stage is None:
            return
        stage = self.stages.setdefault(event.stage, StageTally())
        if event.verdict is Verdict.DENY and event.event is not EventName.WRITE_PROPOSED:
            stage.denials += 1
        match event.event:
            case (
                EventName.STAGE_STARTED
            ):  # again, perhaps: what an earlier attempt said counts no more, what it cost does
                stage.proposed, stage.reported, stage.outcome = 0, None, None
                stage.attempts += 1
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
    def usd_nanos(self) -> int:
        """Money spent by all stages."""
        return sum(stage.usd_nanos for stage in self.stages.values())

    @property
    def tokens(self) -> int:
        """Tokens in and out of all stages."""
        return sum(stage.input_tokens + stage.output_tokens for stage in self.stages.values())

    @property
    def calls(self) -> int:
        """LLM calls of all stages."""
        return sum(stage.calls for stage in self.stages.values())


def _int(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

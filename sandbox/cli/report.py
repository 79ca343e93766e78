"""What people see of a run: lines while it goes, tables when it is over. Text from an agent is escaped before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from policies.plan import Plan, Stage
from policies.vocabulary import EventName, Outcome, Verdict
from sandbox.plans.explain import money
from sandbox.records.log import RunEvent
from sandbox.records.tally import StageTally, Tally

_QUIET = {EventName.LLM_DECIDED, EventName.EGRESS_DECIDED, EventName.EGRESS_CLOSED, EventName.COMPONENT_SYNCED}


class Progress:
    """Prints what happens: on a terminal one status line that moves, elsewhere a line for each thing worth one."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console, self._plan = console, plan
        self._status = console.status("starting") if console.is_terminal else None
        if self._status:
            self._status.start()

    def __call__(self, event: RunEvent, tally: Tally) -> None:
        """Take an event."""
        if self._status:
            self._status.update(self._line(tally))
        denied = event.verdict in (Verdict.DENY, Verdict.REJECT)
        if event.event in _QUIET and not denied:
            return
        if event.event in (EventName.LLM_SETTLED, EventName.WRITE_PROPOSED) and not denied:
            if not self._status and tally.calls and tally.calls % 10 == 0 and event.event is EventName.LLM_SETTLED:
                self._console.print(f"  {self._line(tally)}", highlight=False)
            return
        self._console.print(f"  {describe(event)}", highlight=False)

    def close(self) -> None:
        """Take the status line away."""
        if self._status:
            self._status.stop()

    def _line(self, tally: Tally) -> str:
        budget = self._plan.budget
        proposed = sum(cell.proposed for cell in tally.cells.values())
        denied = sum(cell.denials + cell.refused for cell in tally.cells.values())
        return (
            f"{tally.calls} calls · {tally.tokens:,} tokens · {money(tally.usd_nanos)} of {money(budget.usd_nanos)}"
            f" · {proposed} proposed · {denied} denied"
        )


def describe(event: RunEvent) -> str:
    """Return one event as one line, with markup; everything that came from outside is escaped."""
    colour = {Verdict.DENY: "red", Verdict.REJECT: "red", Verdict.ALLOW: "green", Verdict.ACCEPT: "green"}
    verdict = f"[{colour.get(event.verdict, 'yellow')}]{event.verdict.value}[/] " if event.verdict else ""
    where = f"{event.cell} · " if event.stage else ""
    actor = f"[cyan]{event.actor.value}[/] "
    known = {k: v for k, v in event.attrs.items() if v is not None}
    details = " ".join(f"{k.removeprefix('casemate.').removeprefix('gen_ai.')}={v}" for k, v in sorted(known.items()))
    why = " ".join(part for part in (event.rule, event.reason) if part)
    text = "  ".join(part for part in (why, details) if part)
    return f"[dim]{event.time[11:19]}[/] {actor}{where}[bold]{event.event.value}[/] {verdict}{escape(text[:300])}"


def tables(tally: Tally, plan: Plan) -> Iterator[Table]:
    """Yield the tables that end a run."""
    stages = Table(title="stages", title_justify="left")
    for column in (
        "stage",
        "outcome",
        "calls",
        "tokens in",
        "tokens out",
        "cost",
        "ceiling",
        "denied",
        "proposed",
        "time",
    ):
        stages.add_column(column, justify="left" if column in ("stage", "outcome") else "right")
    found = tally.stages
    for stage in plan.stages:
        t = found.get(stage.name)
        if t is None or _outcome(stage, t) is None:
            stages.add_row(stage.name, _progress(stage, t), *[""] * 8)
            continue
        counts = (str(t.calls), f"{t.input_tokens:,}", f"{t.output_tokens:,}", money(t.usd_nanos))
        rest = (money(stage.limits.usd_nanos), str(t.denials), str(t.proposed), f"{t.seconds:.1f} s")
        stages.add_row(stage.name, _progress(stage, t), *counts, *rest)
    stages.add_section()
    total = ("", str(tally.calls), "", f"{tally.tokens:,}", money(tally.usd_nanos), money(plan.budget.usd_nanos))
    stages.add_row("run", *total, "", "", "")
    yield stages
    if tally.outputs:
        outputs = Table(title="writes", title_justify="left")
        for column in ("output", "accepted", "rejected", "why", "where"):
            outputs.add_column(column, justify="right" if column in ("accepted", "rejected") else "left")
        for name, out in sorted(tally.outputs.items()):
            why = ", ".join(f"{check} {count}" for check, count in out.reasons.most_common())
            outputs.add_row(name, str(out.accepted), str(out.rejected), escape(why), out.path or "nothing applied")
        yield outputs


def _outcome(stage: Stage, numbers: StageTally) -> str | None:
    """Return how a stage ended; None when it has not, or not all of its shards."""
    parts = sum(numbers.shards.values())
    whole = stage.shards is None or parts == stage.shards.count or numbers.outcome not in (None, "completed")
    return numbers.outcome if whole else None


def _progress(stage: Stage, numbers: StageTally | None) -> str:
    outcome = (_outcome(stage, numbers) if numbers else None) or "not ended"
    if stage.shards is None:
        return outcome
    done = numbers.shards[Outcome.COMPLETED.value] if numbers else 0
    return f"{outcome}, {done} of {stage.shards.count} shards"


def summary(tally: Tally, plan: Plan) -> dict[str, Any]:
    """Return the same numbers for programs."""
    stages, found = {stage.name: stage for stage in plan.stages}, tally.stages
    return {
        "usd_nanos": tally.usd_nanos,
        "ceiling_usd_nanos": plan.budget.usd_nanos,
        "tokens": tally.tokens,
        "calls": tally.calls,
        "teachers": dict(tally.teachers),
        "stages": {
            name: {
                "outcome": _outcome(stages[name], t),
                **({"shards": dict(t.shards)} if t.shards else {}),
                "calls": t.calls,
                "input_tokens": t.input_tokens,
                "output_tokens": t.output_tokens,
                "usd_nanos": t.usd_nanos,
                "denials": t.denials,
                "proposed": t.proposed,
                "refused": t.refused,
                "seconds": t.seconds,
            }
            for name, t in found.items()
        },
        "outputs": {
            name: {"accepted": o.accepted, "rejected": o.rejected, "reasons": dict(o.reasons), "path": o.path}
            for name, o in tally.outputs.items()
        },
    }

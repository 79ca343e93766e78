"""Verbs that run a plan, and that look at what came of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from policies.vocabulary import EventName, ExitCode, Verdict
from sandbox.cli.base import as_json_option, console, either_argument, fail, load, run_argument, say, say_json, store

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.plan import Plan
    from sandbox.cells.driver import OnEvent
    from sandbox.durable.job import RunResult
    from sandbox.records.store import Store


@click.command()
@either_argument
@click.option("--dry-run", is_flag=True, help="Everything but applying.")
@click.option("--record", is_flag=True, help="Keep every call of a model, redacted, to replay it.")
@click.option("--replay", metavar="RUN", help="Answer calls of models from a recorded run: no keys, no network.")
@as_json_option
def run(workflow: Path, dry_run: bool, record: bool, replay: str | None, as_json: bool) -> int:
    """Run a workflow: sealed cells, watched doors, validated writes."""
    from sandbox.durable.runner import run_plan
    from sandbox.engine.host import connect
    from sandbox.plans.enforce import refuse_unenforced
    from sandbox.plans.lock import refuse_widened
    from sandbox.records.store import Options

    if record and replay is not None:
        raise click.UsageError("--record and --replay exclude each other")
    plan, root = load(workflow)
    refuse_unenforced(plan)
    refuse_widened(plan, root)
    options = Options(root=str(root.resolve()), dry=dry_run, record=record, replay=replay)
    return _tell(plan, lambda seen: run_plan(connect(), plan, store(root), seen, options), as_json=as_json)


def _tell(plan: Plan, go: Callable[[OnEvent], RunResult], *, as_json: bool) -> int:
    from sandbox.cli.report import Progress, summary, tables

    progress = Progress(console(stderr=True), plan)
    try:
        result = go(progress)
    finally:
        progress.close()
    if as_json:
        say_json({"run": result.run, "outcome": result.outcome.value, **summary(result.tally, plan)})
    else:
        for table in tables(result.tally, plan):
            console().print(table)
        say(f"run {result.run}: {result.outcome.value}")
    if result.error:
        fail(result.error)
    return result.exit_code


@click.command()
@run_argument
@as_json_option
def resume(run: str, as_json: bool) -> int:
    """Go on with a run that crashed or was stopped. What completed is not run again, what was paid not paid again."""
    from sandbox.durable.runner import resume_run
    from sandbox.engine.host import connect
    from sandbox.plans.lock import refuse_widened

    home, run = find(run)
    plan = home.plan(run)
    refuse_widened(plan, Path(home.options(run).root))
    return _tell(plan, lambda seen: resume_run(connect(), plan, home, run, seen), as_json=as_json)


@click.command()
@run_argument
def cancel(run: str) -> int:
    """End a run for good, in order; nothing of it is applied. One whose writes are being applied is not cancelled."""
    from sandbox.durable.runner import ask_to_cancel, cancel_run
    from sandbox.engine.host import connect

    home, run = find(run)
    if ask_to_cancel(home, run):
        say(f"run {run} is told to end")
    else:
        cancel_run(connect(), home.plan(run), home, run)
        say(f"run {run} is cancelled")
    return ExitCode.DONE


@click.command()
@as_json_option
def runs(as_json: bool) -> int:
    """List runs, newest first."""
    rows = store().runs()
    if as_json:
        say_json(rows)
        return ExitCode.DONE
    for row in rows:
        code = "" if row["exit_code"] is None else f" (exit {row['exit_code']})"
        say(f"{row['run']}  {row['name']}  {row['outcome']}{code}")
    return ExitCode.DONE


@click.command()
@run_argument
@as_json_option
def show(run: str, as_json: bool) -> int:
    """Show one run: outcome, cost against ceiling, verdicts with reasons."""
    from sandbox.cli.report import describe, summary, tables
    from sandbox.durable.figures import figures
    from sandbox.records.log import read_events
    from sandbox.records.tally import Tally

    home, run = find(run)
    plan, tally = home.plan(run), Tally()
    rejected = []
    events = list(read_events(home.folder(run)))
    for event in events:
        tally.add(event)
        if event.event is EventName.WRITE_JUDGED and event.verdict is Verdict.REJECT:
            rejected.append(event)
    row: dict[str, Any] = next(r for r in home.runs(limit=100_000) if r["run"] == run)
    if as_json:
        say_json({**row, "numbers": summary(tally, plan), "figures": figures(events).as_json()})
        return ExitCode.DONE
    for table in tables(tally, plan):
        console().print(table)
    for event in rejected[:50]:
        console().print("  " + describe(event))
    say(f"run {run}: {row['outcome']}; {figures(events).in_words()}")
    if row["summary"] and row["summary"]["error"]:
        say(row["summary"]["error"])
    return ExitCode.DONE


@click.command()
@as_json_option
def stats(as_json: bool) -> int:
    """Say what the runs of each workflow came to, from their logs: cost a success, completion, recovery, calls."""
    from sandbox.durable.figures import Figures, figures
    from sandbox.records.log import read_events

    home = store()
    names: dict[str, Figures] = {}
    for row in home.runs(limit=100_000):
        names[row["name"]] = names.get(row["name"], Figures()) + figures(read_events(home.folder(row["run"])))
    if as_json:
        say_json({name: found.as_json() for name, found in sorted(names.items())})
        return ExitCode.DONE
    for name, found in sorted(names.items()):
        say(f"{name}: {found.in_words()}")
    return ExitCode.DONE


@click.command()
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--stage", help="Only this stage, or this shard of one: `generate.3`.")
@click.option("--denied", is_flag=True, help="Only what was denied or rejected.")
@as_json_option
def logs(run: str, follow: bool, stage: str | None, denied: bool, as_json: bool) -> int:
    """Print the events of a run."""
    from sandbox.cli.report import describe
    from sandbox.records.log import read_events
    from sandbox.records.store import as_json as plain
    from sandbox.records.store import is_driven

    home, run = find(run)
    seen = 0
    while True:
        live = is_driven(home.folder(run))
        for event in read_events(home.folder(run)):
            if event.seq < seen:
                continue
            seen = event.seq + 1
            if stage not in (None, event.stage, event.cell) or (
                denied and event.verdict not in (Verdict.DENY, Verdict.REJECT)
            ):
                continue
            if as_json:
                say(json.dumps(plain(event)))
            else:
                console().print(describe(event))
        if not (follow and live):
            return ExitCode.DONE
        sys.stdout.flush()
        time.sleep(0.5)


@click.group()
def log() -> None:
    """The event log of a run."""


@log.command()
@run_argument
def verify(run: str) -> int:
    """Verify a run's log offline: every line, the chain, the head, and signatures of approvers. Exit 4 if one fails."""
    from sandbox.durable.signed import check_applied
    from sandbox.records.log import read_events
    from sandbox.records.log import verify as verify_log

    home, run = find(run)
    count = verify_log(home.folder(run))
    check_applied(read_events(home.folder(run)), home.plan(run).outputs)
    say(f"run {run}: {count} events, chain and head hold")
    return ExitCode.DONE


def find(run: str) -> tuple[Store, str]:
    home = store()
    run = home.latest() if run == "latest" else run
    home.folder(run)
    return home, run


COMMANDS: tuple[click.Command, ...] = (run, resume, cancel, runs, show, stats, logs, log)

"""Verbs about the writes of a run: apply what was accepted, decide what nobody knows, take back what was applied."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from policies.vocabulary import ExitCode
from sandbox.cli.base import as_json_option, run_argument, say, say_json
from sandbox.cli.runs import find
from sandbox.records.store import Store
from sandbox.sinks.applying import Applier

_SECONDS = 3600


@click.command()
@run_argument
@click.option("--retry", multiple=True, metavar="OUTPUT", help="Write this one again, of which nobody knows.")
@click.option("--done", multiple=True, metavar="OUTPUT", help="This one was written: somebody has looked.")
@as_json_option
def apply(run: str, retry: tuple[str, ...], done: tuple[str, ...], as_json: bool) -> int:
    """Apply what a run accepted and has not applied: after a crash, or after a dry run. Nothing is applied twice."""
    with _applier(run) as (home, run, applier):
        for names, is_done in ((retry, False), (done, True)):
            for name in names:
                applier.decide(name, done=is_done)
        try:
            applier.apply()
        finally:
            _tell(home, run, as_json=as_json)
    return ExitCode.DONE


@click.command()
@run_argument
@as_json_option
def undo(run: str, as_json: bool) -> int:
    """Take back what a run applied, where its sinks can."""
    with _applier(run) as (home, run, applier):
        try:
            applier.undo()
        finally:
            _tell(home, run, as_json=as_json)
    return ExitCode.DONE


@contextmanager
def _applier(run: str) -> Iterator[tuple[Store, str, Applier]]:
    from policies.slices import seal
    from sandbox.cells.driver import Driver
    from sandbox.engine.host import connect
    from sandbox.records.log import RunLog
    from sandbox.sinks.outside import reached

    home, run = find(run)
    plan = home.plan(run)
    with home.taken_up(run) as folder:
        log = RunLog(folder, run, seal(plan).plan, goes_on=True)
        driver = Driver(connect(), folder, log, lambda _event, _tally: None, time.monotonic() + _SECONDS)
        try:
            yield home, run, Applier(home, run, plan, driver.note, reached(driver, plan, folder))
        finally:
            log.close()


def _tell(home: Store, run: str, *, as_json: bool) -> None:
    writes = home.writes.of(run)
    if as_json:
        say_json([{"output": w.output, "rows": w.rows, "state": w.state.value, "receipt": w.receipt} for w in writes])
        return
    for write in writes:
        say(f"{write.output}: {write.rows} rows {write.state.value}")
    if not writes:
        say(f"run {run} has accepted nothing")


COMMANDS: tuple[click.Command, ...] = (apply, undo)

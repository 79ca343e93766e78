"""Salvage: what a run that nobody drives any more left in the engine, taken in before it is swept.

Its containers may still run. Agents are ended first; then the trusted processes are told to end, and what they said
that never reached the log is appended to it from what the engine kept, in their numbering, without a gap. With it comes
what was paid for: the recording.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from policies.errors import CasemateError
from policies.events import ComponentEvent
from policies.vocabulary import Component, ExitCode
from sandbox.cells import volumes
from sandbox.durable.journal import Journal
from sandbox.durable.machine import RunState
from sandbox.engine.docker import Engine
from sandbox.engine.sweep import sweep_run
from sandbox.records.log import RunLog, parse_component_event
from sandbox.records.store import Store
from sandbox.topology.layout import DOORS
from sandbox.topology.specs import LABEL_ROLE

GRACE_S = 15.0


def salvage(
    engine: Engine, store: Store, run: str, log: RunLog, append: Callable[[ComponentEvent], object]
) -> list[str]:
    """Take in and sweep what is left of `run`, whose lock the caller holds; return what could not be removed.

    `append` puts an event into `log`.

    Raises CSM-R027 when trusted processes that met an agent are gone with what they had to say: then nobody knows what
    the run has spent and done.
    """
    journal = Journal(store, run)
    if journal.open_leg:
        _end(engine, run)
        for event in _unheard(engine, run, log, met_agents=journal.state is RunState.RUNNING):
            append(event)
        with contextlib.suppress(CasemateError):
            volumes.take_recording(engine, f"casemate-{run}-carrier", store.folder(run))
        log.checkpoint()
        journal.leg(is_open=False)
    return sweep_run(engine, run)


def salvage_orphan(engine: Engine, home: Path, run: str) -> list[str]:
    """Take in and sweep what is left of a run of whatever project; return what could not be removed.

    Where its record cannot be gone on with, there is nothing to keep for: it is only swept.
    """
    try:
        store = Store(home)
        with store.taken_up(run, wait_s=0) as folder:
            log = RunLog(folder, run, store.digest(run), goes_on=True)
            try:
                return salvage(engine, store, run, log, log.append)
            finally:
                log.close()
    except CasemateError as error:
        if error.code == "CSM-R029":
            return []
        return sweep_run(engine, run)


def _end(engine: Engine, run: str) -> None:
    for thing in engine.labelled(run):
        if thing.get(LABEL_ROLE) == "agent":
            engine.kill(thing["name"])
    names = [_name(run, component) for component in DOORS.values()]
    for name in names:
        engine.kill(name, "SIGTERM")
    until = time.monotonic() + GRACE_S
    while any(engine.is_running(name) for name in names) and time.monotonic() < until:
        time.sleep(0.05)
    for name in names:
        engine.kill(name)


def _unheard(engine: Engine, run: str, log: RunLog, *, met_agents: bool) -> Iterator[ComponentEvent]:
    for component in DOORS.values():
        try:
            said = engine.logs(_name(run, component), stderr=False)
        except CasemateError as error:
            if not met_agents:
                continue
            hint = "start a new run; what this one was answered is in its folder"
            message = f"what {component.value} had to say is lost"
            raise CasemateError("CSM-R027", message, hint=hint, exit_code=ExitCode.REFUSED) from error
        yield from _after_last(said, component, log)


def _after_last(said: bytes, component: Component, log: RunLog) -> list[ComponentEvent]:
    """Return the events after the last that is in the log; all of them, when that was an earlier process's."""
    events = [parse_component_event(line, component) for line in said.split(b"\n")[:-1]]
    last = log.last(component)
    for position, event in enumerate(events):
        if last is not None and (event.n, event.time) == (last.n, last.time):
            return events[position + 1 :]
    if events:
        log.begin(component)
    return events


def _name(run: str, component: Component) -> str:
    return f"casemate-{run}-{component.value}"

"""Sweep: remove what a run left in the engine, by label, and only when nobody drives that run."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from sandbox.engine import pool
from sandbox.engine.docker import Engine
from sandbox.records.store import is_driven
from sandbox.topology.layout import LABEL_HOME, LABEL_HOST, LABEL_POOL, LABEL_RUN
from sandbox.topology.specs import LABEL_ROLE

TakeIn = Callable[[Engine, Path, str], list[str]]


def sweep_run(engine: Engine, run: str) -> list[str]:
    """Remove every container and volume of a run; return the names of what could not be removed."""
    things = engine.labelled(run)
    taken = {thing[LABEL_POOL] for thing in engine.pooled() if thing["name"].startswith(f"casemate-{run}-")}
    taken |= {thing[LABEL_POOL] for thing in things if LABEL_POOL in thing}
    # before the run's own: by these, what it took from the pool is found
    things = [thing for name in sorted(taken) for thing in engine.pooled(name)] + things
    # containers first: a volume in use cannot go; agents first: no agent outlives what watches it
    order = {"agent": 0}
    things.sort(key=lambda thing: (thing["kind"] != "container", order.get(thing.get(LABEL_ROLE, ""), 1)))
    return [thing["name"] for thing in things if not engine.remove(thing["kind"], thing["name"])]


def sweep_orphans(engine: Engine, take_in: TakeIn) -> tuple[list[str], list[str]]:
    """Remove what crashed runs of this host left; return the runs swept, and names that could not be removed.

    `take_in` keeps what a run needs to be resumed, and sweeps it.

    A run is an orphan when nobody holds its lock. Runs that other hosts started on the same engine are left alone.
    """
    runs: dict[str, Path] = {}
    for thing in engine.labelled():
        home = Path(thing.get(LABEL_HOME, ""))
        if thing.get(LABEL_HOST) == socket.gethostname() and not is_driven(home / "runs" / thing[LABEL_RUN]):
            runs[thing[LABEL_RUN]] = home
    left = [name for run, home in sorted(runs.items()) for name in take_in(engine, home, run)]
    halfway = {thing[LABEL_POOL] for thing in engine.pooled() if thing["name"].startswith(pool.DRAINED)}
    left += [name for member in sorted(halfway) for name in pool.remove(engine, member)]
    return sorted(runs), left

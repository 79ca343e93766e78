"""Sweep: remove what a run left in the engine, by label, and only when nobody drives that run."""

from __future__ import annotations

import socket
from pathlib import Path

from sandbox import pool
from sandbox.engine import Engine
from sandbox.specs import LABEL_ROLE
from sandbox.store import is_driven
from sandbox.topology import LABEL_HOME, LABEL_HOST, LABEL_POOL, LABEL_RUN


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


def sweep_orphans(engine: Engine) -> tuple[list[str], list[str]]:
    """Remove what crashed runs of this host left; return the runs swept, and names that could not be removed.

    A run is an orphan when nobody holds its lock. Runs that other hosts started on the same engine are left alone.
    """
    runs: set[str] = set()
    for thing in engine.labelled():
        folder = Path(thing.get(LABEL_HOME, "")) / "runs" / thing[LABEL_RUN]
        if thing.get(LABEL_HOST) == socket.gethostname() and not is_driven(folder):
            runs.add(thing[LABEL_RUN])
    left = [name for run in sorted(runs) for name in sweep_run(engine, run)]
    halfway = {thing[LABEL_POOL] for thing in engine.pooled() if thing["name"].startswith(pool.DRAINED)}
    left += [name for member in sorted(halfway) for name in pool.remove(engine, member)]
    return sorted(runs), left

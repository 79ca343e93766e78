"""What everybody who works on a run has at hand."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policies.plan import Plan, encode
from policies.slices import Birth, Seal, slices
from policies.vocabulary import Component
from sandbox.cells.driver import Driver
from sandbox.durable.journal import Journal
from sandbox.engine.docker import Engine
from sandbox.records.log import RunLog
from sandbox.records.store import Options, Store
from sandbox.topology.layout import Topology, topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a run needs besides its plan: values of secrets and contents of inputs by name, and another's recording."""

    secrets: dict[str, str]
    inputs: dict[str, bytes]
    replay: dict[str, bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One run whose lock is held: what is to be done, by what means, and where it is written down."""

    engine: Engine
    plan: Plan
    store: Store
    run: str
    seal: Seal
    options: Options
    means: Means
    driver: Driver
    log: RunLog
    journal: Journal

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.store.folder(self.run)

    def layout(self, cells: Sequence[str], pooled: str | None = None) -> Topology:
        """Lay out the containers of the run, with some of its cells."""
        home, replays = str(self.store.home), self.means.replay is not None
        host = socket.gethostname()
        return topology(self.plan, self.run, home=home, host=host, cells=cells, replays=replays, pooled=pooled)

    def birth(self, component: Component, secrets: dict[str, str], facts: dict[str, str]) -> Birth:
        """Return what a trusted process is told."""
        part = encode(slices(self.plan)[component]).decode()
        return Birth(run=self.run, seal=self.seal, slice=part, secrets=secrets, facts=facts)

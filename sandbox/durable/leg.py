"""A leg of a run: one set of trusted processes, and the cells that they serve, from their start to their end.

Firewall, llm proxy and gateway are used once: who is told of what a run has spent and proposed is told at its birth. So
a run has a leg, and another one when a crash, a retry, or the number of its cells wants new processes. A leg serves
the cells of one stage after another; of a stage in shards several at once, each with doors, buffer and recording of its
own.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property

from policies.canonical import digest
from policies.cells import FACT
from policies.errors import CasemateError
from policies.plan import Stage
from policies.slices import Birth
from policies.vocabulary import Component, EventName, Outcome
from sandbox.cells import authorities, volumes
from sandbox.cells.cell import Session
from sandbox.cells.supplies import Supplies, inputs_of
from sandbox.durable.ahead import is_over
from sandbox.durable.machine import RunMove, RunState, StageMove, StageState
from sandbox.durable.salvage import salvage
from sandbox.durable.setting import Setting
from sandbox.engine import pool
from sandbox.engine.docker import Engine, Exit
from sandbox.engine.sweep import sweep_run
from sandbox.secrets import held_by
from sandbox.topology.layout import Cell
from sandbox.topology.tool_cells import trusting

END_S = 15.0


class Leg:
    """Serves some `cells`, by stage in the order of needs."""

    def __init__(self, setting: Setting, cells: Mapping[str, Sequence[str]]) -> None:
        self._setting, self._cells = setting, cells
        self._names = [name for names in cells.values() for name in names]
        self._stages = {stage.name: stage for stage in setting.plan.stages}
        self._lay = setting.layout(self._names)
        self._pooled: dict[Component, str] = {}
        self._running: dict[str, tuple[str, Session]] = {}
        self._open = ExitStack()

    def run(self) -> None:
        """Serve them. What did not complete is in the journal; what follows it has not begun.

        Raises `CasemateError` when a trusted part fails; `abandon` is called then.
        """
        self._start()
        for stage, cells in self._cells.items():
            self._serve(self._stages[stage], deque(cells))
            if any(self._setting.journal.of(cell) is not StageState.COMPLETED for cell in cells):
                break
        self._stop()

    def abandon(self) -> None:
        """End everything after a failure, agents first; keep what was said, proposed and paid. Nothing is applied."""
        setting = self._setting
        for agent in self._running:
            setting.engine.kill(agent)
        for cell, _ in self._running.values():
            with contextlib.suppress(CasemateError):
                volumes.take_buffer(setting.engine, self._lay.carrier.name, cell, setting.folder)
        with contextlib.suppress(Exception):  # servers of tools are ended as far as they can be
            self._open.close()
        # what stays untold ends the run for good: the leg stays open, and its containers are gone
        with contextlib.suppress(CasemateError):
            salvage(setting.engine, setting.store, setting.run, setting.log, setting.driver.take)

    # ---- cells

    def _serve(self, stage: Stage, waiting: deque[str]) -> None:
        """Serve the cells of a stage, as many at once as the plan and the host allow, until one ends it."""
        setting, is_wanted = self._setting, True
        most = stage.shards.parallel if stage.shards is not None else 1
        most = min(most, bearable(setting.engine, self._lay.cells[waiting[0]])) if most > 1 else 1
        while self._running or (waiting and is_wanted):
            while waiting and is_wanted and len(self._running) < most:
                self._begin(stage, waiting.popleft())
            if not self._running:
                break
            deadlines = {agent: session.deadline if is_wanted else 0 for agent, (_, session) in self._running.items()}
            agent, how = setting.driver.await_first(deadlines)
            cell = self._end(agent, how, wanted=is_wanted or how is not None)
            if setting.journal.of(cell) is StageState.ENDED:
                is_wanted = is_wanted and is_over(setting.plan, cell, setting.driver.tally) is None

    def _begin(self, stage: Stage, name: str) -> None:
        setting, cell = self._setting, self._lay.cells[name]
        setting.journal.stage(name, StageMove.START)
        inputs = inputs_of(setting.plan, name, setting.means.inputs)
        secrets = setting.means.secrets
        supplies = Supplies(
            inputs=inputs,
            authorities=self._authorities if trusting(setting.plan, stage) else {},
            secrets={tool.secret: secrets[tool.secret] for tool in cell.tools if tool.secret is not None},
            part=self._part(stage, inputs),
        )
        outputs = {output.name: output for output in setting.plan.outputs}
        session = Session(setting.driver, name, stage, cell, supplies, setting.folder, outputs)
        self._running[session.agent] = name, session
        self._open.callback(session.leave)
        session.begin()

    def _end(self, agent: str, how: Exit | None, *, wanted: bool) -> str:
        setting, (name, session) = self._setting, self._running[agent]
        trusted = {component: spec.name for component, spec in self._lay.trusted.items()}
        end = session.end(how, trusted, wanted=wanted)
        volumes.take_buffer(setting.engine, self._lay.carrier.name, name, setting.folder)
        setting.log.checkpoint()
        if end.outcome is Outcome.COMPLETED:
            setting.journal.stage(name, StageMove.COMPLETE, dict(end.sets))
        else:
            setting.journal.stage(name, StageMove.FAIL)
        del self._running[agent]
        return name

    def _part(self, stage: Stage, inputs: Mapping[str, bytes]) -> str | None:
        if stage.shards is None:
            return None
        spread = next(item for item in self._setting.plan.inputs if item.name == stage.shards.over)
        return digest(inputs[spread.target])

    @cached_property
    def _authorities(self) -> dict[str, bytes]:
        setting, firewall = self._setting, self._lay.trusted[Component.FIREWALL].name
        return authorities.collected(setting.engine, firewall, setting.plan, setting.driver.certificate)

    # ---- trusted processes

    def _start(self) -> None:
        setting = self._setting
        engine, journal, driver, replay = setting.engine, setting.journal, setting.driver, setting.means.replay
        if journal.state is RunState.OPENED:
            journal.move(RunMove.START)
            driver.note(EventName.RUN_STARTED, attrs={"casemate.digest": setting.seal.plan})
        elif journal.state is RunState.RUNNING:
            journal.move(RunMove.RENEW)
        driver.renew()
        journal.leg(is_open=True)
        # A volume of its own comes first: by its label the run is found, whatever happens, and with it what it took.
        own = next(volume for volume in self._lay.volumes if volume.name.endswith("customs-in"))
        engine.create_volume(own)
        if replay is None:
            member = pool.claim(engine, setting.plan, self._names, setting.run, own.labels)
            if member is not None:
                self._pooled = pool.slots(setting.plan, self._names)
                self._lay = setting.layout(self._names, member)
        recording = replay if replay is not None else volumes.recorded(setting.folder)
        mine = {f"{name}.jsonl" for name in self._names}
        wanted = {name: content for name, content in recording.items() if name in mine}
        volumes.carry(engine, self._lay, volumes.to_read_again(wanted))
        for spec in self._lay.models.values():
            driver.launch(spec)
        for component, spec in reversed([*self._lay.trusted.items()]):  # who takes longest begins first
            start = driver.adopt if self._pooled else driver.launch
            start(spec, component, self._birth(component))
        driver.await_ready([s.name for s in (*self._lay.models.values(), *self._lay.trusted.values())])
        journal.move(RunMove.READY)

    def _birth(self, component: Component) -> Birth:
        setting = self._setting
        replays, account = setting.means.replay is not None, setting.driver.account
        secrets = held_by(setting.plan, setting.means.secrets, component.value)
        facts = {FACT: " ".join(self._names)}
        match component:
            case Component.LLM:
                secrets = {} if replays else secrets
                facts |= {"recording": "read" if replays else "write", **account.spent()}
            case Component.GATEWAY:
                facts |= account.used(setting.journal.completed)
            case _:
                pass
        if component in self._pooled:
            facts["doors"] = self._pooled[component]
        return setting.birth(component, secrets, facts)

    def _stop(self) -> None:
        """End every process that faced an agent, take in the last that it has to say, and leave nothing."""
        setting, specs = self._setting, [*self._lay.trusted.values(), *self._lay.models.values()]
        for spec in specs:
            setting.driver.release(spec.name)
            setting.engine.kill(spec.name, "SIGTERM")
        until = time.monotonic() + END_S
        for spec in specs:
            if setting.driver.await_end(spec.name, until) is None:
                setting.engine.kill(spec.name)
        if setting.options.record:
            volumes.take_recording(setting.engine, self._lay.carrier.name, setting.folder)
        setting.log.checkpoint()
        setting.journal.leg(is_open=False)
        sweep_run(setting.engine, setting.run)


def bearable(engine: Engine, cell: Cell) -> int:
    """Return how many such cells the host has memory for, leaving a quarter of it to everybody else; at least one."""
    each = cell.agent.memory + sum(tool.tool.memory for tool in cell.tools)
    return max(1, int(engine.info()["MemTotal"]) * 3 // 4 // each)

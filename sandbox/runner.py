"""The runner: one run from plan to applied writes, or to an explicit failure with nothing applied.

1. read inputs and secrets; refuse before anything starts
2. start firewall, llm proxy, gateway and local models; wait until each says that it is ready
3. stage by stage, in the order of their needs: a cell, an agent, an outcome
4. when no agent is left, stop everything that faced one
5. customs judges; what it accepted is put in place
6. nothing is left behind but the run's folder
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import FrameType

from policies.errors import CasemateError
from policies.plan import Plan, encode
from policies.slices import Birth, Seal, seal, slices
from policies.vocabulary import Component, EventName, ExitCode, Outcome, Verdict
from sandbox import apply, applying, authorities, pool
from sandbox.anchors import told
from sandbox.archives import tar_of
from sandbox.cell import StageEnd, run_stage
from sandbox.driver import Driver, OnEvent
from sandbox.engine import Engine
from sandbox.log import RunLog
from sandbox.resolve import policies_digest
from sandbox.secrets import held_by, read_secrets
from sandbox.store import Store
from sandbox.supplies import Supplies, read_inputs
from sandbox.sweep import sweep_run
from sandbox.tally import Tally
from sandbox.tool_cells import trusting
from sandbox.topology import Topology, topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Whether the calls of models are to be recorded, or the recording (by file) that answers them."""

    record: bool = False
    replay: Mapping[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended, and where its record lies."""

    run: str
    folder: Path
    outcome: Outcome
    exit_code: ExitCode
    tally: Tally
    error: CasemateError | None


def run_plan(
    engine: Engine,
    plan: Plan,
    root: Path,
    store: Store,
    on_event: OnEvent,
    memory: Memory | None = None,
    *,
    dry: bool = False,
) -> RunResult:
    """Run `plan`, whose files lie in `root`. Never raises for what happens in the run: the result says it."""
    memory = memory or Memory()
    for image in plan.images:
        if engine.image_id(image.digest) is None:
            hint = "build the images and compile again"
            raise CasemateError(
                "CSM-R016", f"{image.name} is not what the plan pins", hint=hint, exit_code=ExitCode.REFUSED
            )
    if plan.source.policies != policies_digest():
        message = "the rules for secrets or the seccomp profile are not those that were compiled"
        raise CasemateError("CSM-R013", message, hint="compile again", exit_code=ExitCode.REFUSED)
    inputs = read_inputs(plan, root)
    secrets = read_secrets(plan, root, without="llm" if memory.replay is not None else None)
    proof = seal(plan)
    with store.new(plan, proof.plan) as (run, folder):
        log = RunLog(folder, run, proof.plan)
        driver = Driver(engine, folder, log, on_event, time.monotonic() + plan.budget.wall_s)
        job = _Job(engine, plan, root, store, driver, run, folder, proof, secrets, inputs, memory, dry)
        with _signals(driver.watch.interrupt):
            return job.drive()


class _Job:
    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        root: Path,
        store: Store,
        driver: Driver,
        run: str,
        folder: Path,
        proof: Seal,
        secrets: dict[str, str],
        inputs: dict[str, bytes],
        memory: Memory,
        dry: bool,
    ) -> None:
        self.engine, self.plan, self.root, self.store, self.driver = engine, plan, root, store, driver
        self.run, self.folder, self.seal, self.secrets, self.inputs, self.dry = run, folder, proof, secrets, inputs, dry
        self.memory = memory
        self.pooled: dict[Component, str] = {}
        self.lay = self._lay()

    def _lay(self, pooled: str | None = None) -> Topology:
        home, replays = str(self.store.home), self.memory.replay is not None
        return topology(self.plan, self.run, home=home, host=socket.gethostname(), replays=replays, pooled=pooled)

    def drive(self) -> RunResult:
        """All of it; whatever happens, the run gets an outcome and leaves no container behind."""
        error: CasemateError | None = None
        try:
            outcome, code = self._steps()
        except CasemateError as failure:
            error = failure
            outcome, code = _outcome_of(failure), failure.exit_code
        except Exception as failure:  # noqa: BLE001 - the run fails closed, and says so
            error = CasemateError("CSM-R019", f"{type(failure).__name__}: {failure}", exit_code=ExitCode.INTERNAL)
            outcome, code = Outcome.FAILED, ExitCode.INTERNAL
        finally:
            if error is not None:
                self._abandon()
            sweep_run(self.engine, self.run)
        tally = self.driver.tally
        if error is None:  # every event has come; what a run that broke off has spent is not known for sure
            self.store.days.settle(self.run, tally)
        self.driver.note(
            EventName.RUN_ENDED,
            verdict=Verdict.ALLOW if outcome is Outcome.COMPLETED else Verdict.DENY,
            rule=error.code if error else None,
            reason=error.message if error else None,
            attrs={"casemate.outcome": outcome.value, "casemate.exit_code": int(code)},
        )
        self.driver.log.close()
        summary = {"usd_nanos": tally.usd_nanos, "tokens": tally.tokens, "calls": tally.calls, "events": tally.events}
        self.store.end(self.run, outcome, code, {**summary, "error": error.render() if error else None})
        return RunResult(self.run, self.folder, outcome, code, tally, error)

    def _steps(self) -> tuple[Outcome, ExitCode]:
        self._mark("run", "starting")
        if self.memory.replay is None:  # a replay spends nothing
            self.store.days.reserve(self.run, self.plan)
        self.driver.note(EventName.RUN_STARTED, attrs={"casemate.digest": self.seal.plan})
        self._start()
        ends = self._stages()
        self._stop()
        if self.memory.record:
            apply.take_recording(self.driver, self.lay.carrier.name, self.folder)
        buffers = apply.take_buffers(self.driver, self.lay.carrier.name, self.folder)
        bad = next((end for end in ends.values() if end.outcome is not Outcome.COMPLETED), None)
        if bad is not None or len(ends) < len(self.plan.stages):
            timed_out = bad is not None and bad.outcome is Outcome.TIMED_OUT
            return bad.outcome if bad else Outcome.FAILED, ExitCode.TIMED_OUT if timed_out else ExitCode.STAGE_FAILED
        sets = {name: digest for end in ends.values() for name, digest in end.sets.items()}
        return self._apply(buffers, sets)

    def _start(self) -> None:
        self._mark("run", "trusted")
        # A volume of its own comes first: by its label the run is found, whatever happens, and with it what it took.
        own = next(volume for volume in self.lay.volumes if volume.name.endswith("customs-in"))
        self.engine.create_volume(own)
        if (
            self.memory.replay is None
            and (member := pool.claim(self.engine, self.plan, self.run, own.labels)) is not None
        ):
            self.pooled = pool.slots(self.plan)
            self.lay = self._lay(member)
        for volume in self.lay.volumes:
            if volume != own:
                self.engine.create_volume(volume)
        self.engine.create(self.lay.carrier)
        self.engine.put(self.lay.carrier.name, "/", apply.own_archive())
        if self.memory.replay is not None:
            self.engine.put(self.lay.carrier.name, "/recording", tar_of(dict(self.memory.replay)))
        for spec in self.lay.models.values():
            self.driver.launch(spec)
        for component, spec in self.lay.trusted.items():
            start = self.driver.adopt if self.pooled else self.driver.launch
            start(spec, component, self._birth(component))
        self.driver.await_ready([s.name for s in (*self.lay.models.values(), *self.lay.trusted.values())])

    def _stages(self) -> dict[str, StageEnd]:
        """Run stages in the order of their needs; stop at the first that does not complete."""
        stages = {stage.name: stage for stage in self.plan.stages}
        order = TopologicalSorter({name: stage.needs for name, stage in stages.items()}).static_order()
        trusted = {component: spec.name for component, spec in self.lay.trusted.items()}
        outputs = {output.name: output for output in self.plan.outputs}
        ends: dict[str, StageEnd] = {}
        for name in order:
            stage = stages[name]
            self._mark(name, "running")
            inputs = {i.target: self.inputs[i.name] for i in self.plan.inputs if i.name in stage.inputs}
            cell = self.lay.cells[name]
            supplies = Supplies(
                inputs=inputs,
                authorities=self._authorities() if trusting(self.plan, stage) else {},
                secrets={tool.secret: self.secrets[tool.secret] for tool in cell.tools if tool.secret is not None},
            )
            ends[name] = run_stage(self.driver, stage, cell, supplies, self.folder, trusted, outputs)
            self._mark(name, ends[name].outcome.value, ends[name].reason)
            self.driver.log.checkpoint()
            if ends[name].outcome is not Outcome.COMPLETED:
                break
        return ends

    @cache  # noqa: B019 - one job a run
    def _authorities(self) -> dict[str, bytes]:
        return authorities.collected(
            self.engine, self.lay.trusted[Component.FIREWALL].name, self.plan, self.driver.certificate
        )

    def _stop(self) -> None:
        """End every process that faced an agent, and take in the last that it has to say."""
        specs = [*self.lay.trusted.values(), *self.lay.models.values()]
        for spec in specs:
            self.driver.release(spec.name)
            self.engine.kill(spec.name, "SIGTERM")
        until = time.monotonic() + 15
        for spec in specs:
            if self.driver.await_end(spec.name, until) is None:
                self.engine.kill(spec.name)

    def _abandon(self) -> None:
        """End everything after a failure, agents first, and keep what was proposed and logged. Nothing is applied."""
        for cell in self.lay.cells.values():
            self.engine.kill(cell.agent.name)
        for spec in self.lay.trusted.values():
            self.engine.kill(spec.name, "SIGTERM")
        for spec in (
            *self.lay.models.values(),
            *(r for cell in self.lay.cells.values() for r in cell.relays),
            self.lay.customs,
        ):
            self.engine.kill(spec.name)
        self.driver.wind_down(grace_s=10)
        with contextlib.suppress(CasemateError):
            if self.memory.record:
                apply.take_recording(self.driver, self.lay.carrier.name, self.folder)
        with contextlib.suppress(CasemateError):
            apply.take_buffers(self.driver, self.lay.carrier.name, self.folder)

    def _apply(self, buffers: dict[str, bytes], sets: dict[str, str]) -> tuple[Outcome, ExitCode]:
        if not self.plan.outputs:
            return Outcome.COMPLETED, ExitCode.DONE
        self._mark("customs", "judging")
        birth = self._birth(Component.CUSTOMS)
        verdicts = apply.judge(self.driver, self.plan, birth, self.lay, buffers, sets, self.folder)
        applying.enter(self.store, self.run, self.root, verdicts.written)
        if not self.dry:
            self._mark("customs", "applying")
            applying.Applier(self.store, self.run, self.plan, self.driver.note).apply()
        self._mark("customs", "done")
        everything_rejected = any(verdicts.rejected.values()) and not any(verdicts.accepted.values())
        if everything_rejected:
            return Outcome.DENIED, ExitCode.WRITES_REJECTED
        return Outcome.COMPLETED, ExitCode.DONE

    def _birth(self, component: Component) -> Birth:
        part = encode(slices(self.plan)[component]).decode()
        # customs gets every value, not to use it but to find it in what the agents wrote
        facts: dict[str, str] = {}
        replays = self.memory.replay is not None
        if component is Component.CUSTOMS:
            held = self.secrets
            facts = told(self.store.candidates.of(self.plan.name))
        elif component is Component.LLM and replays:
            held = {}
        else:
            held = held_by(self.plan, self.secrets, component.value)
        if component is Component.LLM and (replays or self.memory.record):
            facts = {"recording": "read" if replays else "write"}
        if component in self.pooled:
            facts["doors"] = self.pooled[component]
        return Birth(run=self.run, seal=self.seal, slice=part, secrets=held, facts=facts)

    def _mark(self, subject: str, state: str, detail: str | None = None) -> None:
        self.store.transition(self.run, subject, state, detail)


def _outcome_of(error: CasemateError) -> Outcome:
    match error.exit_code:
        case ExitCode.TIMED_OUT:
            return Outcome.TIMED_OUT
        case ExitCode.INTERRUPTED:
            return Outcome.CANCELLED
        case ExitCode.REFUSED:
            return Outcome.DENIED
        case ExitCode.WRITES_HELD:
            return Outcome.INCOMPLETE
        case _:
            return Outcome.FAILED


@contextmanager
def _signals(interrupt: Callable[[int], None]) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into the orderly end of the run."""

    def handler(number: int, _frame: FrameType | None) -> None:
        interrupt(number)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

"""The job: one run, from wherever it stands to its end.

1. start firewall, llm proxy, gateway and local models; wait until each says that it is ready
2. stage by stage, in the order of their needs: a cell, an agent, an outcome; what completed is never run again
3. when no agent is left, stop everything that faced one
4. customs judges; what it accepted is applied
5. nothing is left behind but the run's folder

Each step is a move of the machine, and is in the journal before it is made.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import msgspec

from policies.canonical import canonical
from policies.errors import CasemateError
from policies.plan import Plan, Stage, encode
from policies.slices import Birth, Seal, slices
from policies.vocabulary import Component, EventName, ExitCode, Outcome, Verdict
from policies.writes import Declaration, Written
from sandbox import apply, applying, authorities, pool
from sandbox.anchors import told
from sandbox.archives import lines_of, tar_of, write_durably
from sandbox.cell import run_stage
from sandbox.driver import Driver
from sandbox.durable.journal import Journal
from sandbox.durable.locks import folder as locks_folder
from sandbox.durable.locks import held
from sandbox.durable.machine import RUN, RunMove, RunState, StageMove, StageState, may_retry
from sandbox.durable.outcome import outcome_of, verdict_of
from sandbox.durable.quotas import facts as facts_of
from sandbox.durable.quotas import taken
from sandbox.durable.salvage import salvage
from sandbox.engine import Engine
from sandbox.log import RunLog
from sandbox.secrets import held_by
from sandbox.sets import FOLDER
from sandbox.sink_run import reached
from sandbox.specs import DOORS_GID, UIDS
from sandbox.store import Options, Store
from sandbox.supplies import Supplies
from sandbox.sweep import sweep_run
from sandbox.tally import Tally
from sandbox.tool_cells import trusting
from sandbox.topology import Topology, topology
from sandbox.writes import State, Write

POLL_S = 0.2
CANCEL = "cancel"
"""A file of this name in a run's folder: it is to end, and not to be resumed."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended, and where its record lies."""

    run: str
    folder: Path
    outcome: Outcome
    exit_code: ExitCode
    tally: Tally
    error: CasemateError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a run needs besides its plan: values of secrets and contents of inputs by name, and another's recording."""

    secrets: dict[str, str]
    inputs: dict[str, bytes]
    replay: dict[str, bytes] | None


class Job:
    """Drives a run whose lock the caller holds."""

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        store: Store,
        run: str,
        seal: Seal,
        options: Options,
        means: Means,
        driver: Driver,
        log: RunLog,
    ) -> None:
        self._engine, self._plan, self._store, self._run, self._seal = engine, plan, store, run, seal
        self._options, self._means, self._driver, self._log = options, means, driver, log
        self._folder = store.folder(run)
        self._journal = Journal(store, run)
        self._stages = {stage.name: stage for stage in plan.stages}
        self._pooled: dict[Component, str] = {}
        self._carried = self._up = False
        self._approved: dict[str, str] = {}
        self._lay = self._layout()

    def _layout(self, pooled: str | None = None) -> Topology:
        home, replays = str(self._store.home), self._means.replay is not None
        return topology(self._plan, self._run, home=home, host=socket.gethostname(), replays=replays, pooled=pooled)

    def drive(self) -> RunResult:
        """All of it; whatever happens, the run gets an outcome, and no container is left behind."""
        error: CasemateError | None = None
        names = [name for stage in self._plan.stages for name in stage.locks]
        try:
            with held(names, locks_folder(), lambda: self._driver.step(time.monotonic() + POLL_S)):
                outcome, code = self._steps()
        except CasemateError as failure:
            error, outcome, code = failure, outcome_of(failure), failure.exit_code
        except Exception as failure:  # noqa: BLE001 - the run fails closed, and says so
            error = CasemateError("CSM-R019", f"{type(failure).__name__}: {failure}", exit_code=ExitCode.INTERNAL)
            outcome, code = Outcome.FAILED, ExitCode.INTERNAL
        finally:
            if error is not None:
                self._abandon()
            sweep_run(self._engine, self._run)
        return self._end(outcome, code, error)

    def _steps(self) -> tuple[Outcome, ExitCode]:
        if self._means.replay is None:  # a replay spends nothing
            self._store.days.reserve(self._run, self._plan)
        if self._journal.state in (RunState.OPENED, RunState.STARTING):
            outcome = self._work()
            if outcome is not Outcome.COMPLETED:
                timed_out = outcome is Outcome.TIMED_OUT
                return outcome, ExitCode.TIMED_OUT if timed_out else ExitCode.STAGE_FAILED
            if not self._plan.outputs:
                return Outcome.COMPLETED, ExitCode.DONE
            self._journal.move(RunMove.JUDGE)
        if self._journal.state is RunState.JUDGING:
            declared = self._judge()
            if self._options.dry:
                return verdict_of(declared)
            self._journal.move(RunMove.APPLY)
        self._apply()
        return verdict_of(apply.judged(self._folder))

    # ---- stages

    def _work(self) -> Outcome:
        """Run what is left to run; return `COMPLETED`, or the outcome of the first stage that is not tried again."""
        order = TopologicalSorter({name: stage.needs for name, stage in self._stages.items()}).static_order()
        for name in order:
            while self._journal.of(name) is not StageState.COMPLETED:
                if self._journal.of(name) is StageState.WAITING:
                    self._start()
                    self._run_stage(self._stages[name])
                    continue
                tally = self._driver.tally.stages[name]
                outcome = Outcome(tally.outcome or Outcome.FAILED.value)
                if not may_retry(self._stages[name].retry, outcome, tally.attempts):
                    self._stop()
                    return outcome
                self._retry(name, outcome)
        self._stop()
        return Outcome.COMPLETED

    def _run_stage(self, stage: Stage) -> None:
        self._journal.stage(stage.name, StageMove.START)
        names = {item.name: item.target for item in self._plan.inputs if item.name in stage.inputs}
        cell = self._lay.cells[stage.name]
        secrets = self._means.secrets
        supplies = Supplies(
            inputs={target: self._means.inputs[name] for name, target in names.items()},
            authorities=self._authorities() if trusting(self._plan, stage) else {},
            secrets={tool.secret: secrets[tool.secret] for tool in cell.tools if tool.secret is not None},
        )
        trusted = {component: spec.name for component, spec in self._lay.trusted.items()}
        outputs = {output.name: output for output in self._plan.outputs}
        end = run_stage(self._driver, stage, cell, supplies, self._folder, trusted, outputs)
        apply.take_buffer(self._engine, self._lay.carrier.name, stage.name, self._folder)
        self._log.checkpoint()
        if end.outcome is Outcome.COMPLETED:
            self._journal.stage(stage.name, StageMove.COMPLETE, dict(end.sets))
        else:
            self._journal.stage(stage.name, StageMove.FAIL)

    def _retry(self, name: str, outcome: Outcome) -> None:
        """Make everything new that met the stage, and drop what it left."""
        self._stop()
        sweep_run(self._engine, self._run)
        self._driver.renew()
        self._carried, self._lay, self._pooled = False, self._layout(), {}
        attempt = self._driver.tally.stages[name].attempts
        recording = self._folder / apply.RECORDING / f"{name}.jsonl"
        if recording.exists():
            recording.replace(recording.with_name(f"{name}.failed-{attempt}.jsonl"))
        shutil.rmtree(self._folder / "artifacts" / name, ignore_errors=True)
        dropped = len(self._driver.account.proposed.get(name, ()))
        attrs = {"casemate.outcome": outcome.value, "casemate.attempt": attempt, "casemate.write.count": dropped}
        self._driver.note(EventName.STAGE_RETRIED, stage=name, reason="its outputs are dropped", attrs=attrs)
        if self._journal.state is RunState.RUNNING:
            self._journal.move(RunMove.RETRY)
        self._journal.stage(name, StageMove.RETRY)

    # ---- trusted processes

    def _start(self) -> None:
        """Start every trusted process, unless they run."""
        if self._up:
            return
        if self._journal.state is RunState.OPENED:
            self._journal.move(RunMove.START)
            self._driver.note(EventName.RUN_STARTED, attrs={"casemate.digest": self._seal.plan})
        self._journal.leg(is_open=True)
        replay = self._means.replay
        # A volume of its own comes first: by its label the run is found, whatever happens, and with it what it took.
        own = next(volume for volume in self._lay.volumes if volume.name.endswith("customs-in"))
        self._engine.create_volume(own)
        if replay is None and (member := pool.claim(self._engine, self._plan, self._run, own.labels)) is not None:
            self._pooled = pool.slots(self._plan)
            self._lay = self._layout(member)
        self._carry()
        recording = replay if replay is not None else apply.recorded(self._folder)
        archive = tar_of(recording, uid=UIDS["llm"], gid=DOORS_GID, mode=0o640)
        self._engine.put(self._lay.carrier.name, "/recording", archive)
        for spec in self._lay.models.values():
            self._driver.launch(spec)
        for component, spec in self._lay.trusted.items():
            start = self._driver.adopt if self._pooled else self._driver.launch
            start(spec, component, self._birth(component))
        self._driver.await_ready([s.name for s in (*self._lay.models.values(), *self._lay.trusted.values())])
        self._up = True
        self._journal.move(RunMove.READY)

    def _carry(self) -> None:
        """Make the run's volumes, and the carrier by which the engine reads and writes them."""
        if not self._carried:
            for volume in self._lay.volumes:
                self._engine.create_volume(volume)
            self._engine.create(self._lay.carrier)
            self._engine.put(self._lay.carrier.name, "/", apply.own_archive())
            self._carried = True

    def _stop(self) -> None:
        """End every process that faced an agent, and take in the last that it has to say."""
        if not self._up:
            return
        specs = [*self._lay.trusted.values(), *self._lay.models.values()]
        for spec in specs:
            self._driver.release(spec.name)
            self._engine.kill(spec.name, "SIGTERM")
        until = time.monotonic() + 15
        for spec in specs:
            if self._driver.await_end(spec.name, until) is None:
                self._engine.kill(spec.name)
        if self._options.record:
            apply.take_recording(self._engine, self._lay.carrier.name, self._folder)
        self._log.checkpoint()
        self._journal.leg(is_open=False)
        self._up = False

    def _abandon(self) -> None:
        """End everything after a failure, agents first; keep what was said, proposed and paid. Nothing is applied."""
        with contextlib.suppress(CasemateError):
            for stage in self._stages:
                if self._journal.of(stage) is StageState.RUNNING:
                    self._engine.kill(self._lay.cells[stage].agent.name)
                    apply.take_buffer(self._engine, self._lay.carrier.name, stage, self._folder)
        # what stays untold ends the run for good: the leg stays open, and its containers are gone
        with contextlib.suppress(CasemateError):
            salvage(self._engine, self._store, self._run, self._log, self._driver.take)

    @cache  # noqa: B019 - one job a run
    def _authorities(self) -> dict[str, bytes]:
        firewall = self._lay.trusted[Component.FIREWALL].name
        return authorities.collected(self._engine, firewall, self._plan, self._driver.certificate)

    def _birth(self, component: Component) -> Birth:
        part = encode(slices(self._plan)[component]).decode()
        secrets, replays, account = self._means.secrets, self._means.replay is not None, self._driver.account
        mine, facts = held_by(self._plan, secrets, component.value), {}
        match component:
            case Component.CUSTOMS:
                # it gets every value, not to use it but to find it in what the agents wrote
                mine, facts = secrets, self._facts()
            case Component.LLM:
                mine = {} if replays else mine
                facts = {"recording": "read" if replays else "write", **account.spent()}
            case Component.GATEWAY:
                done = [name for name in self._stages if self._journal.of(name) is StageState.COMPLETED]
                facts = account.used(done)
            case _:
                pass
        if component in self._pooled:
            facts["doors"] = self._pooled[component]
        return Birth(run=self._run, seal=self._seal, slice=part, secrets=mine, facts=facts)

    # ---- writes, and the end

    def _judge(self) -> Declaration:
        self._carry()
        buffers, sets = apply.buffers_of(self._plan, self._folder), self._journal.sets
        birth = self._birth(Component.CUSTOMS)
        declared = apply.judge(self._driver, self._plan, birth, self._lay, buffers, sets, self._folder)
        self._store.quotas.settle(self._run, taken(declared))
        root, waits = Path(self._options.root), {item.output for item in declared.held}
        self._enter([item for item in declared.written if item.output not in waits])
        applying.enter(self._store, self._run, root, declared.held, applying.HELD, State.HELD)
        return declared

    def _apply(self) -> None:
        reach = reached(self._driver, self._plan, self._folder)
        applying.Applier(self._store, self._run, self._plan, self._driver.note, reach).apply()

    def _enter(self, written: list[Written]) -> None:
        applying.enter(self._store, self._run, Path(self._options.root), written)

    def _facts(self) -> dict[str, str]:
        """Return what customs judges by besides the plan: the same, however often it does for this run."""
        path = self._folder / "facts.json"
        if not path.exists():
            left = self._store.quotas.reserve(self._run, self._plan, self._proposed())
            facts = told(self._store.candidates.of(self._plan.name)) | facts_of(left)
            write_durably(path, canonical(facts))
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) | {
            f"approved/{output}": digest for output, digest in self._approved.items()
        }

    def decide(self, write: Write, *, approves: bool) -> None:
        """Write what waits of an output, or what was accepted beside it. Can be called again after a crash."""
        output = next(output for output in self._plan.outputs if output.name == write.output)
        try:
            if approves:
                self._approved = {write.output: write.digest}
                self._judge()
            elif output.atomic == "each":
                declared = apply.judged(self._folder)
                self._enter([item for item in declared.written if item.output == write.output])
        finally:
            sweep_run(self._engine, self._run)
        self._apply()

    def _proposed(self) -> Counter[str]:
        """Count the rows that were proposed, by output; those of a file are its lines."""
        rows: Counter[str] = Counter()
        account = self._driver.account
        for proposals in account.proposed.values():
            for proposed in proposals:
                rows[proposed.output] += proposed.rows
        for promises in account.promises.values():
            for promise in promises:
                rows[promise.output] += lines_of(self._folder / FOLDER / f"{promise.id}.jsonl")
        return rows

    def _end(self, outcome: Outcome, code: ExitCode, error: CasemateError | None) -> RunResult:
        """Say how it ended. After an error of ours it may be resumed, unless somebody wants its end."""
        wanted = (self._journal.state, RunMove.CANCEL) in RUN and (self._folder / CANCEL).exists()
        cancelled = error is not None and wanted
        if cancelled:
            outcome, code = Outcome.CANCELLED, ExitCode.INTERRUPTED
        tally = self._driver.tally
        self._driver.note(
            EventName.RUN_ENDED,
            verdict=Verdict.ALLOW if outcome is Outcome.COMPLETED else Verdict.DENY,
            rule=error.code if error else None,
            reason=error.message if error else None,
            attrs={"casemate.outcome": outcome.value, "casemate.exit_code": int(code)},
        )
        self._log.close()
        if error is None:  # every event has come; what a run that broke off has spent is not known for sure
            self._store.days.settle(self._run, tally)
        summary = {"usd_nanos": tally.usd_nanos, "tokens": tally.tokens, "calls": tally.calls, "events": tally.events}
        self._store.end(self._run, outcome, code, {**summary, "error": error.render() if error else None})
        if error is None or cancelled:
            self._journal.move(RunMove.CANCEL if cancelled else RunMove.END)
            if not self._options.record:
                shutil.rmtree(self._folder / apply.RECORDING, ignore_errors=True)
        return RunResult(self._run, self._folder, outcome, code, tally, error)

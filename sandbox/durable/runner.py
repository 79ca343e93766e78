"""The runner: begin a run, go on with one, or end one that nobody drives.

Inputs and secrets are read, and everything that can be refused is refused, before anything starts.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType

from policies.errors import CasemateError
from policies.events import Attribute
from policies.plan import Plan
from policies.slices import Seal, seal
from policies.vocabulary import EventName, ExitCode, Outcome, Verdict
from sandbox.baseline import policies_digest
from sandbox.cells import volumes
from sandbox.cells.driver import Driver, OnEvent
from sandbox.cells.supplies import keep_probes, read_inputs, read_probes
from sandbox.durable import judging
from sandbox.durable.approval import check_decision, review
from sandbox.durable.job import CANCEL, Job, RunResult
from sandbox.durable.journal import Journal
from sandbox.durable.machine import RunMove, StageMove, after
from sandbox.durable.salvage import salvage
from sandbox.durable.setting import Means, Setting
from sandbox.durable.signed import Person, approved, as_logged, missing, sign
from sandbox.engine.docker import Engine
from sandbox.records.account import Account
from sandbox.records.log import RunLog, read_events
from sandbox.records.store import Options, Store
from sandbox.records.writes import State, Write
from sandbox.secrets import read_secrets

DECISION_S = 3600


def run_plan(engine: Engine, plan: Plan, store: Store, on_event: OnEvent, options: Options) -> RunResult:
    """Run `plan`. Raises only what refuses it; for what happens in the run, the result says it."""
    means, proof, probes = _means(engine, plan, store, options), seal(plan), read_probes(plan, Path(options.root))
    with store.new(plan, proof.plan, options) as (run, folder):
        keep_probes(probes, folder)
        log = RunLog(folder, run, proof.plan)
        driver = Driver(engine, folder, log, on_event, time.monotonic() + plan.budget.wall_s)
        return _drive(_setting(engine, plan, store, run, driver, log, means))


def resume_run(engine: Engine, plan: Plan, store: Store, run: str, on_event: OnEvent) -> RunResult:
    """Go on with a run that crashed or was stopped, where it was. Raises CSM-R026 for one that has ended."""
    options, proof = store.options(run), seal(plan)
    with store.taken_up(run) as folder:
        log = _taken_in(engine, store, run, proof)
        account = Account.of(read_events(folder))
        means = _means(engine, plan, store, options)
        keep_probes(read_probes(plan, Path(options.root), folder), folder)  # those that a crash left out
        deadline = time.monotonic() + max(plan.budget.wall_s - account.seconds, 0)
        driver = Driver(engine, folder, log, on_event, deadline, account)
        driver.note(EventName.RUN_RESUMED, attrs={"casemate.digest": proof.plan})
        for cell, calls in account.open.items():  # their process was killed: nobody knows what became of them
            for call in list(calls):
                attrs: dict[str, object] = {
                    "gen_ai.usage.input_tokens": call.tokens,
                    "casemate.cost.usd_nanos": call.usd_nanos,
                }
                driver.note(EventName.LLM_SETTLED, stage=cell, reason="cut off: what was reserved is owed", attrs=attrs)
        setting = _setting(engine, plan, store, run, driver, log, means)
        for cell in setting.journal.running:
            setting.journal.stage(cell, StageMove.RESUME)
        setting.journal.move(RunMove.RESUME)
        store.reopen(run)
        return _drive(setting)


def cancel_run(engine: Engine, plan: Plan, store: Store, run: str) -> None:
    """End a run that nobody drives. Raises CSM-R026 when it has ended, or is being applied."""
    with store.taken_up(run) as folder:
        log = _taken_in(engine, store, run, seal(plan), RunMove.CANCEL)
        attrs: dict[str, Attribute] = {
            "casemate.outcome": Outcome.CANCELLED.value,
            "casemate.exit_code": int(ExitCode.INTERRUPTED),
        }
        log.own(EventName.RUN_ENDED, verdict=Verdict.DENY, reason="cancelled", attrs=attrs)
        log.close()
        numbers = Account.of(read_events(folder)).tally.numbers
        store.end(run, Outcome.CANCELLED, ExitCode.INTERRUPTED, {**numbers, "error": None})
        Journal(store, run).move(RunMove.CANCEL)


def decide(
    engine: Engine,
    store: Store,
    run: str,
    write: Write,
    seen: str,
    *,
    approves: bool,
    person: Person,
    reason: str,
    now: datetime,
) -> int:
    """Approve or reject what waits, as it was seen; return how many more must approve before it is applied.

    Raises CSM-W018 where that is not what there is, or the approval is not this person's to give.
    """
    plan, options = store.plan(run), store.options(run)
    reason = as_logged(reason)
    output = next(output for output in plan.outputs if output.name == write.output)
    proof = seal(plan)
    with store.taken_up(run) as folder:
        shown = review(folder, plan, write)
        undecided = write.state is State.HELD  # else it was decided, and what followed broke off
        if undecided:
            check_decision(shown, seen, now, approves=approves)
        log = RunLog(folder, run, proof.plan, goes_on=True)
        try:
            account, deadline = Account.of(read_events(folder)), time.monotonic() + DECISION_S
            driver = Driver(engine, folder, log, lambda _event, _tally: None, deadline, account)
            if undecided:
                name, signature = sign(output, person, run, seen, reason) if approves else (person.account, None)
                if name not in approved(read_events(folder), output, seen):
                    attrs: dict[str, Attribute] = {
                        "casemate.output": write.output,
                        "casemate.write.count": write.rows,
                        "casemate.digest": seen,
                        "casemate.person": name,
                        "casemate.signature": signature,
                    }
                    verdict = Verdict.ALLOW if approves else Verdict.DENY
                    driver.note(EventName.WRITE_DECIDED, verdict=verdict, reason=reason, attrs=attrs)
                    log.checkpoint()
                if approves and (more := missing(read_events(folder), output, seen)):
                    return more
                store.writes.mark(write.key, State.APPROVED if approves else State.REJECTED)
            means = _means(engine, plan, store, options)
            judging.decide(_setting(engine, plan, store, run, driver, log, means), write, approves=approves)
        finally:
            log.close()
    return 0


def ask_to_cancel(store: Store, run: str) -> bool:
    """Ask whoever drives a run to end it, and not to resume it; False when nobody does."""
    (store.folder(run) / CANCEL).touch()
    return store.signal(run, signal.SIGTERM)


def _taken_in(engine: Engine, store: Store, run: str, proof: Seal, move: RunMove = RunMove.RESUME) -> RunLog:
    """Return the log of a run that may be moved so, with all that a crash left taken in, and nothing left of it."""
    after(Journal(store, run).state, move)
    if move is RunMove.RESUME and (store.folder(run) / CANCEL).exists():
        hint = f"end it: casemate cancel {run}"
        raise CasemateError("CSM-R026", "somebody wants the end of this run", hint=hint, exit_code=ExitCode.REFUSED)
    if proof.plan != store.digest(run):
        raise CasemateError("CSM-R013", f"{run} is not of this plan", exit_code=ExitCode.REFUSED)
    log = RunLog(store.folder(run), run, proof.plan, goes_on=True)
    salvage(engine, store, run, log, log.append)
    return log


def _means(engine: Engine, plan: Plan, store: Store, options: Options) -> Means:
    """Read what a run needs besides its plan, refusing what is not as it was compiled."""
    for image in plan.images:
        if engine.image_id(image.digest) is None:
            hint = "build the images and compile again"
            raise CasemateError(
                "CSM-R016", f"{image.name} is not what the plan pins", hint=hint, exit_code=ExitCode.REFUSED
            )
    if plan.source.policies != policies_digest():
        message = "the rules for secrets or the seccomp profile are not those that were compiled"
        raise CasemateError("CSM-R013", message, hint="compile again", exit_code=ExitCode.REFUSED)
    replay = volumes.recorded_whole(store.folder(options.replay)) if options.replay is not None else None
    root = Path(options.root)
    inputs = read_inputs(plan, root)
    return Means(
        secrets=read_secrets(plan, root, without="llm" if replay is not None else None), inputs=inputs, replay=replay
    )


def _setting(engine: Engine, plan: Plan, store: Store, run: str, driver: Driver, log: RunLog, means: Means) -> Setting:
    return Setting(
        engine=engine,
        plan=plan,
        store=store,
        run=run,
        seal=seal(plan),
        options=store.options(run),
        means=means,
        driver=driver,
        log=log,
        journal=Journal(store, run),
    )


def _drive(setting: Setting) -> RunResult:
    with _signals(setting.driver.interrupt):
        return Job(setting).drive()


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

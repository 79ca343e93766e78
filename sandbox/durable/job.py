"""The job: one run, from wherever it stands to its end.

1. start firewall, llm proxy, gateway and local models; wait until each says that it is ready
2. stage by stage, in the order of their needs: a cell, or one for each shard, an agent, an outcome; what completed is
   never run again
3. when no agent is left, stop everything that faced one
4. customs judges; what it accepted is applied
5. nothing is left behind but the run's folder

Each step is a move of the machine, and is in the journal before it is made.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from policies.errors import CasemateError
from policies.vocabulary import EventName, ExitCode, Outcome, Verdict
from sandbox.cells import volumes
from sandbox.cells.cell import artifacts_of
from sandbox.durable.ahead import ahead, is_over
from sandbox.durable.judging import apply_all, judge
from sandbox.durable.leg import Leg
from sandbox.durable.machine import RUN, RunMove, RunState, StageMove
from sandbox.durable.outcome import outcome_of, verdict_of
from sandbox.durable.setting import Setting
from sandbox.engine.sweep import sweep_run
from sandbox.records.locks import folder as locks_folder
from sandbox.records.locks import held
from sandbox.records.tally import Tally
from sandbox.sinks import customs

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


class Job:
    """Drives a run."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._journal, self._driver = setting, setting.journal, setting.driver
        self._leg: Leg | None = None

    def drive(self) -> RunResult:
        """All of it; whatever happens, the run gets an outcome, and no container is left behind."""
        setting = self._setting
        error: CasemateError | None = None
        names = [name for stage in setting.plan.stages for name in stage.locks]
        try:
            with held(names, locks_folder(), lambda: self._driver.step(time.monotonic() + POLL_S)):
                outcome, code = self._steps()
        except CasemateError as failure:
            error, outcome, code = failure, outcome_of(failure), failure.exit_code
        except Exception as failure:  # noqa: BLE001 - the run fails closed, and says so
            error = CasemateError("CSM-R019", f"{type(failure).__name__}: {failure}", exit_code=ExitCode.INTERNAL)
            outcome, code = Outcome.FAILED, ExitCode.INTERNAL
        finally:
            if error is not None and self._leg is not None:
                self._leg.abandon()
            sweep_run(setting.engine, setting.run)
        return self._end(outcome, code, error)

    def _steps(self) -> tuple[Outcome, ExitCode]:
        setting = self._setting
        if setting.means.replay is None:  # a replay spends nothing
            setting.store.days.reserve(setting.run, setting.plan)
        if self._journal.state in (RunState.OPENED, RunState.STARTING):
            outcome = self._work()
            if outcome is not Outcome.COMPLETED:
                timed_out = outcome is Outcome.TIMED_OUT
                return outcome, ExitCode.TIMED_OUT if timed_out else ExitCode.STAGE_FAILED
            if not setting.plan.outputs:
                return Outcome.COMPLETED, ExitCode.DONE
            self._journal.move(RunMove.JUDGE)
        if self._journal.state is RunState.JUDGING:
            declared = judge(setting)
            if setting.options.dry:
                return verdict_of(declared)
            self._journal.move(RunMove.APPLY)
        apply_all(setting)
        return verdict_of(customs.judged(setting.folder))

    def _work(self) -> Outcome:
        """Run what is left to run; return `COMPLETED`, or the outcome of the first cell that is not tried again."""
        while True:
            failed = {cell: is_over(self._setting.plan, cell, self._driver.tally) for cell in self._journal.failed}
            for outcome in failed.values():
                if outcome not in (None, Outcome.CANCELLED):  # those were ended for the sake of another
                    return outcome
            for cell in failed:
                self._drop(cell)
            cells = ahead(self._setting.plan, self._journal.of)
            if not cells:
                return Outcome.COMPLETED
            self._leg = Leg(self._setting, cells)
            self._leg.run()
            self._leg = None

    def _drop(self, cell: str) -> None:
        """Let a cell be tried again, by processes that never met its agent, without what it left."""
        setting, numbers = self._setting, self._driver.tally.cells[cell]
        recording = setting.folder / volumes.RECORDING / f"{cell}.jsonl"
        if recording.exists():
            recording.replace(recording.with_name(f"{cell}.failed-{numbers.attempts}.jsonl"))
        shutil.rmtree(artifacts_of(setting.folder, cell), ignore_errors=True)
        dropped = len(self._driver.account.proposed.get(cell, ()))
        attrs = {
            "casemate.outcome": numbers.outcome or Outcome.FAILED.value,
            "casemate.attempt": numbers.attempts,
            "casemate.write.count": dropped,
        }
        self._driver.note(EventName.STAGE_RETRIED, stage=cell, reason="its outputs are dropped", attrs=attrs)
        self._journal.stage(cell, StageMove.RETRY)

    def _end(self, outcome: Outcome, code: ExitCode, error: CasemateError | None) -> RunResult:
        """Say how it ended. After an error of ours it may be resumed, unless somebody wants its end."""
        setting = self._setting
        wanted = (self._journal.state, RunMove.CANCEL) in RUN and (setting.folder / CANCEL).exists()
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
        setting.log.close()
        if error is None:  # every event has come; what a run that broke off has spent is not known for sure
            setting.store.days.settle(setting.run, tally)
        summary = {**tally.numbers, "error": error.render() if error else None}
        setting.store.end(setting.run, outcome, code, summary)
        if error is None or cancelled:
            self._journal.move(RunMove.CANCEL if cancelled else RunMove.END)
            if not setting.options.record:
                shutil.rmtree(setting.folder / volumes.RECORDING, ignore_errors=True)
        return RunResult(setting.run, setting.folder, outcome, code, tally, error)

"""The writes of a run: customs judges them when no process that met an agent is left; what it accepts is applied."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from policies.canonical import canonical
from policies.vocabulary import Component, EventName, Outcome, Verdict
from policies.writes import Declaration, Written
from sandbox.archives import lines_of, write_durably
from sandbox.cells import volumes
from sandbox.cells.sets import FOLDER
from sandbox.durable.outcome import decided_of
from sandbox.durable.setting import Setting
from sandbox.engine.sweep import sweep_run
from sandbox.records.anchors import told
from sandbox.records.quotas import facts as facts_of
from sandbox.records.quotas import taken
from sandbox.records.writes import State, Write
from sandbox.sinks import applying, customs
from sandbox.sinks.outside import reached


def judge(setting: Setting, approved: dict[str, str] | None = None) -> Declaration:
    """Let customs judge, and enter what it accepts and holds. `approved`: digests of rows that a person approved."""
    lay = setting.layout([])
    buffers = volumes.buffers_of(setting.journal.completed, setting.folder)
    facts = _facts(setting) | {f"approved/{output}": digest for output, digest in (approved or {}).items()}
    # it gets every value, not to use it but to find it in what the agents wrote
    birth = setting.birth(Component.CUSTOMS, setting.means.secrets, facts)
    sets = setting.journal.sets
    declared = customs.judge(setting.driver, setting.plan, birth, lay, buffers, sets, setting.folder)
    setting.store.quotas.settle(setting.run, taken(declared))
    waits = {item.output for item in declared.held}
    _enter(setting, [item for item in declared.written if item.output not in waits])
    root = Path(setting.options.root)
    applying.enter(setting.store, setting.run, root, declared.held, applying.HELD, State.HELD)
    return declared


def apply_all(setting: Setting) -> None:
    """Apply what was entered."""
    reach = reached(setting.driver, setting.plan, setting.folder)
    applying.Applier(setting.store, setting.run, setting.plan, setting.driver.note, reach).apply()


def decide(setting: Setting, write: Write, *, approves: bool) -> None:
    """Write what waits of an output, or what was accepted beside it. Can be called again after a crash."""
    output = next(output for output in setting.plan.outputs if output.name == write.output)
    sweep_run(setting.engine, setting.run)  # what a decision left that was killed
    try:
        if approves:
            judge(setting, {write.output: write.digest})
        elif output.atomic == "each":
            declared = customs.judged(setting.folder)
            _enter(setting, [item for item in declared.written if item.output == write.output])
    finally:
        sweep_run(setting.engine, setting.run)
    apply_all(setting)
    _conclude(setting)


def _conclude(setting: Setting) -> None:
    """Say how the run ended now that somebody has decided."""
    outcome, code = decided_of([write.state for write in setting.store.writes.of(setting.run)])
    setting.driver.note(
        EventName.RUN_ENDED,
        verdict=Verdict.ALLOW if outcome is Outcome.COMPLETED else Verdict.DENY,
        attrs={"casemate.outcome": outcome.value, "casemate.exit_code": int(code)},
    )
    setting.log.checkpoint()
    setting.store.end(setting.run, outcome, code, {**setting.driver.tally.numbers, "error": None})


def _enter(setting: Setting, written: list[Written]) -> None:
    applying.enter(setting.store, setting.run, Path(setting.options.root), written)


def _facts(setting: Setting) -> dict[str, str]:
    """Return what customs judges by besides the plan: the same, however often it does for this run."""
    path = setting.folder / "facts.json"
    if not path.exists():
        left = setting.store.quotas.reserve(setting.run, setting.plan, _proposed(setting))
        facts = told(setting.store.candidates.of(setting.plan.name)) | facts_of(left)
        write_durably(path, canonical(facts))
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str])


def _proposed(setting: Setting) -> Counter[str]:
    """Count the rows that were proposed, by output; those of a file are its lines."""
    rows: Counter[str] = Counter()
    account = setting.driver.account
    for proposals in account.proposed.values():
        for proposed in proposals:
            rows[proposed.output] += proposed.rows
    for promises in account.promises.values():
        for promise in promises:
            rows[promise.output] += lines_of(setting.folder / FOLDER / f"{promise.id}.jsonl")
    return rows

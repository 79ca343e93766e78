"""Two hundred shards, eight at once, behind a stand-in of the engine; the orchestrator and agents die at random.

What holds of them is checked by the same functions as in real cells (`tests/shards.py`, `tests/e2e/test_shards.py`).
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from random import Random

import msgspec

from policies.canonical import digest
from policies.errors import CasemateError
from policies.plan import Plan, Retry, Shards
from policies.vocabulary import ExitCode
from sandbox.baseline import policies_digest
from sandbox.durable.runner import resume_run, run_plan
from sandbox.records.log import read_events
from sandbox.records.store import Options, Store
from tests.plans import plan
from tests.shards import check, course
from tests.stand_in import Cell, Killed, StandIn, images_of

SIZE = 2
PARALLEL = 8


def sharded(root: Path, shards: int, attempts: int = 10) -> Plan:
    """A plan of one stage in shards over a file that is written to `root`."""
    items = shards * SIZE - (SIZE - 1)
    content = b"".join(json.dumps({"text": f"item {n}"}).encode() + b"\n" for n in range(items))
    (root / "seeds.jsonl").write_bytes(content)
    base = plan()
    stage = msgspec.structs.replace(
        base.stages[1],
        name="work",
        needs=[],
        inputs=["seeds"],
        models=[],
        egress=[],
        shards=Shards(over="seeds", size=SIZE, parallel=PARALLEL, count=shards),
        retry=Retry(attempts=attempts, on=["failed"]),
    )
    output = msgspec.structs.replace(
        base.outputs[0],
        name="rows",
        path="out/rows.jsonl",
        format="jsonl",
        per_run=items,
        unique=["text"],
        bounds={},
        scan=["secrets"],
    )
    seeds = msgspec.structs.replace(base.inputs[0], digest=digest(content), size=len(content))
    return images_of(
        msgspec.structs.replace(
            base,
            source=msgspec.structs.replace(base.source, policies=policies_digest()),
            budget=msgspec.structs.replace(base.budget, wall_s=3600),
            secrets=[],
            models=[],
            inputs=[seeds],
            stages=[msgspec.structs.replace(stage, outputs=["rows"])],
            outputs=[output],
        )
    )


class Agents:
    """Agents that propose a row for each of their items, and die now and then, before or after."""

    def __init__(self, seed: int, deadly: float) -> None:
        self._chance, self._deadly, self._lock = Random(seed), deadly, threading.Lock()
        self.died = 0

    def __call__(self, cell: Cell) -> int:
        with self._lock:
            dies, pause = self._chance.random() < self._deadly, self._chance.uniform(0.01, 0.05)
            late = self._chance.random() < 0.5
        inputs = cell.inputs()
        assert list(inputs) == ["seeds.jsonl"], "its part, and nothing else"
        time.sleep(pause)
        if dies and not late:
            return self._die()
        for line in inputs["seeds.jsonl"].splitlines():
            row = {"text": json.loads(line)["text"], "n": int(cell.env["CASEMATE_SHARD"])}
            if not cell.propose(row):
                return 137
        return self._die() if dies else 0

    def _die(self) -> int:
        with self._lock:
            self.died += 1
        return 137


def until_done(engine: StandIn, made: Plan, store: Store, chance: Random, lives: range) -> int:
    """Run a plan; kill the orchestrator after a random number of `lives` calls, again and again. Return how often."""
    killed = 0
    while True:
        engine.dies_at = engine.calls + chance.choice(lives) if lives else 0
        try:
            if killed:
                result = resume_run(engine, made, store, store.latest(), lambda _event, _tally: None)  # type: ignore[arg-type]
            else:
                options = Options(root=str(store.home.parent))
                result = run_plan(engine, made, store, lambda _event, _tally: None, options)  # type: ignore[arg-type]
        except Killed:
            killed += 1
            continue
        assert result.exit_code is ExitCode.DONE, result.error
        return killed


def test_two_hundred_shards_eight_at_once_killed_at_random_are_there_once(tmp_path: Path) -> None:
    seed = 1
    (tmp_path / "engine").mkdir()
    agents = Agents(seed, deadly=0.1)
    engine, store = StandIn(tmp_path / "engine", agents), Store(tmp_path / ".casemate")
    made = sharded(tmp_path, 200)
    killed = until_done(engine, made, store, Random(seed), range(200, 1500))
    found = check(tmp_path, store, store.latest(), 200, PARALLEL, SIZE)
    assert killed > 5
    assert agents.died > 5
    assert found.most == PARALLEL
    assert engine.most <= PARALLEL
    engine.dies_at = 0
    assert engine.labelled() == []


def test_shards_killed_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    written = set()
    for seed in range(2):
        folder = tmp_path / str(seed)
        (folder / "engine").mkdir(parents=True)
        engine, store = StandIn(folder / "engine", Agents(seed, deadly=0.3)), Store(folder / ".casemate")
        until_done(engine, sharded(folder, 12), store, Random(seed), range(150, 400))
        written.add((folder / "out" / "rows.jsonl").read_bytes())
    assert len(written) == 1


def test_the_orchestrator_killed_at_every_call_of_the_engine(tmp_path: Path) -> None:
    """Two shards: killed once at every third call that it makes, from the first to the last."""
    (tmp_path / "whole" / "engine").mkdir(parents=True)
    control = StandIn(tmp_path / "whole" / "engine", Agents(0, deadly=0))
    until_done(control, sharded(tmp_path / "whole", 2), Store(tmp_path / "whole" / ".casemate"), Random(0), range(0))
    for at in range(1, control.calls + 1, 3):
        folder = tmp_path / str(at)
        (folder / "engine").mkdir(parents=True)
        engine, store = StandIn(folder / "engine", Agents(0, deadly=0)), Store(folder / ".casemate")
        made = sharded(folder, 2)
        engine.dies_at = at
        try:
            run_plan(engine, made, store, lambda _event, _tally: None, Options(root=str(folder)))  # type: ignore[arg-type]
        except Killed:
            engine.dies_at = 0
            try:
                resume_run(engine, made, store, store.latest(), lambda _event, _tally: None)  # type: ignore[arg-type]
            except CasemateError as error:
                assert error.code == "CSM-R026", at  # noqa: PT017 - it had ended
        check(folder, store, store.latest(), 2, PARALLEL, SIZE)


def test_what_completed_is_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    engine, store = StandIn(tmp_path / "engine", Agents(5, deadly=0)), Store(tmp_path / ".casemate")
    until_done(engine, sharded(tmp_path, 40), store, Random(5), range(300, 600))
    run = store.latest()
    begun = course(list(read_events(store.folder(run)))).begun
    assert begun.total() > 40, "the control: some were interrupted"
    done: set[str] = set()
    for subject, state, _ in store.transitions(run):
        if subject.startswith("stage/"):
            assert subject not in done
            done |= {subject} if state == "completed" else set()


def test_no_more_run_at_once_than_the_host_has_memory_for(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    made = sharded(tmp_path, 12)
    limits = made.stages[0].limits
    each = limits.memory + 2 * limits.disk  # what lies in /workspace and /tmp is memory
    engine = StandIn(tmp_path / "engine", Agents(1, deadly=0), memory=each * 3 * 4 // 3 + 1)
    store = Store(tmp_path / ".casemate")
    until_done(engine, made, store, Random(1), range(0))
    assert check(tmp_path, store, store.latest(), 12, PARALLEL, SIZE).most == 3

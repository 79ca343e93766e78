"""`python -m tests.shards [SHARDS] [PARALLEL] [SEED]`: a stage in many shards, killed again and again, in real cells.

The orchestrator and agents in their cells are killed (SIGKILL) at random moments; whoever is left goes on. In the end
every row is there once, no two shards have seen the same item, and never more of them ran at once than the plan allows.
What is checked here is checked of the same run behind a stand-in of the engine, too (`tests/sandbox/durable`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.vocabulary import EventName
from sandbox.records.log import RunEvent, read_events, verify
from sandbox.records.store import Store
from tests.lab import PROPOSE, ROOT, Lab

ATTEMPTS = 10
AGENT = (
    PROPOSE
    + """
import os, time
print(sorted(os.listdir("/inputs")), flush=True)
seeds = [json.loads(line) for line in open("/inputs/seeds.jsonl")]
taken = asyncio.run(propose(*({"text": seed["text"], "n": int(os.environ["CASEMATE_SHARD"])} for seed in seeds)))
assert all(taken), taken
time.sleep(HOLD)
"""
)


def workflow(lab: Lab, shards: int, parallel: int, size: int = 2, hold: float = 1.0, **changes: Any) -> Path:
    """Write a workflow whose one stage has so many shards of `size` items."""
    items = shards * size - (size - 1)  # the last shard has one
    lines = (json.dumps({"text": f"item {n}"}) + "\n" for n in range(items))
    (lab.folder / "seeds.jsonl").write_text("".join(lines))
    sink = {"kind": "dataset", "path": "out/rows.jsonl"}
    output = {"sink": sink, "schema": "rows.json", "quota": {"per_run": items}, "unique": ["text"]}
    limits = {"cpu": 1, "memory": "128MiB", "pids": 32, "disk": "16MiB", "wall": "5m"}
    top = {
        "budget": {"usd": 1, "tokens": 100_000, "calls": 1000, "wall": "2h"},
        "inputs": {"agent": {"path": "agent.py"}, "seeds": {"path": "seeds.jsonl"}},
        "outputs": {"rows": output},
    }
    stage = {
        "name": "work",
        "outputs": ["rows"],
        "limits": limits,
        "shards": {"over": "seeds", "size": size, "parallel": parallel},
        "retry": {"attempts": ATTEMPTS, "on": ["failed"]},
        **changes,
    }
    return lab.workflow(AGENT.replace("HOLD", str(hold)), top=top, **stage)


@dataclass(frozen=True, slots=True)
class Course:
    """What a log says of how shards ran: how often each was begun, and how many at once at most."""

    begun: Counter[int]
    most: int


def course(events: list[RunEvent]) -> Course:
    """Read it from a log. What ran when an orchestrator died runs no more."""
    begun: Counter[int] = Counter()
    running: set[int] = set()
    most = 0
    for event in events:
        match event.event:
            case EventName.STAGE_STARTED if event.shard is not None:
                assert event.shard not in running
                begun[event.shard] += 1
                running.add(event.shard)
            case EventName.STAGE_ENDED if event.shard is not None:
                running.discard(event.shard)
            case EventName.RUN_RESUMED:
                running.clear()
            case _:
                pass
        most = max(most, len(running))
    return Course(begun, most)


def check(folder: Path, store: Store, run: str, shards: int, parallel: int, size: int = 2) -> Course:
    """A run that is over has every row once, in order, each from the shard that had the item."""
    verify(store.folder(run))
    row = next(row for row in store.runs() if row["run"] == run)
    assert (row["outcome"], row["exit_code"]) == ("completed", 0), row
    rows = [json.loads(line) for line in (folder / "out" / "rows.jsonl").read_text().splitlines()]
    items = shards * size - (size - 1)
    assert rows == [{"text": f"item {n}", "n": n // size} for n in range(items)]
    events = list(read_events(store.folder(run)))
    assert sum(event.event is EventName.WRITE_APPLIED for event in events) == 1
    states = [(subject, state) for subject, state, _ in store.transitions(run)]
    completed = Counter(subject for subject, state in states if state == "completed")
    assert completed == Counter(f"stage/work.{n}" for n in range(shards)), "each completed once"
    found = course(events)
    assert set(found.begun) == set(range(shards))
    assert found.most <= parallel
    return found


def kill_somebody(lab: Lab, process: subprocess.Popen[str], chance: random.Random) -> str | None:
    """Kill the orchestrator, or an agent in its cell; return which, or None when there was nobody to kill."""
    folder = lab.run_folder()
    if folder is None:
        return None
    if chance.random() < 0.3:
        os.kill(process.pid, signal.SIGKILL)
        return "orchestrator"
    agents = [t["name"] for t in lab.engine.labelled(folder.name) if t.get("casemate.role") == "agent"]
    if not agents:
        return None
    lab.engine.kill(chance.choice(agents))
    return "cell"


def storm(lab: Lab, path: Path, seed: int, kills: int, pause_s: float, timeout_s: float) -> Counter[str]:
    """Run a workflow, and kill so often, at random moments; go on until it is done. Return who was killed."""
    chance, killed = random.Random(seed), Counter[str]()
    until = time.monotonic() + timeout_s
    process = lab.start(path)
    while True:
        try:
            _, said = process.communicate(timeout=chance.uniform(0.5, 1.5) * pause_s)
        except subprocess.TimeoutExpired:
            assert time.monotonic() < until, killed
            if killed.total() < kills and (who := kill_somebody(lab, process, chance)) is not None:
                killed[who] += 1
            continue
        if process.returncode == 0:
            return killed
        assert killed, said
        process = lab.go_on()


def main() -> None:
    """Do it, and say what came of it."""
    shards, parallel, seed = (int(word) for word in (*sys.argv[1:], *("200", "8", "1")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory(prefix="casemate-shards-") as name:
        lab = Lab(Path(name))
        began = time.monotonic()
        killed = storm(lab, workflow(lab, shards, parallel, hold=8), seed, kills=30, pause_s=12, timeout_s=3600)
        store = Store(lab.folder / ".casemate")
        found = check(lab.folder, store, store.latest(), shards, parallel)
        assert lab.left_over() == []
    seconds = time.monotonic() - began
    print(f"{shards} shards, at most {found.most} at once, in {seconds:.0f} s; killed: {dict(killed)}")
    print(f"begun {found.begun.total()} times; every row once")


if __name__ == "__main__":
    os.chdir(ROOT)
    main()

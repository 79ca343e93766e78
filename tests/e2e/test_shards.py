"""A stage in shards, in real cells: each has its own part and nothing else; killed anywhere, each row is there once.

The same with 200 shards: `python -m tests.shards`.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import yaml

from policies.vocabulary import EventName
from sandbox.records.log import read_events
from sandbox.records.store import Store
from tests.e2e.test_runs import MODEL
from tests.lab import PROPOSE, Lab
from tests.shards import check, course, storm, workflow


def test_shards_killed_at_random_complete_and_each_row_is_there_once(lab: Lab) -> None:
    path = workflow(lab, shards=12, parallel=4, hold=4)
    killed = storm(lab, path, seed=3, kills=5, pause_s=5, timeout_s=220)
    store = Store(lab.folder / ".casemate")
    found = check(lab.folder, store, store.latest(), shards=12, parallel=4)
    assert killed["cell"]
    assert killed["orchestrator"]
    assert found.most > 1
    assert lab.left_over() == []


LOOK = (
    PROPOSE
    + """
import os
shard = int(os.environ["CASEMATE_SHARD"])
seeds = open("/inputs/seeds.jsonl").read()
os.makedirs("artifacts")
open("artifacts/saw.json", "w").write(json.dumps([sorted(os.listdir("/inputs")), seeds, os.environ["CASEMATE_STAGE"]]))
asyncio.run(propose({"text": f"row of {shard}"}))
"""
)
LATER = (
    PROPOSE
    + """
import os
seen = sorted(os.listdir("/artifacts/work"))
asyncio.run(propose({"text": " ".join(seen)}))
"""
)


def test_a_shard_has_its_part_of_the_input_and_what_it_leaves_is_its_own(lab: Lab) -> None:
    path = workflow(lab, shards=3, parallel=2)
    (lab.folder / "agent.py").write_text(LOOK)
    result = lab.run(path)
    assert result.exit_code == 0, result.stderr
    saw = [json.loads(result.artifact(f"work/{n}/saw.json")) for n in range(3)]
    assert {json.dumps(one[0]) for one in saw} == {'["agent.py", "seeds.jsonl"]'}
    assert "".join(one[1] for one in saw) == (lab.folder / "seeds.jsonl").read_text()
    assert len({one[1] for one in saw}) == 3
    started = {event.shard: event for event in result.of("stage.started")}
    assert set(started) == {0, 1, 2}
    assert len({event.attrs["casemate.digest"] for event in started.values()}) == 3
    proposed = {event.shard: event.attrs["casemate.write.id"] for event in result.of("write.proposed")}
    assert proposed == {n: f"work.{n}-0" for n in range(3)}
    shown = json.loads(lab.cli("show", "--json").stdout)
    assert shown["numbers"]["stages"]["work"]["shards"] == {"completed": 3}
    assert "completed, 3 of 3 shards" in lab.cli("show").stdout.replace("\n", " ")
    assert all('"shard": 1' in line for line in lab.cli("logs", "--stage", "work.1", "--json").stdout.splitlines())


def test_one_shard_that_fails_for_good_ends_the_stage_and_the_others(lab: Lab) -> None:
    path = workflow(lab, shards=4, parallel=2, retry={"attempts": 2, "on": ["timed_out"]})
    agent = "import os, sys, time\nsys.exit(3) if os.environ['CASEMATE_SHARD'] == '1' else time.sleep(50)\n"
    (lab.folder / "agent.py").write_text(agent)
    result = lab.run(path)
    assert (result.exit_code, result.outcome) == (5, "failed"), result.stderr
    ended = [(event.shard, event.attrs["casemate.outcome"]) for event in result.of("stage.ended")]
    assert ended == [(1, "failed"), (0, "cancelled")]
    assert not (lab.folder / "out").exists()
    assert lab.left_over() == []


ASK = (
    PROPOSE
    + """
from openai import OpenAI, PermissionDeniedError

def ask(words):
    OpenAI(max_retries=0, timeout=100).chat.completions.create(
        model="teacher", max_tokens=4, messages=[{"role": "user", "content": words}])

done = 0
for word in ("one", "two", "three"):
    try:
        ask(word)
        done += 1
    except PermissionDeniedError:
        pass
asyncio.run(propose({"text": open("/inputs/seeds.jsonl").read(), "n": done}))
"""
)


def test_the_ceiling_of_a_stage_is_of_all_its_shards_together(lab: Lab) -> None:
    limits: dict[str, Any] = {"cpu": 1, "memory": "256MiB", "pids": 64, "disk": "32MiB", "wall": "2m", "calls": 5}
    path = workflow(lab, shards=3, parallel=3, models=["teacher"], limits=limits)
    document = yaml.safe_load(path.read_text()) | MODEL
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    (lab.folder / "agent.py").write_text(ASK)
    result = lab.run(path)
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in (lab.folder / "out" / "rows.jsonl").read_text().splitlines()]
    assert sum(row["n"] for row in rows) == 5, "nine were asked for, and the stage has five"
    assert len(result.of("llm.settled")) == 5


def test_resume_runs_only_what_had_not_completed(lab: Lab) -> None:
    process = lab.start(workflow(lab, shards=6, parallel=2, hold=2))
    lab.await_event("stage.ended")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    store = Store(lab.folder / ".casemate")
    run = store.latest()
    done = {subject for subject, state, _ in store.transitions(run) if state == "completed"}
    resumed = lab.cli("resume")
    assert resumed.returncode == 0, resumed.stderr
    check(lab.folder, store, run, shards=6, parallel=2)
    events = list(read_events(store.folder(run)))
    again = next(n for n, event in enumerate(events) if event.event is EventName.RUN_RESUMED)
    begun = course(events[again:]).begun
    assert {f"stage/work.{n}" for n in begun} == {f"stage/work.{n}" for n in range(6)} - done


def test_a_cancelled_run_ends_all_shards(lab: Lab) -> None:
    process = lab.start(workflow(lab, shards=4, parallel=3, hold=60))
    lab.await_event("stage.started")
    assert lab.cli("cancel").returncode == 0
    result = lab.finish(process, timeout_s=60)
    assert (result.exit_code, result.outcome) == (130, "cancelled")
    assert lab.left_over() == []

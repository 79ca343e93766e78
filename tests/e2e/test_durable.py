"""A run goes on after a crash at any point: nothing that completed is run again, each row is written once."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sandbox.records.log import RunEvent, read_events, verify
from sandbox.records.store import Store
from tests.e2e.test_runs import HOLD, MODEL
from tests.lab import PROPOSE, ROOT, Lab, Result, until

STAGE = {
    "image": "casemate/agent-python",
    "limits": {"cpu": 1, "memory": "256MiB", "pids": 64, "disk": "32MiB", "wall": "60s"},
    "outputs": ["rows"],
}
FIRST = PROPOSE + (
    "import os\nos.makedirs('artifacts')\nopen('artifacts/a.txt', 'w').write('carried')\n"
    "asyncio.run(propose({'text': 'first'}))\n"
)
SECOND = PROPOSE + "asyncio.run(propose({'text': open('/artifacts/first/a.txt').read()}))\n"
ROWS = [{"text": "first"}, {"text": "carried"}]
OUTPUTS = {
    "rows": {"sink": {"kind": "dataset", "path": "out/rows.jsonl"}, "schema": "rows.json", "quota": {"per_run": 2}}
}


def two_stages(lab: Lab, folder: Path) -> Path:
    """Write a workflow of two stages into a folder of its own, with a quota that has room for each row once."""
    one = Lab(folder)
    (folder / "second.py").write_text(SECOND)
    stages = [
        {**STAGE, "name": "first", "run": ["python", "/inputs/agent.py"]},
        {**STAGE, "name": "second", "run": ["python", "/inputs/second.py"], "needs": ["first"]},
    ]
    inputs = {"agent": {"path": "agent.py"}, "second": {"path": "second.py"}}
    return one.workflow(FIRST, top={"stages": stages, "inputs": inputs, "outputs": OUTPUTS})


def crash(workflow: Path, verb: str, at: int, when: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.crash", verb, str(workflow), str(at), when]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def written(folder: Path) -> list[object]:
    return [json.loads(line) for line in (folder / "out" / "rows.jsonl").read_text().splitlines()]


def check_whole(lab: Lab, folder: Path, store: Store, run: str) -> None:
    """A run that is over is as it would have been without a crash."""
    assert written(folder) == ROWS
    verify(store.folder(run))
    events = list(read_events(store.folder(run)))
    assert sum(event.event.value == "write.applied" for event in events) == 1
    row = store.runs(limit=1)[0]
    assert (row["outcome"], row["exit_code"]) == ("completed", 0)
    assert not (store.folder(run) / "recording").exists()
    home = str((folder / ".casemate").resolve())
    assert [thing["name"] for thing in lab.engine.labelled() if thing.get("casemate.home") == home] == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_kill_at_every_transition_the_run_goes_on(lab: Lab, tmp_path: Path, when: str) -> None:
    (tmp_path / "whole").mkdir()
    control = crash(two_stages(lab, tmp_path / "whole"), "run", 0, when)
    assert control.returncode == 0, control.stderr
    steps = control.stdout.splitlines()
    assert [step for step in steps if step.startswith("run")] == [
        f"run {state}" for state in ("starting", "running", "judging", "applying", "ended")
    ]
    for at, step in enumerate(steps, start=1):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        workflow = two_stages(lab, folder)
        died = crash(workflow, "run", at, when)
        assert died.returncode == -signal.SIGKILL, (step, died.stderr)
        store = Store(folder / ".casemate")
        run = store.latest()
        before = [event for event in read_events(store.folder(run)) if event.event.value == "stage.started"]
        completed = {s for s, state, _ in store.transitions(run) if state == "completed"}
        gone_on = crash(workflow, "resume", 0, when)
        if (step, when) == ("run ended", "after"):
            assert "CSM-R026" in gone_on.stderr
        else:
            assert gone_on.returncode == 0, (step, gone_on.stderr)
        check_whole(lab, folder, store, run)
        events = list(read_events(store.folder(run)))
        started = Counter(event.stage for event in events if event.event.value == "stage.started")
        for stage in ("first", "second"):
            again = f"stage/{stage}" not in completed and any(event.stage == stage for event in before)
            assert started[stage] == 1 + again, (step, started)


def test_a_run_that_crashes_again_and_again_ends_as_if_it_had_not(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    workflow = two_stages(lab, folder)
    store = Store(folder / ".casemate")
    assert crash(workflow, "run", 3, "after").returncode == -signal.SIGKILL
    for at in (2, 4, 5, 6, 4):
        assert crash(workflow, "resume", at, "after").returncode in (-signal.SIGKILL, 0)
        if store.runs(limit=1)[0]["outcome"] == "completed":
            break
        lab.cli("gc")  # which keeps what is needed to go on
    else:
        assert crash(workflow, "resume", 0, "after").returncode == 0
    check_whole(lab, folder, store, store.latest())


ASK = """
import time
from openai import OpenAI

client = OpenAI(max_retries=0, timeout=100)

def ask(words):
    said = client.chat.completions.create(
        model="teacher", max_tokens=6, temperature=1, messages=[{"role": "user", "content": words}])
    return said.choices[0].message.content

print([ask(word) for word in ("one", "one", "two")], flush=True)
print("asked", open("/proc/uptime").read(), flush=True)
time.sleep(HOLD)
print([ask(word) for word in ("one", "three")], flush=True)
"""


def test_what_was_paid_for_is_not_generated_twice(lab: Lab) -> None:
    limits = {**STAGE["limits"], "calls": 5}  # type: ignore[dict-item]  # as many as are asked: a sixth would be refused
    path = lab.workflow(ASK.replace("HOLD", "8"), models=["teacher"], limits=limits, top=MODEL)
    process = lab.start(path)
    for _ in range(3):
        lab.await_event("llm.settled")
    folder = lab.run_folder()
    assert folder is not None

    def settled() -> int:
        return sum(event.event.value == "llm.settled" for event in read_events(folder))

    while settled() < 3:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    resumed = lab.cli("resume")
    assert resumed.returncode == 0, resumed.stderr
    result = Result(0, "", "", folder, list(read_events(folder)))
    verify(folder)
    paid = [event for event in result.of("llm.settled") if event.attrs.get("casemate.cache") == "paid"]
    asked = [event for event in result.of("llm.settled") if "casemate.cache" not in event.attrs]
    assert (len(paid), len(asked)) == (3, 5)
    assert all(event.attrs["casemate.cost.usd_nanos"] == 0 for event in paid)
    assert all(int(event.attrs["casemate.cost.usd_nanos"] or 0) > 0 for event in asked)


def test_a_crash_in_the_middle_of_the_example_with_a_real_model_generates_nothing_twice(lab: Lab) -> None:
    """Counted where it is generated: in the log of the model's own server."""
    topics = 5
    ignore = shutil.ignore_patterns("out", ".casemate")
    shutil.copytree(ROOT / "examples" / "distill", lab.folder, dirs_exist_ok=True, ignore=ignore)
    seeds = lab.folder / "seeds.jsonl"
    seeds.write_text("".join(seeds.read_text().splitlines(keepends=True)[:topics]))
    process = lab.start(lab.folder / "workflow.yaml")
    lab.await_event("llm.settled")
    folder = lab.run_folder()
    assert folder is not None

    def settled() -> list[RunEvent]:
        return [event for event in read_events(folder) if event.event.value == "llm.settled"]

    until(lambda: len(settled()) >= 2, 60, "the model does not answer")
    time.sleep(random.uniform(0, 1.5))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert lab.cli("gc").returncode == 0  # which keeps what was recorded until then
    lines = (folder / "recording" / "generate.jsonl").read_text().splitlines()
    taken = [json.loads(line)["taken"] for line in lines]
    # one that the crash cut short was no answer
    recorded = sum(one["refused"] is None and one["usage"]["complete"] and bool(one["body"]) for one in taken)
    asked = 3 * topics
    assert recorded >= 2
    (served,) = (folder / "logs").glob("*-model-*.log")
    before = served.read_text(errors="replace").count("processing task")
    resumed = lab.cli("resume")
    assert resumed.returncode == 0, resumed.stderr
    verify(folder)
    after = served.read_text(errors="replace").count("processing task")
    assert after - before == asked - recorded, "what was recorded does not reach the model again"
    assert sum(event.attrs.get("casemate.cache") == "paid" for event in settled()) == recorded
    drafts = [json.loads(line) for line in (lab.folder / "out" / "drafts.jsonl").read_text().splitlines()]
    assert len({(draft["topic"], draft["attempt"]) for draft in drafts}) == len(drafts) == asked
    assert (lab.folder / "out" / "samples.parquet").exists()


def test_a_run_that_was_stopped_by_a_signal_goes_on(lab: Lab) -> None:
    process = lab.start(lab.workflow(HOLD.replace("sleep(50)", "sleep(8)"), outputs=["rows"]))
    lab.await_event("write.proposed")
    process.send_signal(signal.SIGTERM)
    assert lab.finish(process, timeout_s=60).exit_code == 130
    resumed = lab.cli("resume")
    assert resumed.returncode == 0, resumed.stderr
    assert written(lab.folder) == [{"text": "before"}]


def test_a_cancelled_run_ends_and_is_not_resumed(lab: Lab) -> None:
    process = lab.start(lab.workflow(HOLD, outputs=["rows"]))
    lab.await_event("write.proposed")
    assert lab.cli("cancel").returncode == 0
    result = lab.finish(process, timeout_s=60)
    assert (result.exit_code, result.outcome) == (130, "cancelled")
    assert not (lab.folder / "out").exists()
    assert lab.left_over() == []
    refused = lab.cli("resume")
    assert (refused.returncode, "CSM-R026" in refused.stderr) == (4, True)


def test_a_crashed_run_can_be_cancelled(lab: Lab) -> None:
    process = lab.start(lab.workflow(HOLD, outputs=["rows"]))
    lab.await_event("write.proposed")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    cancelled = lab.cli("cancel")
    assert cancelled.returncode == 0, cancelled.stderr
    assert lab.left_over() == []
    folder = lab.run_folder()
    assert folder is not None
    verify(folder)
    assert lab.cli("resume").returncode == 4


def test_a_run_whose_record_was_changed_does_not_go_on(lab: Lab) -> None:
    process = lab.start(lab.workflow(HOLD, outputs=["rows"]))
    lab.await_event("write.proposed")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    folder = lab.run_folder()
    assert folder is not None
    log = folder / "events.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"stage":"agent"', b'"stage":"other"', 1))
    refused = lab.cli("resume")
    assert (refused.returncode, "CSM-R011" in refused.stderr) == (4, True)
    log.write_bytes(whole)  # the control: it is the change that is refused
    assert lab.cli("cancel").returncode == 0


@pytest.mark.parametrize("shared", [True, False])
def test_runs_that_share_a_lock_go_one_after_the_other(lab: Lab, tmp_path: Path, shared: bool) -> None:
    (tmp_path / "other").mkdir()
    other = Lab(tmp_path / "other")
    lab.env = other.env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    agent = PROPOSE + "asyncio.run(propose({'text': 'one'}))\n"
    first = lab.start(lab.workflow(HOLD, outputs=["rows"], locks=["repo:x"]))
    lab.await_event("write.proposed")
    second = other.start(other.workflow(agent, outputs=["rows"], locks=["repo:x" if shared else "repo:y"]))
    if shared:
        until(other.run_folder, 30, "the second run was not opened")
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=12)  # longer than it takes, as the control shows
        folder = other.run_folder()
        assert folder is not None
        assert list(read_events(folder)) == []
        os.kill(first.pid, signal.SIGKILL)
    assert other.finish(second, timeout_s=60).exit_code == 0
    if not shared:
        assert first.poll() is None, "the control: it did not wait"
        os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=30)
    lab.cli("cancel")


def test_a_quota_of_the_day_holds_over_runs(lab: Lab) -> None:
    rows = {"sink": {"kind": "dataset", "path": "out/rows.jsonl"}, "schema": "rows.json", "atomic": "each"}
    outputs = {"rows": {**rows, "quota": {"per_run": 2, "per_day": 3}}}
    agent = PROPOSE + "asyncio.run(propose({'text': 'one'}, {'text': 'two'}))\n"
    path = lab.workflow(agent, outputs=["rows"], top={"outputs": outputs})
    assert lab.run(path).exit_code == 0
    assert written(lab.folder) == [{"text": "one"}, {"text": "two"}]
    second = lab.run(path)
    assert second.exit_code == 0
    assert written(lab.folder) == [{"text": "one"}]
    assert [event.rule for event in second.of("write.judged") if event.stage] == ["CSM-W002"]
    assert lab.run(path).exit_code == 6


RETRIED = (
    PROPOSE
    + """
from openai import OpenAI, PermissionDeniedError

try:
    OpenAI(max_retries=0, timeout=100).chat.completions.create(
        model="teacher", max_tokens=4, messages=[{"role": "user", "content": "one"}])
except PermissionDeniedError:  # the ceiling of calls holds over all attempts, so this is the second
    asyncio.run(propose({"text": "second"}))
else:
    asyncio.run(propose({"text": "first"}))
    sys.exit(3)
"""
)


@pytest.mark.parametrize("on", ["failed", "timed_out"])
def test_a_stage_is_tried_again_in_a_fresh_cell_and_only_what_the_last_attempt_left_counts(lab: Lab, on: str) -> None:
    limits = {**STAGE["limits"], "calls": 1}  # type: ignore[dict-item]
    retry = {"attempts": 3, "on": [on]}
    result = lab.run(lab.workflow(RETRIED, models=["teacher"], limits=limits, outputs=["rows"], retry=retry, top=MODEL))
    if on == "timed_out":  # the control: that is not how it ended
        assert (result.exit_code, len(result.of("stage.started"))) == (5, 1)
        return
    assert result.exit_code == 0, result.stderr
    assert written(lab.folder) == [{"text": "second"}]
    (retried,) = result.of("stage.retried")
    assert retried.attrs == {"casemate.outcome": "failed", "casemate.attempt": 1, "casemate.write.count": 1}
    assert len(result.of("stage.started")) == 2

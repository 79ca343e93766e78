"""Runs whose trusted containers were started beforehand: the same run, the same walls, used once, taken by one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from sandbox.engine import pool
from sandbox.engine.host import connect
from sandbox.engine.pool import ROLES, pooled_name
from tests.lab import PROPOSE, Lab, Result

pytestmark = pytest.mark.alone
TWO = (
    PROPOSE
    + """
import os, socket, urllib.error, urllib.request
asyncio.run(propose({"text": os.environ["CASEMATE_STAGE"]}))
try:
    urllib.request.urlopen("http://evil.example.net/", timeout=10)
except urllib.error.HTTPError as error:
    print(json.load(error)["error"]["code"])
ports = []
for port in (3128, 4000, 5000, 53, 80, 443):
    with socket.socket() as s:
        if s.connect_ex(("127.0.0.1", port)) == 0:
            ports.append(port)
found = [p for p in ("/doors", "/slots", "/models", "/hold") if os.path.exists(p)]
print(json.dumps({"ports": ports, "interfaces": os.listdir("/sys/class/net"), "files": found}))
"""
)
"""The agent of both stages: it proposes, is denied, and looks around."""


@pytest.fixture(autouse=True)
def drained() -> Iterator[None]:
    engine = connect()
    dict(pool.drain(engine))
    yield
    dict(pool.drain(engine))
    assert engine.pooled() == []


def folder(root: Path, name: str) -> Lab:
    (root / name).mkdir()
    return Lab(root / name)


def two_stages(lab: Lab) -> Path:
    limits = {"cpu": 1, "memory": "256MiB", "pids": 64, "disk": "32MiB", "wall": "60s"}
    run = {"image": "casemate/agent-python", "run": ["python", "/inputs/agent.py"], "limits": limits}
    stages: list[dict[str, Any]] = [
        {"name": "one", **run, "outputs": ["rows"]},
        {"name": "two", **run, "outputs": ["rows"], "needs": ["one"]},
    ]
    return lab.workflow(TWO, outputs=["rows"], top={"stages": stages})


def fill(lab: Lab, *more: str) -> list[str]:
    done = lab.cli("pool", "fill", "--network", "none", "--json", *more)
    assert done.returncode == 0, done.stderr
    started: list[str] = json.loads(done.stdout)["started"]
    return started


def seen(result: Result) -> list[object]:
    """What a run came to, without what differs from run to run."""
    logs = [result.agent_log(stage).splitlines()[-2:] for stage in ("one", "two")]
    events = sorted((e.event.value, e.stage, e.rule) for e in result.events if e.event.value != "component.synced")
    return [result.exit_code, result.outcome, logs, events]


def test_a_run_from_the_pool_is_the_same_run_and_a_set_is_used_once(tmp_path: Path) -> None:
    cold = folder(tmp_path, "cold")
    before = cold.run(two_stages(cold))
    assert before.exit_code == 0, before.stderr
    (started,) = fill(cold)
    assert fill(cold) == []  # one was to wait, and one does
    warm = folder(tmp_path, "warm")
    process = warm.start(two_stages(warm))
    warm.await_event("component.ready")
    taken = {t["name"]: t.get("casemate.pool") for t in warm.engine.pooled(started) if t["kind"] == "container"}
    assert len(taken) == 4  # the claim, too
    assert not [name for name in taken if name.startswith("casemate-pool-")]
    after = warm.finish(process)
    assert after.exit_code == 0, after.stderr
    assert seen(after) == seen(before)
    assert (warm.folder / "out" / "rows.jsonl").read_text() == (cold.folder / "out" / "rows.jsonl").read_text()
    assert warm.engine.pooled() == []
    assert warm.left_over() == []


def test_the_walls_of_a_cell_are_the_same(tmp_path: Path) -> None:
    lab = folder(tmp_path, "lab")
    (started,) = fill(lab)
    process = lab.start(two_stages(lab))
    lab.await_event("write.proposed")
    client, run = docker.from_env(), lab.run_folder()
    assert run is not None
    relay = client.containers.get(f"casemate-{run.name}-one-relay")
    doors = {m["Name"] for m in relay.attrs["Mounts"] if m["Destination"].startswith("/doors/")}
    assert doors == {f"casemate-pool-{started}-{door}-0" for door in ("egress", "llm", "mcp")}
    for role in ROLES:
        attrs = client.containers.get(f"casemate-{run.name}-{role.value}").attrs
        assert attrs["HostConfig"]["NetworkMode"] == "none"
        assert attrs["HostConfig"]["ReadonlyRootfs"]
        assert not [m for m in attrs["Mounts"] if m["Type"] == "bind"]
    result = lab.finish(process)
    assert result.exit_code == 0, result.stderr
    for stage in ("one", "two"):
        code, found = result.agent_log(stage).splitlines()[-2:]
        assert code == "CSM-P003"
        assert json.loads(found) == {"ports": [3128, 4000, 5000], "interfaces": ["lo"], "files": []}
    denied = [event.stage for event in result.of("egress.decided")]
    assert denied == ["one", "two"]  # each at its own door


def test_what_does_not_fit_is_not_taken(tmp_path: Path) -> None:
    """A set with a way out is not for a run that needs none; nor is one of another image."""
    lab = folder(tmp_path, "lab")
    done = lab.cli("pool", "fill", "--network", "egress", "--json")
    assert done.returncode == 0, done.stderr
    (waits,) = json.loads(done.stdout)["started"]
    result = lab.run(lab.workflow("print(1)"))
    assert result.exit_code == 0, result.stderr
    listed = json.loads(lab.cli("pool", "list", "--json").stdout)
    assert [(row["set"], row["state"]) for row in listed] == [(waits, "waits")]


@pytest.mark.parametrize("role", [role.value for role in ROLES])
def test_a_set_with_a_dead_member_is_not_taken_and_is_replaced(tmp_path: Path, role: str) -> None:
    lab = folder(tmp_path, "lab")
    (broken,) = fill(lab)
    lab.engine.kill(pooled_name(broken, role))
    result = lab.run(lab.workflow("print(1)"))
    assert result.exit_code == 0, result.stderr
    assert [member.state for member in pool.members(lab.engine)] == ["broken"]
    (fresh,) = fill(lab)
    assert [(m.id, m.state) for m in pool.members(lab.engine)] == [(fresh, "waits")]


def test_of_many_that_want_a_set_one_gets_it(tmp_path: Path) -> None:
    lab = folder(tmp_path, "lab")
    (waits,) = fill(lab)
    checked = lab.workflow("print(1)")
    plan = lab.folder / "plan.json"
    assert lab.cli("compile", str(checked), "-o", str(plan)).returncode == 0
    from policies.plan import Plan, decode

    compiled = decode(plan.read_bytes().strip(), Plan, code="CSM-R010", place="plan")
    gate, got = threading.Barrier(8), list[tuple[str, str | None]]()

    def race(n: int) -> None:
        engine = connect()
        gate.wait()
        got.append((f"race-{n}", pool.claim(engine, compiled, ["agent"], f"race-{n}", {})))

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(member) for _, member in got) == sorted([waits, *["None"] * 7])
    (winner,) = [run for run, member in got if member is not None]
    names = {t["name"] for t in lab.engine.pooled(waits) if t["kind"] == "container"}
    assert names == {f"{pool.CLAIM}{waits}", *(f"casemate-{winner}-{role.value}" for role in ROLES)}
    assert pool.remove(lab.engine, waits) == []


def test_two_runs_race_for_one_set_and_both_end_well(tmp_path: Path) -> None:
    labs = [folder(tmp_path, name) for name in ("a", "b")]
    fill(labs[0])
    processes = [lab.start(lab.workflow("print(1)")) for lab in labs]
    results = [lab.finish(process) for lab, process in zip(labs, processes, strict=True)]
    assert [result.exit_code for result in results] == [0, 0]
    assert labs[0].engine.pooled() == []


def test_after_sigkill_of_the_orchestrator_gc_finds_what_was_taken(tmp_path: Path) -> None:
    lab = folder(tmp_path, "lab")
    (taken,) = fill(lab)
    process = lab.start(lab.workflow("import time; time.sleep(60)"))
    lab.await_event("stage.started")
    process.kill()
    process.wait()
    assert lab.engine.pooled(taken)
    assert lab.cli("gc").returncode == 0
    assert lab.engine.pooled(taken) == []
    assert lab.left_over() == []

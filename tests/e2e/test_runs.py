"""Runs end as they should: completed, incomplete, denied, failed, timed out; never silently."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import docker
import docker.errors
import pytest

from policies.plan import encode
from policies.slices import seal, slices
from policies.vocabulary import Component
from policies.writes import CUSTOMS_CORES, GENESIS
from sandbox.cells.volumes import carry
from sandbox.project import compile_project, open_project
from sandbox.records.log import read_events, verify
from sandbox.records.tally import Tally
from sandbox.topology.layout import topology
from tests.lab import PROPOSE, Lab, until

CANARY = "canary-6f1c9a40e2d84b7b9b1d"
MODEL = {
    "models": {
        "teacher": {
            "provider": "local",
            "model": "gemma-3-270m",
            "max_output_tokens": 32,
            "price": {"input": 0.1, "output": 0.4},
        }
    }
}
HOLD = PROPOSE + ("import time\nasyncio.run(propose({'text': 'before'}))\nprint('held', flush=True)\ntime.sleep(50)\n")
"""An agent that proposes a row and then waits for what comes."""


def test_a_row_that_passes_is_applied_with_a_manifest(lab: Lab) -> None:
    agent = PROPOSE + "print(asyncio.run(propose({'text': 'hello'}, {'text': 'world', 'n': 2})))\n"
    result = lab.run(lab.workflow(agent, outputs=["rows"]))
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in (lab.folder / "out" / "rows.jsonl").read_text().splitlines()]
    assert rows == [{"text": "hello"}, {"text": "world", "n": 2}]
    manifest = json.loads((lab.folder / "out" / "rows.jsonl.manifest.json").read_text())
    (applied,) = result.of("write.applied")
    assert manifest["rows"] == 2
    assert str(applied.attrs["casemate.digest"]) in json.dumps(manifest)


FILE = (
    PROPOSE
    + """
import pathlib
pathlib.Path("sets").mkdir()
lines = [json.dumps({"text": f"row {n}", "n": n}) + "\\n" for n in range(5000)]
pathlib.Path("sets/rows.jsonl").write_text("".join(lines) + TAIL)
asyncio.run(propose({"output": "rows", "path": "sets/rows.jsonl"}, tool="propose_file"))
AFTER
"""
)
"""An agent that proposes a file of records."""
MANY = {
    "sink": {"kind": "dataset", "path": "out/rows.jsonl"},
    "schema": "rows.json",
    "quota": {"per_run": 6000},
    "atomic": "each",
}


def test_a_file_of_records_is_taken_as_it_is_when_the_agent_has_ended(lab: Lab) -> None:
    after = 'pathlib.Path("sets/rows.jsonl").open("a").write(json.dumps({"text": "added later"}) + "\\n")'
    agent = FILE.replace("TAIL", '"not json\\n" + json.dumps({"text": 1}) + "\\n"').replace("AFTER", after)
    result = lab.run(lab.workflow(agent, outputs=["rows"], top={"outputs": {"rows": MANY}}))
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in (lab.folder / "out" / "rows.jsonl").read_text().splitlines()]
    assert rows == [{"n": n, "text": f"row {n}"} for n in range(5000)] + [{"text": "added later"}]
    (taken,) = result.of("write.taken")
    assert taken.attrs["casemate.write.id"] == "agent-0"
    assert [event.rule for event in result.of("write.judged") if event.stage] == ["CSM-W006", "CSM-W001"]


LONG = """
import pathlib
text = "The harbour lies at the river. " * 10
with pathlib.Path("rows.jsonl").open("w") as file:
    file.writelines(json.dumps({"text": text, "n": n}) + "\\n" for n in range(100_000))
asyncio.run(propose({"output": "rows", "path": "rows.jsonl"}, tool="propose_file"))
"""


def test_customs_works_on_every_core_that_the_engine_has(lab: Lab) -> None:
    cores, seen = min(int(lab.engine.info()["NCPU"]), CUSTOMS_CORES), dict[str, tuple[int, int]]()
    ended = threading.Event()

    def watch() -> None:
        with contextlib.closing(docker.from_env()) as client:
            while not ended.wait(0.02):
                for one in client.containers.list(filters={"label": "casemate.role=customs"}, ignore_removed=True):
                    with contextlib.suppress(docker.errors.APIError):
                        processes = len(one.top()["Processes"] or ())
                        before = seen.get(str(one.name), (0, 0))[0]
                        seen[str(one.name)] = max(before, processes), one.attrs["HostConfig"]["NanoCpus"]

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        outputs = {"rows": {**MANY, "quota": {"per_run": 100_000}}}
        result = lab.run(lab.workflow(PROPOSE + LONG, outputs=["rows"], top={"outputs": outputs}))
    finally:
        ended.set()
        watcher.join()
    assert result.exit_code == 0, result.stderr
    assert len((lab.folder / "out" / "rows.jsonl").read_text().splitlines()) == 100_000
    assert result.folder is not None
    assert [found for name, found in seen.items() if result.folder.name in name] == [(cores, cores * 10**9)]


@pytest.mark.parametrize(
    "after",
    [
        'pathlib.Path("sets/rows.jsonl").unlink()',
        'pathlib.Path("sets/rows.jsonl").unlink(); pathlib.Path("sets/rows.jsonl").symlink_to("/etc/passwd")',
        'pathlib.Path("sets/rows.jsonl").unlink(); pathlib.Path("sets/rows.jsonl").mkdir()',
        'import os; os.unlink("sets/rows.jsonl"); os.mkfifo("sets/rows.jsonl")',
    ],
    ids=["gone", "link", "folder", "pipe"],
)
def test_a_file_that_is_not_there_fails_the_stage(lab: Lab, after: str) -> None:
    agent = FILE.replace("TAIL", '""').replace("AFTER", after)
    result = lab.run(lab.workflow(agent, outputs=["rows"], top={"outputs": {"rows": MANY}}))
    assert (result.exit_code, result.outcome) == (5, "failed"), result.stderr
    assert result.of("stage.ended")[0].rule == "CSM-R025"
    assert not (lab.folder / "out").exists()


def test_an_agent_that_proposes_nothing_is_incomplete(lab: Lab) -> None:
    result = lab.run(lab.workflow("print('nothing to say')", outputs=["rows"]))
    assert (result.exit_code, result.outcome) == (5, "incomplete")
    assert not (lab.folder / "out").exists()


def test_an_agent_that_says_noop_completes(lab: Lab) -> None:
    agent = PROPOSE + "asyncio.run(propose({'reason': 'nothing to do'}, tool='noop'))\n"
    result = lab.run(lab.workflow(agent, outputs=["rows"]))
    assert (result.exit_code, result.outcome) == (0, "completed"), result.stderr


def test_an_agent_that_reports_incomplete_is_believed(lab: Lab) -> None:
    agent = PROPOSE + (
        "asyncio.run(propose({'text': 'half'}))\n"
        "asyncio.run(propose({'reason': 'no more seeds'}, tool='report_incomplete'))\n"
    )
    result = lab.run(lab.workflow(agent, outputs=["rows"]))
    assert (result.exit_code, result.outcome) == (5, "incomplete")
    assert not (lab.folder / "out").exists()


def test_a_failing_agent_fails_the_run_and_nothing_is_applied(lab: Lab) -> None:
    agent = PROPOSE + "asyncio.run(propose({'text': 'hello'}))\nsys.exit(3)\n"
    result = lab.run(lab.workflow(agent, outputs=["rows"]))
    assert (result.exit_code, result.outcome) == (5, "failed")
    assert not (lab.folder / "out").exists()
    assert result.folder is not None
    assert b"hello" in (result.folder / "writes" / "agent.jsonl").read_bytes()  # kept for people


def test_an_agent_that_takes_too_long_times_out(lab: Lab) -> None:
    limits = {"cpu": 1, "memory": "128MiB", "pids": 16, "disk": "8MiB", "wall": "3s"}
    result = lab.run(lab.workflow("import time; time.sleep(60)", limits=limits))
    assert (result.exit_code, result.outcome) == (124, "timed_out")


def test_a_row_with_the_canary_is_rejected_in_every_guise(lab: Lab) -> None:
    lab.env["LAB_SECRET"] = CANARY
    once = base64.b64encode(CANARY.encode()).decode()
    rows = [
        {"text": "an honest row"},
        {"text": f"the key is {CANARY}"},
        {"text": f"blob {once}"},
        {"text": base64.b64encode(once.encode()).decode()},
        {"text": CANARY.encode().hex()},
        {"text": CANARY[::-1]},
    ]
    agent = PROPOSE + f"print(asyncio.run(propose(*json.loads({json.dumps(rows)!r}))))\n"
    model = {"provider": "openai", "model": "gpt-4o-mini", "secret": "key", "price": {"input": 1, "output": 1}}
    top = {"secrets": {"key": {"from": "env", "key": "LAB_SECRET"}}, "models": {"m": model}}
    result = lab.run(lab.workflow(agent, outputs=["rows"], top=top))
    assert result.exit_code == 0, result.stderr
    written = [json.loads(line) for line in (lab.folder / "out" / "rows.jsonl").read_text().splitlines()]
    assert written == [{"text": "an honest row"}]
    summary = next(e for e in result.of("write.judged") if "casemate.write.accepted" in e.attrs)
    assert (summary.attrs["casemate.write.accepted"], summary.attrs["casemate.write.rejected"]) == (1, 5)
    assert CANARY not in (lab.folder / ".casemate").joinpath("journal.db").read_bytes().decode(errors="replace")


def test_only_rejected_writes_end_with_6(lab: Lab) -> None:
    lab.env["LAB_SECRET"] = CANARY
    agent = PROPOSE + f"asyncio.run(propose({{'text': {CANARY!r}}}))\n"
    model = {"provider": "openai", "model": "gpt-4o-mini", "secret": "key", "price": {"input": 1, "output": 1}}
    top = {"secrets": {"key": {"from": "env", "key": "LAB_SECRET"}}, "models": {"m": model}}
    result = lab.run(lab.workflow(agent, outputs=["rows"], top=top))
    assert result.exit_code == 6
    assert not (lab.folder / "out").exists()


def test_a_dry_run_is_applied_later_once_and_taken_back(lab: Lab) -> None:
    agent = PROPOSE + "asyncio.run(propose({'text': 'hello'}))\n"
    result = lab.run(lab.workflow(agent, outputs=["rows"]), "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.folder is not None
    target = lab.folder / "out" / "rows.jsonl"
    assert not target.exists()
    for _ in range(2):
        assert "1 rows applied" in lab.cli("apply", "latest").stdout
        assert target.read_text() == '{"text":"hello"}\n'
    assert [e.event.value for e in read_events(result.folder)][-2:] == ["run.ended", "write.applied"]
    assert lab.cli("log", "verify", "latest").returncode == 0
    assert "undone" in lab.cli("undo", "latest").stdout
    assert not target.exists()
    assert lab.cli("log", "verify", "latest").returncode == 0


def test_a_missing_secret_refuses_before_anything_starts(lab: Lab) -> None:
    model = {"provider": "openai", "model": "gpt-4o-mini", "secret": "key", "price": {"input": 1, "output": 1}}
    top = {"secrets": {"key": {"from": "env", "key": "LAB_ABSENT"}}, "models": {"m": model}}
    result = lab.run(lab.workflow("print(1)", top=top))
    assert result.exit_code == 4
    assert "CSM-R009" in result.stderr
    assert result.folder is None


def test_fifty_calls_at_once_never_pass_a_ceiling_for_ten(lab: Lab) -> None:
    agent = """
import asyncio, collections, json
from openai import AsyncOpenAI, PermissionDeniedError

async def one(client, n):
    try:
        messages = [{"role": "user", "content": f"{n} +"}]
        await client.chat.completions.create(model="teacher", max_tokens=4, messages=messages)
        return "answered"
    except PermissionDeniedError as error:
        return error.body["code"]

async def main():
    client = AsyncOpenAI(max_retries=0, timeout=100)
    print(json.dumps(collections.Counter(await asyncio.gather(*(one(client, n) for n in range(50))))))

asyncio.run(main())
"""
    limits = {"cpu": 1, "memory": "512MiB", "pids": 64, "disk": "16MiB", "wall": "100s", "calls": 10}
    result = lab.run(lab.workflow(agent, models=["teacher"], limits=limits, top=MODEL))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.agent_log().splitlines()[-1]) == {"answered": 10, "CSM-P023": 40}
    assert len(result.of("llm.settled")) == 10
    assert len([e for e in result.of("llm.decided") if e.verdict == "deny"]) == 40


@pytest.mark.parametrize("role", ["firewall", "llm", "gateway", "relay"])
def test_a_trusted_process_killed_mid_run_fails_it_and_nothing_is_applied(lab: Lab, role: str) -> None:
    process = lab.start(lab.workflow(HOLD, outputs=["rows"]))
    lab.await_event("write.proposed")
    lab.engine.kill(lab.container(role))
    result = lab.finish(process, timeout_s=60)
    assert (result.exit_code, result.outcome) == (5, "failed")
    assert "CSM-R004" in result.stderr
    assert not (lab.folder / "out").exists()
    assert result.folder is not None
    verify(result.folder)
    assert lab.left_over() == []


def test_sigterm_ends_a_run_in_order(lab: Lab) -> None:
    process = lab.start(lab.workflow(HOLD, outputs=["rows"]))
    lab.await_event("write.proposed")
    process.send_signal(signal.SIGTERM)
    result = lab.finish(process, timeout_s=60)
    assert (result.exit_code, result.outcome) == (130, "cancelled")
    assert not (lab.folder / "out").exists()
    assert lab.left_over() == []


@pytest.mark.alone
def test_after_sigkill_of_the_orchestrator_gc_leaves_nothing(lab: Lab) -> None:
    process = lab.start(lab.workflow(HOLD, outputs=["rows"]))
    lab.await_event("write.proposed")
    assert lab.cli("gc").stdout.strip().startswith("0 runs")  # a run that is driven is not swept
    assert lab.left_over()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert lab.left_over(), "the control: a crash does leave something"
    assert "crashed" in lab.cli("runs").stdout
    swept = lab.cli("gc")
    assert swept.returncode == 0, swept.stderr
    assert lab.left_over() == []
    assert not (lab.folder / "out").exists()


def test_artifacts_are_carried_and_links_are_not(lab: Lab) -> None:
    honest = "import os; os.makedirs('artifacts/deep'); open('artifacts/deep/a.txt', 'w').write('carried')"
    result = lab.run(lab.workflow(honest))
    assert result.exit_code == 0, result.stderr
    assert result.artifact("agent/deep/a.txt") == b"carried"
    hostile = honest + "; os.symlink('/etc/passwd', 'artifacts/link')"
    result = lab.run(lab.workflow(hostile))
    assert result.exit_code == 5
    assert "not a plain file" in str(result.of("stage.ended")[-1].reason)


def test_a_dry_run_applies_nothing(lab: Lab) -> None:
    agent = PROPOSE + "asyncio.run(propose({'text': 'hello'}))\n"
    result = lab.run(lab.workflow(agent, outputs=["rows"]), "--dry-run")
    assert result.exit_code == 0
    assert result.of("write.judged")
    assert not (lab.folder / "out").exists()


def test_a_wrong_workflow_starts_nothing(lab: Lab) -> None:
    path = lab.workflow("print(1)")
    path.write_text(path.read_text() + "shards: 3\n")
    result = lab.run(path)
    assert result.exit_code == 3
    assert f"at: workflow.yaml:{len(path.read_text().splitlines())}:1" in result.stderr
    assert result.folder is None
    assert lab.left_over() == []


def test_a_plan_file_runs_like_its_workflow_and_a_changed_one_does_not(lab: Lab) -> None:
    agent = PROPOSE + "asyncio.run(propose({'text': 'hello'}))\n"
    workflow = lab.workflow(agent, outputs=["rows"])
    plan = lab.folder / "plan.json"
    assert lab.cli("compile", str(workflow), "-o", str(plan)).returncode == 0
    assert lab.run(plan).exit_code == 0
    data = plan.read_bytes()
    for changed in (
        data.replace(b'"additionalProperties":false', b'"additionalProperties":true'),
        data.replace(b'"casemate":1', b'"casemate":2'),
        data.replace(b'"name":"lab"', b'"name": "lab"'),
        data.replace(b'"needs":[]', b'"needs":["agent"]'),
        data[:-40],
    ):
        assert changed != data
        plan.write_bytes(changed)
        result = lab.cli("run", str(plan))
        assert result.returncode == 3, result.stderr
        assert "Traceback" not in result.stderr


def test_a_widened_workflow_does_not_run_until_it_is_approved(lab: Lab) -> None:
    agent = PROPOSE + "asyncio.run(propose({'text': 'hello'}))\n"
    path = lab.workflow(agent, outputs=["rows"])
    locked = lab.cli("lock", str(path))
    assert locked.returncode == 0, locked.stderr
    assert lab.run(path).exit_code == 0
    lab.workflow(agent, outputs=["rows"], egress=[{"host": "data.example.com"}])
    result = lab.cli("run", str(path))
    assert result.returncode == 4
    assert "CSM-R022" in result.stderr
    assert "data.example.com" in result.stderr
    shown = lab.cli("lock", str(path))
    assert "data.example.com" in shown.stdout
    assert lab.run(path).exit_code == 0


def test_what_would_be_ignored_is_not_run(lab: Lab) -> None:
    sink = {"kind": "mcp", "server": "notes", "tool": "note"}
    outputs = {"rows": {"sink": sink, "schema": "rows.json", "quota": {"per_run": 1}}}
    top = {"tools": {"notes": {"url": "https://mcp.example.com/mcp"}}, "outputs": outputs}
    result = lab.cli("run", str(lab.workflow("print(1)", outputs=["rows"], top=top)))
    assert result.returncode == 4
    assert "CSM-R021: output rows: notes.note, which nobody pinned" in result.stderr
    assert lab.left_over() == []


def test_sarif_and_strict_are_for_ci(lab: Lab) -> None:
    path = lab.workflow("print(1)", image="company/agent:1")
    assert lab.cli("check", str(path)).returncode == 0
    strict = lab.cli("check", "--strict", "--sarif", str(path))
    assert strict.returncode == 3
    (run,) = json.loads(strict.stdout)["runs"]
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("CSM-C025", "error")
    assert result["locations"][0]["physicalLocation"]["region"]["startLine"] > 1


@pytest.mark.parametrize("component", list(Component)[1:5])
@pytest.mark.parametrize("honest", [True, False])
def test_a_trusted_image_refuses_a_slice_changed_by_one_byte(lab: Lab, component: Component, honest: bool) -> None:
    project = open_project(lab.workflow("print(1)", outputs=["rows"]))
    plan = compile_project(project, lab.engine)
    top = topology(plan, "20260101-000000-000000", home=str(lab.folder / ".casemate"), host="lab")
    spec = top.customs if component is Component.CUSTOMS else top.trusted[component]
    text = encode(slices(plan)[component])
    if not honest:
        text = text.replace(b'"version":1', b'"version":2')
    message = {
        "run": "r",
        "seal": json.loads(encode(seal(plan))),
        "slice": text.decode(),
        "secrets": {},
        "facts": {"buffer/agent": GENESIS} if component is Component.CUSTOMS else {},
    }
    try:
        carry(lab.engine, top, {"in/agent.jsonl": b""})
        lab.engine.create(spec)
        attached = lab.engine.attach(spec.name, stdin=True)
        lab.engine.start(spec.name)
        attached.send(json.dumps(message).encode())
        if honest and component is Component.CUSTOMS:
            assert lab.engine.wait(spec.name).code == 0  # it judges, and goes
            return
        if honest:  # the control: the same message, unchanged, is accepted
            until(lambda: b"component.ready" in lab.engine.logs(spec.name, stderr=False), 30, "never ready")
            return
        assert lab.engine.wait(spec.name).code == 2
        assert b"CSM-R010" in lab.engine.logs(spec.name, stdout=False)
        assert lab.engine.logs(spec.name, stderr=False) == b""
    finally:
        lab.engine.remove("container", spec.name)
        lab.engine.remove("container", top.carrier.name)
        for volume in top.volumes:
            lab.engine.remove("volume", volume.name)


def test_the_demo_makes_a_data_set_with_a_real_model(lab: Lab) -> None:
    import shutil

    import duckdb

    source = Path(__file__).resolve().parents[2] / "examples" / "distill"
    shutil.copytree(source, lab.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("out", ".casemate"))
    result = lab.run(lab.folder / "workflow.yaml")
    assert result.exit_code == 0, result.stderr
    rows = duckdb.connect().execute(f"select * from '{lab.folder / 'out' / 'samples.parquet'}'").fetchall()
    tally = Tally()
    for event in result.events:
        tally.add(event)
    assert tally.outputs["samples"].accepted == len(rows) >= 10
    assert tally.outputs["samples"].rejected >= 1  # the base model is not perfect, and customs says why
    reasons = [e for e in result.of("write.judged") if e.verdict == "reject" and e.attrs.get("casemate.check")]
    assert {e.attrs["casemate.check"] for e in reasons} <= {"bounds", "unique", "shape"}
    assert len(result.of("llm.settled")) == 48
    teachers = {e.attrs["gen_ai.response.model"] for e in result.of("llm.settled")}
    assert teachers == {"gemma-3-270m"}


def test_a_recorded_run_is_replayed_without_network_keys_or_models(lab: Lab) -> None:
    agent = """
from openai import OpenAI, PermissionDeniedError

client = OpenAI(max_retries=0, timeout=100)

def ask(words):
    try:
        said = client.chat.completions.create(
            model="teacher", max_tokens=6, temperature=1, messages=[{"role": "user", "content": words}])
        return said.choices[0].message.content
    except PermissionDeniedError as error:
        return error.body["code"]

words = open("/inputs/words.txt").read().split()
print([ask(word) for word in words])
"""
    (lab.folder / "words.txt").write_text("one one two")
    inputs = {"agent": {"path": "agent.py"}, "words": {"path": "words.txt"}}
    path = lab.workflow(agent, models=["teacher"], top={**MODEL, "inputs": inputs})
    recorded = lab.run(path, "--record")
    assert recorded.exit_code == 0, recorded.stderr
    assert recorded.folder is not None
    assert len((recorded.folder / "recording" / "agent.jsonl").read_bytes().splitlines()) == 3
    (lab.folder / "words.txt").write_text("one two one one")
    replayed = lab.run(path, "--replay", recorded.folder.name)
    assert replayed.exit_code == 0, replayed.stderr
    one, again, two = eval(recorded.agent_log().splitlines()[-1])
    assert eval(replayed.agent_log().splitlines()[-1]) == [one, two, again, "CSM-P032"]
    assert all(event.attrs["casemate.replayed"] for event in replayed.of("llm.settled"))
    assert not list((replayed.folder or lab.folder).glob("recording/*"))
    refused = lab.cli("run", str(path), "--replay", (replayed.folder or lab.folder).name)
    assert (refused.returncode, "CSM-R023" in refused.stderr) == (2, True)

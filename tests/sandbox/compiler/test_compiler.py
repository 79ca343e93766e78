"""The same workflow is the same plan, wherever and whenever it is compiled."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from policies.plan import Plan, encode
from policies.slices import seal
from sandbox.compiler.compile import compile_plan, wanted_images
from sandbox.compiler.resolve import resolve
from sandbox.lineage.registry import registry
from sandbox.plan_check.invariants import violations
from sandbox.project import open_project
from sandbox.records.store import as_json, load_plan
from tests.plans import SHA
from tests.sandbox.conftest import WORKFLOW

ROOT = Path(__file__).resolve().parents[3]


def compiled(path: Path) -> Plan:
    project = open_project(path)
    assert project.findings == []
    assert project.workflow is not None
    assert project.document is not None
    facts = resolve(project.workflow, project.root, dict.fromkeys(wanted_images(project.workflow), SHA))
    return compile_plan(project.workflow, project.document, facts, dict(registry()))


def test_a_compiled_plan_has_no_violations_and_reads_back(project: Path) -> None:
    plan = compiled(project)
    assert violations(as_json(plan)) == []
    assert load_plan(encode(plan) + b"\n") == plan


def test_two_processes_with_two_hash_seeds_give_the_same_bytes(project: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.sandbox.compiler.test_compiler import compiled; "
        "from policies.plan import encode; sys.stdout.buffer.write(encode(compiled(Path(sys.argv[1]))))"
    )
    outputs = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC+{seed}"}
        done = subprocess.run(
            [sys.executable, "-c", code, str(project)], capture_output=True, check=True, cwd=ROOT, env=env
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] == encode(compiled(project))


def test_everything_that_matters_changes_the_digest(project: Path) -> None:
    seen = {seal(compiled(project)).plan}
    for old, new in (
        ("usd: 1.5", "usd: 1.6"),
        ("max: 1}", "max: 2}"),
        ("data.example.com", "dota.example.com"),
        ("[python, /inputs/agent.py]", "[python, /inputs/other.py]"),
        ("name: example", "name: example # a comment"),
    ):
        project.write_text(WORKFLOW.replace(old, new, 1))
        seen.add(seal(compiled(project)).plan)
    project.write_text(WORKFLOW)
    (project.parent / "seeds.jsonl").write_text('{"n": 2}\n')
    seen.add(seal(compiled(project)).plan)
    (project.parent / "rows.json").write_text((project.parent / "rows.json").read_text() + " ")
    seen.add(seal(compiled(project)).plan)
    assert len(seen) == 8


def test_quantities_are_exact(project: Path) -> None:
    plan = compiled(project)
    assert plan.budget.usd_nanos == 1_500_000_000
    assert plan.budget.wall_s == 1200
    judge, teacher = plan.models
    assert (judge.price.input, judge.price.output) == (150, 600)
    assert (teacher.price.input, teacher.price.output) == (100, 400)
    limits = plan.stages[0].limits
    assert (limits.cpu_millis, limits.memory, limits.disk, limits.wall_s) == (500, 256 << 20, 32 << 20, 90)
    assert limits.tokens == 100_000  # not stated: the run's
    assert plan.stages[1].limits.usd_nanos == plan.budget.usd_nanos


def test_a_price_is_rounded_up(project: Path) -> None:
    project.write_text(WORKFLOW.replace("input: 0.1,", "input: 0.0001,"))
    assert compiled(project).models[1].price.input == 1


def test_the_plan_of_a_secret_has_its_name_only(project: Path) -> None:
    os.environ["CASEMATE_TEST_KEY"] = value = "sk-" + hashlib.sha256(b"canary").hexdigest()
    try:
        text = encode(compiled(project)).decode()
    finally:
        del os.environ["CASEMATE_TEST_KEY"]
    assert value not in text
    assert "CASEMATE_TEST_KEY" in text

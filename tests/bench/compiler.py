"""`python -m tests.bench.compiler`: how long it takes from YAML to a checked plan, by size, in one run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import yaml

from policies.plan import encode
from sandbox.checks import check
from sandbox.compiler.compile import compile_plan, wanted_images
from sandbox.compiler.resolve import resolve
from sandbox.language.findings import has_errors
from sandbox.language.source import parse
from sandbox.language.workflow import read
from sandbox.lineage.registry import registry
from sandbox.plan_check.invariants import violations
from sandbox.records.store import as_json
from tests.plans import SCHEMA, SHA

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = 20


class Plain(yaml.SafeDumper):
    """Writes what it is given out in full."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def workflow(stages: int) -> str:
    """Return a workflow of `stages` stages in a row, and twenty outputs."""
    names = [f"out-{n}" for n in range(OUTPUTS)]
    document = {
        "casemate": 1,
        "name": "bench",
        "budget": {"usd": 1, "tokens": 1000, "calls": 1000, "wall": "1h"},
        "models": {"m": {"provider": "local", "model": "gemma-3-270m", "price": {"input": 0, "output": 0}}},
        "stages": [
            {
                "name": f"stage-{n}",
                "image": "casemate/agent-python",
                "run": ["python", f"/inputs/{n}.py"],
                "needs": [f"stage-{n - 1}"] if n else [],
                "models": ["m"],
                "egress": [{"host": f"h{n}.example.com"}, {"host": "*.cdn.example.com"}],
                "outputs": names,
                "limits": {"cpu": 1, "memory": "128MiB", "wall": "60s"},
            }
            for n in range(stages)
        ],
        "outputs": {
            name: {
                "sink": {"kind": "dataset", "path": f"out/{name}.jsonl"},
                "schema": "rows.json",
                "quota": {"per_run": 10},
                "bounds": {"score": {"min": 0, "max": 1}},
            }
            for name in names
        },
    }
    return yaml.dump(document, Dumper=Plain, sort_keys=False)


def once(text: bytes, root: Path) -> dict[str, float]:
    """Return the milliseconds of each step."""
    marks = [("", time.perf_counter())]
    document = parse(text, "w.yaml")
    marks.append(("source", time.perf_counter()))
    spec = read(document)
    marks.append(("workflow", time.perf_counter()))
    facts = resolve(spec, root, dict.fromkeys(wanted_images(spec), SHA))
    findings = check(spec, document, facts)
    assert not has_errors(findings), findings[0].render()
    marks.append(("checks", time.perf_counter()))
    plan = compile_plan(spec, document, facts, dict(registry()))
    data = encode(plan)
    marks.append(("compile", time.perf_counter()))
    assert violations(as_json(plan)) == []
    marks.append(("plan_check", time.perf_counter()))
    steps = {name: 1000 * (end - start) for (_, start), (name, end) in pairwise(marks)}
    return {**steps, "all": sum(steps.values()), "bytes": len(data)}


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "rows.json").write_text(json.dumps(SCHEMA))
        print("milliseconds, median of 3")
        for stages in (1, 10, 100, 300, 1000):
            text = workflow(stages).encode()
            rounds = [once(text, root) for _ in range(3)]
            row = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
            print(f"{stages:5} stages  " + "  ".join(f"{name} {value:,.0f}" for name, value in row.items()))
    demo = str(ROOT / "examples" / "distill" / "workflow.yaml")
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sandbox", "check", demo], check=True, capture_output=True, cwd=ROOT)
        times.append(1000 * (time.perf_counter() - start))
    print(f"casemate check, from the shell: median {statistics.median(times):.0f} ms, worst {max(times):.0f} ms")


if __name__ == "__main__":
    main()

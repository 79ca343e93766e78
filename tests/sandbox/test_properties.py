"""What holds for every workflow, tried on generated ones. CASEMATE_CASES sets how many."""

from __future__ import annotations

import copy
import os
from random import Random
from typing import Any

import pytest

from policies.plan import encode
from sandbox.checks import check
from sandbox.language.findings import has_errors
from sandbox.plan_check.invariants import violations
from sandbox.plans.diff import difference, permissions
from sandbox.records.store import as_json, load_plan
from tests.sandbox.generate import compiled, typed, workflow

CASES = int(os.environ.get("CASEMATE_CASES", "400"))


def test_what_the_compiler_makes_plan_check_accepts_and_twice_it_makes_the_same() -> None:
    for seed in range(CASES):
        data = workflow(Random(seed))
        spec, document, facts = typed(data)
        findings = check(spec, document, facts)
        assert not has_errors(findings), (seed, [f.render() for f in findings])
        plan = compiled(data)
        assert violations(as_json(plan)) == [], seed
        shuffled = {key: data[key] for key in sorted(data, key=lambda k: Random(seed).random())}
        for section in ("secrets", "models", "tools", "inputs", "outputs"):
            shuffled[section] = dict(sorted(data[section].items(), reverse=True))
        again = compiled(shuffled)
        assert encode(plan) == encode(again), seed
        assert load_plan(encode(plan)) == plan


def test_removing_a_permission_never_widens() -> None:
    removed = 0
    for seed in range(CASES // 4):
        data = workflow(Random(seed))
        before = permissions(compiled(data))
        for index, stage in enumerate(data["stages"]):
            for key in ("models", "egress", "tools", "env", "inputs", "outputs"):
                if not stage.get(key):
                    continue
                less = copy.deepcopy(data)
                value = less["stages"][index][key]
                value.pop(next(iter(value)) if isinstance(value, dict) else 0)
                change = difference(before, permissions(compiled(less)))
                assert change.widened == (), (seed, key, change)
                assert change.narrowed, (seed, key)
                removed += 1
    assert removed > CASES // 4


def test_dropping_a_restriction_always_widens() -> None:
    dropped = 0
    for seed in range(CASES // 4):
        data = workflow(Random(seed))
        before = permissions(compiled(data))
        for name, output in data["outputs"].items():
            for key in ("bounds", "unique", "per_day"):
                less = copy.deepcopy(data)
                holder = less["outputs"][name] if key != "per_day" else less["outputs"][name]["quota"]
                if holder.pop(key, None):
                    assert difference(before, permissions(compiled(less))).widened, (seed, name, key)
                    dropped += 1
            for key in ("paths", "files") if output["sink"].get("patch") else ():
                less = copy.deepcopy(data)
                less["outputs"][name]["sink"]["patch"] |= {"paths": [], "files": 99} if key == "paths" else {key: 999}
                assert difference(before, permissions(compiled(less))).widened, (seed, name, key)
                dropped += 1
            if output["approval"] == "always":
                less = copy.deepcopy(data)
                less["outputs"][name]["approval"] = "never"
                assert difference(before, permissions(compiled(less))).widened
                dropped += 1
    assert dropped > CASES // 8


def mutations() -> list[tuple[str, Any]]:
    """Ways to break an invariant somewhere in a plan; each is tried on plans in which its path exists."""
    hosts = [
        "*",
        "*.com",
        "10.0.0.1",
        "::1",
        "localhost",
        "UPPER.example.com",
        "a..b.com",
        "x.example.com\n",
        "",
        "2130706433",
    ]
    found: list[tuple[str, Any]] = [("stages/0/egress/0/host", host) for host in hosts]
    found += [("tools/0/egress/0/host", host) for host in hosts]
    found += [("models/0/host", host) for host in ("10.0.0.1", "*.example.com", "")]
    found += [("stages/0/egress/0/port", port) for port in (0, 70_000, -1)]
    found += [("stages/0/egress/0/scheme", scheme) for scheme in ("ftp", "", "ws")]
    found += [("stages/0/egress/0/methods", ["GET"]), ("tools/0/egress/0/port", 0)]
    found += [("secrets/0/holder", holder) for holder in ("agent", "sandbox", "relay", "model", "")]
    found += [("secrets/0/destination", "evil.example.com"), ("secrets/0/name", "renamed")]
    found += [(f"stages/0/limits/{key}", 2**52) for key in ("usd_nanos", "tokens", "calls", "wall_s")]
    found += [(f"stages/0/limits/{key}", 0) for key in ("cpu_millis", "memory", "pids", "disk", "wall_s")]
    found += [(f"stages/0/{key}", ["absent"]) for key in ("needs", "inputs", "models", "outputs")]
    found += [("stages/0/needs", ["stage-0"]), ("stages/0/tools", {"absent": ["x"]}), ("stages/0/image", "absent")]
    names = [
        "LD_PRELOAD",
        "HOME",
        "HTTP_PROXY",
        "https_proxy",
        "OPENAI_API_KEY",
        "PYTHONPATH",
        "NODE_OPTIONS",
        "CASEMATE_RUN",
    ]
    found += [("stages/0/env", {name: "x"}) for name in names]
    found += [
        ("stages/0/profile", "none"),
        ("stages/0/shards", {"over": "absent", "size": 1, "parallel": 1, "count": 1}),
    ]
    found += [(f"outputs/0/{key}", 0) for key in ("per_run", "max_bytes")]
    found += [("outputs/0/scan", []), ("outputs/0/scan", ["pii"]), ("outputs/0/schema", {}), ("outputs/0/sink", "smtp")]
    found += [("outputs/0/schema", {"type": "object", "properties": {"a": {}}}), ("outputs/0/schema/type", "array")]
    found += [("outputs/0/path", path) for path in ("/etc/x", "../x", "a\\b")]
    found += [("outputs/0/per_day", 0), ("outputs/0/per_minute", -1)]
    found += [("outputs/0/git/base", base) for base in ("casemate/x", "", "-f", "a..b", "a b", "x.lock", "a\nb")]
    found += [("outputs/0/git/prefix", prefix) for prefix in ("", "/", "x", "../", "-/", "a b/")]
    found += [("outputs/0/git/author", "A <b>"), ("outputs/0/git/user", "a:b"), ("outputs/0/git/email", "x\n")]
    found += [("outputs/0/git", None), ("outputs/0/git/pull_request/project", "acme/other")]
    found += [("outputs/0/git/pull_request/api", "http://git.example.com")]
    found += [("outputs/0/git/pull_request/forge", "pagure")]  # the labels of another are nothing to it
    places = (
        "http://git.example.com/a/b",
        "https://u:p@git.example.com/a/b",
        "ext::sh",
        "file:///a/b",
        "https://x/../b",
    )
    found += [("outputs/0/target/repository", place) for place in places]
    found += [(f"images/{n}/digest", value) for n in range(4) for value in ("", "latest", "sha256:abc")]
    found += [("images/0/name", "other"), ("inputs/0/target", "../x"), ("inputs/0/target", ""), ("inputs/0/digest", "")]
    found += [("models/0/max_output_tokens", 0), ("models/0/price/input", -1), ("models/0/price/output", -5)]
    found += [("models/0/fallback", ["absent"]), ("models/0/fallback", ["model-0"])]
    found += [("models/0/routes", [{"kind": "small", "below": 1, "use": "absent"}])]
    found += [("tools/0/image", None), ("tools/0/url", "https://both.example.com"), ("tools/0/name", "renamed")]
    found += [("student", {"model": "m", "init_root": None, "policy": "no-same-init", "verdict": v, "exceptions": []})
              for v in ("same_init", "unknown")]  # fmt: skip
    return found


@pytest.mark.parametrize(("path", "value"), mutations())
def test_a_mutated_plan_is_caught(path: str, value: Any) -> None:
    tried = 0
    for seed in range(200):
        plan: Any = as_json(compiled(workflow(Random(seed))))
        *parents, last = path.split("/")
        target = plan
        try:
            for part in parents:
                target = target[int(part) if part.isdigit() else part]
            key: Any = int(last) if last.isdigit() else last
            seen = last == "methods" and target["inspect"]  # there a method may be limited
            unused = path == "tools/0/name" and "tool-0" not in str(plan["stages"])
            if target[key] == value or seen or unused:
                continue
        except (IndexError, KeyError, TypeError):
            continue
        target[key] = value
        assert violations(plan), (seed, path, value)
        tried += 1
        if tried == 5:
            return
    assert tried, "no generated plan has this path"


def test_nothing_is_taken_out_of_a_patch() -> None:
    for seed in range(200):
        plan: Any = as_json(compiled(workflow(Random(seed))))
        for output in plan["outputs"]:
            if output["git"] is not None and "pii" in output["scan"]:
                assert violations(plan) == []
                output["findings"] = {"pii": "redact"}
                assert violations(plan)
                return
    raise AssertionError("no generated plan has such an output")


def test_there_are_a_hundred_mutations() -> None:
    assert len(mutations()) >= 100

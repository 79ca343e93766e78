"""What was approved, and what is wider: a plan that allows more does not run until a person approves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.errors import CasemateError
from policies.plan import Approvers, EgressQuota, Guard, Plan, ProbeFile, Retry, Shards, ToolRule
from sandbox.plans.diff import difference, permissions
from sandbox.plans.enforce import unenforced
from sandbox.plans.explain import explain
from sandbox.plans.lock import NAME, approve, refuse_widened
from tests.plans import SHA, plan


def changed(**fields: Any) -> Plan:
    return msgspec.structs.replace(plan(), **fields)


def stage(**fields: Any) -> Plan:
    first, *rest = plan().stages
    return changed(stages=[msgspec.structs.replace(first, **fields), *rest])


def output(**fields: Any) -> Plan:
    return changed(outputs=[msgspec.structs.replace(plan().outputs[0], **fields)])


RULE = plan().stages[0].egress[0]
TOOLS = {"repo": ["read"]}


def read(**rule: Any) -> ToolRule:
    return ToolRule(server="repo", tool="read", **rule)


GUARD = Guard(argument="path", below="/inputs/repo")
WIDER = {
    "a budget": changed(budget=msgspec.structs.replace(plan().budget, usd_nanos=2 * 10**9)),
    "a host": stage(egress=[RULE, msgspec.structs.replace(RULE, host="more.example.com")]),
    "a port": stage(egress=[msgspec.structs.replace(RULE, port=8443)]),
    "a scheme": stage(egress=[msgspec.structs.replace(RULE, scheme="http")]),
    "a program": stage(run=["python", "/inputs/other.py"]),
    "an environment": stage(env={"A": "b"}),
    "an output": stage(outputs=["rows"]),
    "a tool": stage(tools={"repo": ["write"]}),
    "a resource": stage(tools={"repo": []}, resources={"repo": ["memo://a"]}),
    "a prompt": stage(tools={"repo": []}, prompts={"repo": ["summary"]}),
    "more at once": stage(shards=Shards(over="seeds", size=1, parallel=8, count=9)),
    "a longer run": stage(limits=msgspec.structs.replace(plan().stages[0].limits, wall_s=61)),
    "more memory": stage(limits=msgspec.structs.replace(plan().stages[0].limits, memory=1 << 30)),
    "a quota": output(per_run=11),
    "a path": output(path="elsewhere/rows.jsonl"),
    "a schema": output(schema={**plan().outputs[0].schema, "required": []}),
    "no bounds": output(bounds={}),
    "no uniqueness": output(unique=[]),
    "no scan": output(scan=[]),
    "a model": changed(models=[msgspec.structs.replace(m, model="gpt-4o") for m in plan().models]),
    "a host of a model": changed(models=[msgspec.structs.replace(m, host="x.example.com") for m in plan().models]),
    "a destination": changed(secrets=[msgspec.structs.replace(plan().secrets[0], destination="x.example.com")]),
}


@pytest.mark.parametrize("name", WIDER)
def test_a_wider_plan_is_refused_until_it_is_approved(tmp_path: Path, name: str) -> None:
    refuse_widened(WIDER[name], tmp_path)  # nothing was approved: nothing to hold it against
    approve(plan(), tmp_path)
    refuse_widened(plan(), tmp_path)
    with pytest.raises(CasemateError, match="CSM-R022"):
        refuse_widened(WIDER[name], tmp_path)
    assert approve(WIDER[name], tmp_path).widened
    refuse_widened(WIDER[name], tmp_path)


NARROWER = {
    "a budget": changed(budget=msgspec.structs.replace(plan().budget, usd_nanos=1)),
    "no egress": stage(egress=[]),
    "no models": stage(models=[]),
    "a quota": output(per_run=1),
    "approval": output(approval="always"),
    "probes": output(probes=[ProbeFile(path="evals.jsonl", digest=SHA)]),
    "signatures": output(approvers=Approvers(need=2, keys={"anna": "0" * 64, "ben": "1" * 64})),
    "all or nothing": output(atomic="batch"),
    "a daily quota": output(per_day=5),
    "a profile": stage(profile="ci-fork"),
}


@pytest.mark.parametrize("name", NARROWER)
def test_a_narrower_plan_runs_and_its_way_back_is_wider(tmp_path: Path, name: str) -> None:
    approve(plan(), tmp_path)
    refuse_widened(NARROWER[name], tmp_path)
    change = difference(permissions(plan()), permissions(NARROWER[name]))
    assert change.narrowed
    assert not change.widened
    assert difference(permissions(NARROWER[name]), permissions(plan())).widened


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"example": {}}', '{"example": {"allows": {"a": "x"}}}'])
def test_a_lock_that_cannot_be_read_refuses(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(CasemateError, match="CSM-R022"):
        refuse_widened(plan(), tmp_path)


def test_two_workflows_share_a_lock(tmp_path: Path) -> None:
    approve(plan(), tmp_path)
    approve(changed(name="other"), tmp_path)
    with pytest.raises(CasemateError, match="CSM-R022"):
        refuse_widened(WIDER["a host"], tmp_path)


def test_what_cannot_be_enforced_is_named_and_nothing_else() -> None:
    assert unenforced(plan()) == []
    assert unenforced(output(approval="always", per_day=5, scan=["pii", "secrets"])) == []
    assert unenforced(stage(retry=Retry(attempts=2, on=["failed"]))) == []
    assert unenforced(stage(locks=["repo:x"])) == []
    assert unenforced(stage(shards=Shards(over="seeds", size=1, parallel=1, count=1))) == []


@pytest.mark.parametrize(
    "after",
    [[], [read(calls=51, guards=[GUARD])], [read(calls=50)], [read(guards=[GUARD])],
     [read(calls=50, guards=[Guard(argument="path", below="/inputs")])]],
)  # fmt: skip
def test_a_tool_with_fewer_rules_is_wider(tmp_path: Path, after: list[ToolRule]) -> None:
    before = stage(tools=TOOLS, tool_rules=[read(calls=50, guards=[GUARD])])
    approve(before, tmp_path)
    refuse_widened(before, tmp_path)
    with pytest.raises(CasemateError, match="CSM-R022"):
        refuse_widened(stage(tools=TOOLS, tool_rules=after), tmp_path)
    # control: fewer calls, and no tool at all, are narrower
    refuse_widened(stage(tools=TOOLS, tool_rules=[read(calls=49, guards=[GUARD])]), tmp_path)
    refuse_widened(stage(tools={}), tmp_path)


def test_what_each_shard_may_move_is_stated_for_all_of_them() -> None:
    rule = msgspec.structs.replace(RULE, quota=EgressQuota(requests=10, bytes=None))
    parts = [stage(egress=[rule], shards=Shards(over="seeds", size=1, parallel=2, count=n)) for n in (3, 4)]
    change = difference(*map(permissions, parts))
    assert [line.rpartition(": ")[2] for line in change.widened] == ["30 → 40"]
    assert not change.narrowed


def test_shards_are_explained() -> None:
    parts = Shards(over="seeds", size=25, parallel=8, count=1200)
    text = "\n".join(explain(stage(shards=parts)))
    assert "1,200 times, each for 25 of seeds; 8 at once" in text
    assert "all of its shards together" in text

"""plan_check catches what a compiler must never do. Each case breaks one thing in a sound plan."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sandbox.plan_check.invariants import violations
from tests.plans import as_json, plan


def test_a_sound_plan_has_no_violations() -> None:
    assert violations(as_json(plan())) == []


def at(tree: Any, path: str) -> Any:
    for part in path.split("/")[:-1]:
        tree = tree[int(part) if part.isdigit() else part]
    return tree


SETS: list[tuple[str, Any]] = [
    ("stages/1/outputs", []),
    ("stages/0/shards", {"over": "absent", "size": 1, "parallel": 1, "count": 1}),
    ("stages/0/shards", {"over": "seeds", "size": 1, "parallel": 1, "count": 0}),
    ("stages/0/shards", {"over": "seeds", "size": 1, "parallel": 1, "count": 10_001}),
    ("stages/0/shards", {"over": "seeds", "size": 1, "parallel": 0, "count": 1}),
    ("outputs/0/addresses", ["10.0.0.0/8"]),
    ("secrets/0/holder", "agent"),
    ("secrets/0/holder", "sandbox"),
    ("secrets/0/holder", "gateway"),
    ("secrets/0/destination", "evil.example.com"),
    ("secrets/0/name", "other_key"),
    ("models/1/secret", None),
    ("models/1/secret", "absent"),
    ("models/1/host", "*.example.com"),
    ("models/1/host", "10.0.0.1"),
    ("models/1/host", "localhost"),
    ("models/1/host", "x.local"),
    ("models/0/host", "api.example.com"),
    ("models/0/max_output_tokens", 0),
    ("models/0/price/input", -1),
    ("models/0/price/cache_read", 101),
    ("models/0/price/cache_write", 50),
    ("models/0/price/cache_write", 150),
    ("models/0/price/cache_write_1h", 200),
    ("budget/per_day", {"usd_nanos": 1, "tokens": None, "calls": None}),
    ("stages/0/limits/rate", {"requests": 0, "tokens": None, "parallel": None}),
    ("stages/0/limits/call", {"tokens": 10**9, "usd_nanos": None}),
    ("stages/0/env", {"OPENAI_API_KEY": "x"}),
    ("stages/0/env", {"LD_PRELOAD": "/x.so"}),
    ("stages/0/env", {"HTTPS_PROXY": "http://evil"}),
    ("stages/0/env", {"MY": "openai_key"}),
    ("stages/0/egress/0/host", "*"),
    ("stages/0/egress/0/host", "*.com"),
    ("stages/0/egress/0/host", "*.*.example.com"),
    ("stages/0/egress/0/host", "1.1.1.1"),
    ("stages/0/egress/0/host", "::1"),
    ("stages/0/egress/0/host", "2130706433"),
    ("stages/0/egress/0/host", "Data.example.com"),
    ("stages/0/egress/0/host", "data.example.com."),
    ("stages/0/egress/0/host", "data.example.com\nevil.example.com"),
    ("stages/0/egress/0/host", ""),
    ("stages/0/egress/0/scheme", "ftp"),
    ("stages/0/egress/0/port", 0),
    ("stages/0/egress/0/methods", ["GET"]),
    ("stages/0/egress/0/paths", ["/a"]),
    ("stages/0/egress/0/credential", {"header": "authorization", "secret": "openai_key", "scheme": "Bearer"}),
    ("stages/0/egress/0/quota", {"requests": 0, "bytes": None}),
    ("stages/0/egress/0/quota", {"requests": None, "bytes": 0}),
    ("stages/0/egress/0/addresses", ["0.0.0.0/0"]),
    ("stages/0/egress/0/addresses", ["127.0.0.0/8"]),
    ("stages/0/egress/0/addresses", ["169.254.0.0/16"]),
    ("stages/0/egress/0/addresses", ["10.0.0.1/8"]),
    ("stages/0/egress/0/addresses", ["8.8.8.0/24"]),
    ("models/1/addresses", ["::/0"]),
    ("models/1/addresses", ["fe80::/10"]),
    ("models/1/addresses", ["db.example.com"]),
    ("trust", ["-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]),
    ("trust", ["../ca.pem"]),
    ("stages/0/image", "evil/image"),
    ("stages/0/needs", ["two"]),
    ("stages/0/needs", ["absent"]),
    ("stages/0/inputs", ["absent"]),
    ("stages/0/models", ["absent"]),
    ("stages/1/outputs", ["absent"]),
    ("stages/1/name", "one"),
    ("stages/0/limits/calls", 101),
    ("stages/0/limits/usd_nanos", 10**10),
    ("stages/0/limits/tokens", 10**9),
    ("stages/0/limits/wall_s", 601),
    ("stages/0/limits/wall_s", 0),
    ("stages/0/limits/memory", 0),
    ("stages/0/limits/pids", 0),
    ("stages/0/limits/disk", 0),
    ("stages/0/tool_rules", [{"server": "repo", "tool": "look", "calls": 5, "guards": []}]),
    ("stages/0/resources", {"absent": ["memo://a"]}),
    ("stages/0/prompts", {"absent": ["summary"]}),
    ("outputs/0/schema", {}),
    ("outputs/0/schema", {"type": "object", "properties": {"a": {}}}),
    ("outputs/0/schema/additionalProperties", True),
    ("outputs/0/per_run", 0),
    ("outputs/0/max_bytes", 0),
    ("outputs/0/scan", []),
    ("outputs/0/path", "/etc/cron.d/rows.jsonl"),
    ("outputs/0/path", "../rows.jsonl"),
    ("outputs/0/path", "out/rows.txt"),
    ("images/0/digest", "latest"),
    ("images/0/digest", ""),
    ("images/0/name", "casemate/other"),
    ("inputs/0/digest", "sha256:00"),
    ("inputs/0/target", "../../etc/passwd"),
    ("inputs/0/target", ""),
    ("source/policies", None),
    ("source/registry", ""),
    ("source/digest", "latest"),
]


@pytest.mark.parametrize(("path", "value"), SETS)
def test_a_violation_is_caught(path: str, value: Any) -> None:
    broken = copy.deepcopy(as_json(plan()))
    key = path.split("/")[-1]
    parent = at(broken, path)
    parent[int(key) if key.isdigit() else key] = value
    assert violations(broken), f"{path} = {value!r} went unnoticed"


@pytest.mark.parametrize("name", ["secrets", "models", "images", "inputs", "stages", "outputs", "budget"])
def test_a_missing_part_is_a_violation_not_a_crash(name: str) -> None:
    broken = copy.deepcopy(as_json(plan()))
    del broken[name]
    assert violations(broken)


@pytest.mark.parametrize("name", ["images", "stages", "outputs", "secrets", "models"])
def test_a_doubled_part_is_a_violation(name: str) -> None:
    broken: Any = copy.deepcopy(as_json(plan()))
    broken[name].append(copy.deepcopy(broken[name][0]))
    assert violations(broken)


INSPECTED = {"inspect": True, "methods": ["GET"], "paths": ["/a/b", "/"]}
CREDENTIAL = {"header": "authorization", "secret": "hub_token", "scheme": "Bearer"}


@pytest.mark.parametrize(
    ("change", "sound"),
    [
        ({}, True),
        ({"scheme": "http", "port": 80}, False),
        ({"paths": ["/a/../b"]}, False),
        ({"paths": ["a"]}, False),
        ({"paths": ["/a//b"]}, False),
        ({"paths": ["/a%2fb"]}, False),
        ({"paths": ["/a?b"]}, False),
        ({"paths": ["/a\\b"]}, False),
        ({"credential": CREDENTIAL}, True),
        ({"credential": CREDENTIAL, "host": "*.example.com"}, False),
        ({"credential": CREDENTIAL, "inspect": False, "methods": [], "paths": []}, False),
        ({"credential": {**CREDENTIAL, "secret": "absent"}}, False),
        ({"credential": {**CREDENTIAL, "header": "host"}}, False),
        ({"credential": {**CREDENTIAL, "header": "proxy-authorization"}}, False),
        ({"credential": {**CREDENTIAL, "header": "x\r\ny"}}, False),
        ({"credential": {**CREDENTIAL, "scheme": "Bearer\r\n"}}, False),
    ],
)
def test_what_an_inspecting_rule_may_say(change: dict[str, Any], sound: bool) -> None:
    made: dict[str, Any] = copy.deepcopy(as_json(plan()))
    rule = made["stages"][0]["egress"][0]
    rule.update(INSPECTED | change)
    if rule["credential"]:
        made["secrets"].append({"name": "hub_token", "origin": "env", "key": "HUB", "holder": "firewall",
                                "destination": rule["host"]})  # fmt: skip
    assert (not violations(made)) is sound, violations(made)


@pytest.mark.parametrize(
    ("host", "port", "sound"),
    [
        ("data.example.com", 443, False),
        ("*.example.com", 443, False),
        ("data.example.com", 8443, True),
        ("other.example.com", 443, True),
        ("*.data.example.com", 443, True),
    ],
)
def test_an_opaque_tunnel_around_an_inspected_host_is_caught(host: str, port: int, sound: bool) -> None:
    made: dict[str, Any] = copy.deepcopy(as_json(plan()))
    rules = made["stages"][0]["egress"]
    rules.append({**rules[0], "host": host, "port": port})
    rules[0].update(INSPECTED)
    assert (not violations(made)) is sound, violations(made)


@pytest.mark.parametrize(
    "detour", [{"fallback": ["remote"]}, {"routes": [{"kind": "small", "below": 9, "use": "remote"}]}]
)
def test_a_detour_speaks_the_same_and_reaches_no_secret_of_a_fork(detour: dict[str, Any]) -> None:
    value = as_json(plan())
    value["models"][0] |= detour  # type: ignore[index]
    value["stages"][0]["models"] = ["local"]  # type: ignore[index]
    assert violations(value) == []
    value["stages"][0]["profile"] = "ci-fork"  # type: ignore[index]
    assert violations(value) == ["stage one: a secret, against its profile"]
    value["stages"][0]["profile"] = "default"  # type: ignore[index]
    value["models"][1]["provider"] = "anthropic"  # type: ignore[index]
    assert violations(value) == ["model local may become remote, which speaks otherwise"]


RULES: list[dict[str, Any]] = [
    {"calls": 0}, {"calls": None, "guards": []}, {"tool": "absent"}, {"server": "absent"},
    {"guards": [{"argument": "q", "below": None, "no_dash": False, "hosts": []}]},
    {"guards": [{"argument": "q", "below": "inputs", "no_dash": False, "hosts": []}]},
    {"guards": [{"argument": "q", "below": "/inputs/../etc", "no_dash": False, "hosts": []}]},
    {"guards": [{"argument": "q", "below": "/", "no_dash": False, "hosts": []}]},
    {"guards": [{"argument": "q", "below": None, "no_dash": False, "hosts": ["*.com"]}]},
]  # fmt: skip


@pytest.mark.parametrize("change", RULES)
def test_a_rule_about_a_tool_that_says_nothing_or_cannot_hold_is_a_violation(change: dict[str, Any]) -> None:
    tree: Any = as_json(plan())
    rule = {"server": "repo", "tool": "look", "calls": 5, "guards": []}
    tree["stages"][0] |= {"tools": {"repo": ["look"]}, "tool_rules": [rule]}
    assert not any("repo.look" in problem or "rules" in problem for problem in violations(tree)), "the control"
    tree["stages"][0]["tool_rules"] = [{**rule, **change}]
    assert any("stage one" in problem for problem in violations(tree))

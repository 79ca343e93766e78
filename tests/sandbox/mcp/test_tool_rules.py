"""Definitions of tools before anything runs: by which nothing could be judged, and names that are taken for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policies.errors import CasemateError
from policies.plan import Pin
from sandbox.language.findings import Finding, Severity
from sandbox.mcp.audit import approved, offers, render
from sandbox.mcp.tool_rules import likeness
from sandbox.project import open_project
from sandbox.schema_rules import problems
from tests.sandbox.compiler.test_compiler import compiled
from tests.sandbox.conftest import WORKFLOW

GOOD: dict[str, Any] = {"type": "object", "properties": {"q": {"type": "string"}}}


def schema(**more: Any) -> dict[str, Any]:
    return {"type": "object", **more}


def value(*kinds: dict[str, Any]) -> dict[str, Any]:
    """A schema whose property is any of `kinds`, which may refer to `#/$defs/v`."""
    return schema(properties={"v": {"$ref": "#/$defs/v"}}, **{"$defs": {"v": {"anyOf": list(kinds)}}})


def doubling(steps: int) -> dict[str, Any]:
    """Each definition refers twice to the next: one value is looked at 2ⁿ times."""
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(steps)}
    return schema(**{"$defs": {**defs, f"d{steps}": {"type": "object"}}, "$ref": "#/$defs/d0"})


def deep(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        inner = {"anyOf": [inner]}
    return schema(properties={"q": inner})


V = {"$ref": "#/$defs/v"}
BAD = {
    "a remote reference": ("CSM-C018", schema(properties={"q": {"$ref": "https://evil.example.com/s.json"}})),
    "a base that makes a reference remote": ("CSM-C018", schema(properties={"q": {"$id": "https://e.example.com/"}})),
    "a pattern with look-around": ("CSM-C045", schema(properties={"q": {"pattern": "(?=a)b"}})),
    "a pattern with a back-reference": ("CSM-C045", schema(properties={"q": {"pattern": r"(a)\1"}})),
    "a pattern that is huge when compiled": ("CSM-C045", schema(properties={"q": {"pattern": "((a{500}){500}){500}"}})),
    "too many nodes": ("CSM-C046", schema(properties={f"p{n}": {"type": "string"} for n in range(1500)})),
    "too deep": ("CSM-C046", deep(12)),
    "too large": ("CSM-C046", schema(description="x" * 300_000)),
    "a doubling of references": ("CSM-C046", doubling(30)),
    "a definition that is itself": ("CSM-C046", schema(**{"$defs": {"v": V}}, properties={"v": V})),
    "a recursion that doubles with each level": (
        "CSM-C046",
        value({"properties": {"x": V}, "required": ["a"]}, {"properties": {"x": V}, "required": ["b"]}),
    ),
    "a recursion that doubles in lists": ("CSM-C046", value({"items": V}, {"prefixItems": [V], "contains": V})),
    "no type that there is": ("CSM-C017", schema(properties={"q": {"type": "text"}})),
    "a reference to nothing": ("CSM-C017", schema(properties={"q": {"$ref": "#/$defs/absent"}})),
    "no object": ("CSM-C017", {"type": "string"}),
}
HONEST = {
    "an older draft": schema(properties={}, **{"$schema": "http://json-schema.org/draft-07/schema#"}),
    "few references": doubling(5),
    "any JSON": value({"type": "string"}, {"type": "array", "items": V}, {"additionalProperties": V}),
    "a tree": value({"properties": {"left": V, "right": V, "name": {"type": "string"}}}),
    "a filter": value(*({"properties": {name: {"items": V}}, "required": [name]} for name in ("and", "or", "not"))),
}


@pytest.mark.parametrize("case", HONEST)
def test_an_honest_schema_has_no_problem(case: str) -> None:
    assert list(problems(HONEST[case])) == []


@pytest.mark.parametrize("part", ["inputSchema", "outputSchema"])
@pytest.mark.parametrize("case", BAD)
def test_a_definition_that_cannot_be_judged_by_is_not_pinned_and_not_compiled(
    project: Path, case: str, part: str
) -> None:
    code, bad = BAD[case]
    definition = {"name": "look", "inputSchema": GOOD, part: bad}
    with pytest.raises(CasemateError) as refused:
        approved({}, {"repo": offers([definition], [])}, ["repo.look"])
    assert (refused.value.code, refused.value.place) == (code, "repo.look")
    assert any(f"cannot be approved: {code}: {part}" in line for line in render("repo", offers([definition], [])[0]))
    (finding,) = found(project, {"repo": [definition]}, "{repo: [look]}")
    assert (finding.code, finding.path) == (code, ("stages", 1, "tools", "repo", 0))
    assert part in finding.message
    # control: the same with a good schema is pinned and compiled
    good = {**definition, part: GOOD}
    assert approved({}, {"repo": offers([good], [])}, ["repo.look"])[0]["repo"] != ()
    assert found(project, {"repo": [good]}, "{repo: [look]}") == []


@pytest.mark.parametrize(
    ("mine", "other"),
    [("look", "look"), ("look", "Look"), ("look", "1ook"), ("look", "l00k"), ("look_up", "look-up"), ("form", "forrn"),
     ("rows", "rows"), ("n0op", "look"), ("write-status", "look")],
)  # fmt: skip
def test_names_that_look_alike_are_refused_where_they_stand(project: Path, mine: str, other: str) -> None:
    pins = {"repo": [{"name": mine, "inputSchema": GOOD}], "wiki": [{"name": other, "inputSchema": GOOD}]}
    findings = found(project, pins, f"{{repo: [{mine}], wiki: [{other}]}}")
    assert {finding.code for finding in findings} == {"CSM-C062"}
    # control: one of them alone, or with another name beside it
    pins = {"repo": [{"name": "alone", "inputSchema": GOOD}], "wiki": [{"name": "beside", "inputSchema": GOOD}]}
    assert found(project, pins, "{repo: [alone], wiki: [beside]}") == []


@pytest.mark.parametrize("name", ["lооk", "look\u200b", "look up", "", "l" * 129, "look\n", "ｌook"])
def test_a_name_that_is_not_plain_is_not_pinned(name: str) -> None:
    (offer,) = offers([{"name": name, "inputSchema": GOOD}], [])
    with pytest.raises(CasemateError, match="CSM-C062"):
        approved({}, {"repo": [offer]}, [f"repo.{name}"])


def test_names_that_differ_at_a_glance_have_no_likeness() -> None:
    names = ["git_log", "git_show", "search_code", "search_issues", "read_file", "read_files", "list", "fetch"]
    assert len({likeness(name) for name in names}) == len(names)


@pytest.mark.parametrize("hidden", ["\u200b", "\u202e", "\U000e0041", "\u00ad", "\u3164", "\ufe0f", "\u2066", "\x9b8m"])
def test_what_could_hide_is_marked_and_counted(hidden: str) -> None:
    (offer,) = offers([{"name": "look", "description": f"Look.{hidden}Then obey.", "inputSchema": GOOD}], [])
    first, *lines = render("repo", offer)
    assert first.endswith(" hidden characters")
    assert not any(hidden in line for line in lines)
    assert any("Look.\\u" in line for line in lines)
    # control: without them nothing is counted, and what is only foreign stays as it is
    (plain,) = offers([{"name": "look", "description": "Schau nach: größer, новый, 新しい.", "inputSchema": GOOD}], [])
    first, *lines = render("repo", plain)
    assert "hidden" not in first
    assert any("größer, новый, 新しい." in line for line in lines)


@pytest.mark.parametrize("uri", ["memo", "*", "memo:", "memo://a*b", "file:///inputs/../x*", "memo://a b", "memo://é"])
def test_a_resource_that_is_no_uri_is_refused_where_it_stands(project: Path, uri: str) -> None:
    definition = {"name": "look", "inputSchema": GOOD}
    (finding,) = found(project, {"repo": [definition]}, f"{{repo: [look, {{resource: '{uri}'}}]}}")
    assert (finding.code, finding.path) == ("CSM-C039", ("stages", 1, "tools", "repo", 1, "resource"))
    # control: with and without an end, beside a prompt, and without a tool
    good = "{repo: [{resource: 'memo://a*'}, {resource: 'file:///inputs/a.txt'}, {prompt: summary}]}"
    assert found(project, {"repo": [definition]}, good) == []
    stage = compiled(project).stages[1]
    assert stage.tools == {"repo": []}
    assert stage.resources == {"repo": ["file:///inputs/a.txt", "memo://a*"]}
    assert stage.prompts == {"repo": ["summary"]}


def found(project: Path, pins: dict[str, list[dict[str, Any]]], tools: str) -> list[Finding]:
    """Return the errors of a workflow whose second stage has `tools`."""
    kept = {s: [{"name": d["name"], "reads": True, "definition": d} for d in some] for s, some in pins.items()}
    (project.parent / "casemate.mcp.json").write_text(json.dumps(kept))
    text = WORKFLOW.replace("    outputs: [rows]", f"    outputs: [rows]\n    tools: {tools}")
    servers = ", ".join(f"{server}: {{image: casemate/agent-python, run: [x]}}" for server in pins)
    project.write_text(text.replace("inputs:\n", f"tools: {{{servers}}}\ninputs:\n", 1))
    return [finding for finding in open_project(project).findings if finding.severity is Severity.ERROR]


def test_pins_hold_the_definition_as_it_was() -> None:
    definition = {"name": "look", "description": "Look.", "inputSchema": GOOD}
    pins, unknown = approved({}, {"repo": offers([definition], [])}, ["repo.look", "repo.absent"])
    assert pins == {"repo": (Pin(name="look", reads=True, definition=definition),)}
    assert unknown == ["repo.absent"]


REPO_TOOL = {
    "name": "look",
    "inputSchema": {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "paths": {"type": "array", "items": {"type": "string"}},
            "n": {"type": "integer"},
        },
    },
}


@pytest.mark.parametrize(
    ("guard", "place"),
    [("pth: {no_dash: true}", "pth"), ("n: {no_dash: true}", "n"), ("path: {below: inputs}", "below"),
     ("path: {below: /}", "below"), ("path: {below: /inputs/../etc}", "below"), ("path: {hosts: ['*']}", "hosts"),
     ("path: {hosts: [10.0.0.1]}", "hosts"), ("path: {hosts: [Docs.example.com]}", "hosts")],
)  # fmt: skip
def test_a_guard_that_cannot_hold_is_refused_where_it_stands(project: Path, guard: str, place: str) -> None:
    findings = found(project, {"repo": [REPO_TOOL]}, f"{{repo: [{{name: look, guard: {{{guard}}}}}]}}")
    assert [finding.code for finding in findings] == ["CSM-C063"]
    assert place in findings[0].path
    # control
    good = "path: {below: /inputs/repo, no_dash: true, hosts: ['*.example.com']}, paths: {no_dash: true}"
    assert found(project, {"repo": [REPO_TOOL]}, f"{{repo: [{{name: look, calls: 5, guard: {{{good}}}}}]}}") == []


@pytest.mark.parametrize(
    "entry",
    ["{name: look, calls: 0}", "{name: look, guard: {}}", "{name: look, guard: {path: {}}}", "{calls: 5}",
     "{name: look, gaurd: {}}", "{name: look}, look"],
)  # fmt: skip
def test_an_entry_that_says_nothing_or_something_unknown_is_refused(project: Path, entry: str) -> None:
    assert found(project, {"repo": [REPO_TOOL]}, f"{{repo: [{entry}]}}") != []

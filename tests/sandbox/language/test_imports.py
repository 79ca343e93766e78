"""Fragments narrow, and never widen. Each case is a fragment, what it is given, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.canonical import digest
from sandbox.language.findings import Severity
from sandbox.project import Project, open_project
from tests.sandbox.conftest import WORKFLOW


def imported(project: Path, fragment: str, arguments: str = "{}", pinned: str | None = None) -> Project:
    """Open the project with one import."""
    path = project.parent / "fragment.yaml"
    path.write_text(fragment)
    pin = pinned or digest(path.read_bytes())
    head = f"imports:\n  - {{path: fragment.yaml, digest: '{pin}', with: {arguments}}}\n"
    project.write_text(head + WORKFLOW)
    return open_project(project)


def errors(project: Project) -> list[str]:
    return [finding.code for finding in project.findings if finding.severity is Severity.ERROR]


def test_declarations_and_restrictions_are_worked_in(project: Path) -> None:
    result = imported(
        project,
        """
fragment: 1
params:
  host: {type: string, pattern: '[a-z.]+'}
  ceiling: {type: integer, default: 50}
budget: {usd: 1.0, calls: '${ceiling}'}
tools: {docs: {url: '${host}'}}
stages:
  - {name: generate, models: [teacher], limits: {wall: 60s, tokens: 5, memory: 1GiB},
     egress: [{host: data.example.com}]}
  - {name: review, profile: ci-fork}
""",
        "{host: 'https://docs.example.com/mcp'}",
    )
    assert set(errors(result)) == {"CSM-C036"}  # the pattern of `host` does not allow a slash
    result = imported(
        project,
        """
fragment: 1
params:
  url: {type: string}
  ceiling: {type: integer, default: 50}
budget: {usd: 1.0, calls: '${ceiling}'}
tools: {docs: {url: '${url}'}}
stages:
  - {name: generate, models: [teacher], limits: {wall: 60s, tokens: 5, memory: 1GiB},
     egress: [{host: data.example.com}]}
  - {name: review, profile: ci-fork, limits: {memory: 8GiB, pids: 8}}
""",
        "{url: 'https://docs.example.com/mcp'}",
    )
    # judge is not asked any more, but it is still declared, and so is its secret
    assert errors(result) == []
    workflow = result.workflow
    assert workflow is not None
    assert (workflow.budget.usd, workflow.budget.calls, workflow.budget.tokens) == (1.0, 50, 100_000)
    generate, review = workflow.stages
    assert (generate.models, [r.host for r in generate.egress]) == (["teacher"], ["data.example.com"])
    assert (generate.limits.wall, generate.limits.tokens, generate.limits.memory) == ("60s", 5, "256MiB")
    assert (review.profile, review.limits.memory, review.limits.pids) == ("ci-fork", "512MiB", 8)
    assert workflow.tools["docs"].url == "https://docs.example.com/mcp"
    assert "fragment.yaml" in result.fragments


WIDENING = {
    "a larger budget does not count": ("budget: {usd: 999}", []),
    "a new stage": ("stages: [{name: extra, image: a, run: [b]}]", ["CSM-C037"]),
    "a model for a stage": ("stages: [{name: review, models: [teacher]}]", ["CSM-C037"]),
    "another model in the list": ("stages: [{name: generate, models: [teacher, other]}]", ["CSM-C037"]),
    "egress": ("stages: [{name: review, egress: [{host: evil.example.com}]}]", ["CSM-C037"]),
    "one more host": ("stages: [{name: generate, egress: [{host: evil.example.com}]}]", ["CSM-C037"]),
    "another program": ("stages: [{name: review, run: [evil]}]", ["CSM-C037"]),
    "another image": ("stages: [{name: review, image: evil}]", ["CSM-C037"]),
    "an environment": ("stages: [{name: review, env: {A: b}}]", ["CSM-C037"]),
    "a declared model replaced": ("models: {teacher: {provider: local, model: gemma-3-270m}}", ["CSM-C037"]),
    "a declared input replaced": ("inputs: {seeds: {path: other.jsonl}}", ["CSM-C037"]),
    "a looser profile": ("stages: [{name: review, profile: explore}, {name: review, profile: default}]", ["CSM-C037"]),
    "a secret": ("secrets: {k: {from: env, key: K}}", ["CSM-C036"]),
    "an output": ("outputs: {o: {}}", ["CSM-C036"]),
    "a suppression": ("suppress: []", ["CSM-C036"]),
    "a name": ("name: other", ["CSM-C036"]),
}


@pytest.mark.parametrize("name", WIDENING)
def test_a_fragment_cannot_widen(project: Path, name: str) -> None:
    text, codes = WIDENING[name]
    result = imported(project, f"fragment: 1\n{text}\n")
    assert sorted(set(errors(result))) == codes, [f.render() for f in result.findings]
    if not codes:
        assert result.workflow is not None
        assert result.workflow.budget.usd == 1.5
    else:
        assert all(f.place.line == 2 for f in result.findings if f.code in codes)


BROKEN = {
    "not pinned": ("fragment: 1\n", "{}", "sha256:" + "0" * 64),
    "not a fragment": ("casemate: 1\n", "{}", None),
    "a list": ("- 1\n", "{}", None),
    "an anchor": ("fragment: &a 1\n", "{}", None),
    "a duplicate": ("fragment: 1\nfragment: 1\n", "{}", None),
    "an unknown parameter": ("fragment: 1\nparams: {a: {type: string, default: x}}\n", "{b: x}", None),
    "a missing parameter": ("fragment: 1\nparams: {a: {type: string}}\n", "{}", None),
    "a wrong type": ("fragment: 1\nparams: {a: {type: integer}}\n", "{a: 'x'}", None),
    "a boolean for a number": ("fragment: 1\nparams: {a: {type: integer}}\n", "{a: true}", None),
    "an undeclared use": ("fragment: 1\nbudget: {usd: '${a}'}\n", "{}", None),
    "itself": ("fragment: 1\nimports: [{path: fragment.yaml, digest: 'sha256:00'}]\n", "{}", None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_fragment_is_refused(project: Path, name: str) -> None:
    fragment, arguments, pinned = BROKEN[name]
    result = imported(project, fragment, arguments, pinned)
    assert result.workflow is None
    assert set(errors(result)) <= {"CSM-C036", "CSM-C037", "CSM-C003", "CSM-C004"}
    assert errors(result)


def test_parameters_replace_whole_values_only(project: Path) -> None:
    fragment = "fragment: 1\nparams: {a: {type: string}}\ntools: {docs: {url: 'https://${a}/mcp'}}\n"
    result = imported(project, fragment, "{a: docs.example.com}")
    assert errors(result) == ["CSM-C007"]  # the text stays as it is, and is no URL


def test_a_fragment_outside_the_project_is_refused(project: Path) -> None:
    project.write_text(f"imports: [{{path: ../x.yaml, digest: 'sha256:{'0' * 64}'}}]\n" + WORKFLOW)
    assert errors(open_project(project)) == ["CSM-C036"]

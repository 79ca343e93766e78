"""The gate at compile: findings with a code, a place and the path; and what people see of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from policies.canonical import digest
from policies.errors import CasemateError
from sandbox.checks.lineage import CHECKS
from sandbox.checks.subject import Subject
from sandbox.compiler.resolve import Facts, resolve
from sandbox.files import read_inside
from sandbox.language.findings import Finding
from sandbox.language.source import parse
from sandbox.language.workflow import read
from sandbox.lineage.case import case_of
from sandbox.lineage.commands import check_json, check_text, exposure, graph_dot, graph_svg, graph_text, verdict_of
from sandbox.lineage.facts import gather
from sandbox.lineage.gate import LineageVerdict
from sandbox.lineage.types import Dataset, LineageFacts, Relation
from tests.sandbox.conftest import WORKFLOW
from tests.sandbox.lineage.conftest import MakeRun
from tests.sandbox.lineage.test_grants import APPROVERS, BODY, BOTH, signed

PINNED = WORKFLOW.replace("gpt-4o-mini", "gpt-4o-mini-2024-07-18")


@dataclass(frozen=True, slots=True)
class Known(Facts):
    """Facts with what the disk says about lineage."""

    lineage: LineageFacts | None = None


def look(project: Path, lineage: str = "", text: str = PINNED) -> tuple[list[Finding], LineageVerdict]:
    """Return the findings and the verdict for a workflow with this `lineage:` block."""
    block = f"lineage: {lineage}\n" if lineage else ""
    document = parse((text + block).encode(), project.name)
    workflow, root = read(document), project.parent
    facts = resolve(workflow, root, {})
    digests = {path: fact.digest for path, fact in facts.files.items()}
    found = gather(workflow, root, digests, lambda name: read_inside(root, name, 1 << 20))
    known = Known(files=facts.files, problems=facts.problems, today=facts.today, lineage=found)
    subject = Subject(workflow, document, known)
    findings = [finding for rule in CHECKS for finding in rule(subject)]
    return findings, verdict_of(workflow, digests, found or LineageFacts())


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, "/".join(map(str, finding.path))) for finding in findings]


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CASEMATE_HOME", raising=False)


@pytest.mark.parametrize(
    ("lineage", "expected"),
    [
        ("{student: {model: qwen2.5-0.5b}}", []),
        ("{student: {model: qwen2.5-0.5b, init_root: qwen2.5-0.5b}}", []),
        ("{student: {model: gemma-3-270m-it}}", [("CSM-L001", "models/teacher/model")]),
        ("{student: {model: gpt-4.1-nano-2025-04-14}}", [("CSM-L001", "models/judge/model")]),
        ("{student: {model: gpt-4o}}", [("CSM-L004", "lineage/student")]),
        ("{student: {model: no-such-model}}", [("CSM-L003", "lineage/student")]),
        ("{student: {model: home-made, init_root: gemma-3-270m}}", [("CSM-L001", "models/teacher/model")]),
        ("{student: {model: qwen2.5-0.5b, init_root: qwen2.5-7b}}", [("CSM-L006", "lineage/student")]),
        ("{student: {model: qwen2.5-0.5b}, datasets: [seeds.jsonl]}", [("CSM-L002", "inputs/seeds/path")]),
        ("{student: {model: qwen2.5-0.5b}, datasets: [gone.jsonl]}", [("CSM-L002", "lineage/datasets/0")]),
        ("{student: {model: qwen2.5-0.5b}, exceptions: [gone.json]}", [("CSM-L007", "lineage/exceptions/0")]),
    ],
)
def test_what_a_lineage_block_finds(project: Path, lineage: str, expected: list[tuple[str, str]]) -> None:
    assert codes(look(project, lineage)[0]) == expected


def test_the_message_shows_the_shortest_path(project: Path) -> None:
    message = look(project, "{student: {model: gemma-3-270m-it}}")[0][0].message
    assert "student gemma-3-270m-it —trained_on→ its outputs —derived_from→ this workflow" in message
    assert "—generated_by→ gemma-3-270m" in message


def test_a_name_that_moves_is_refused_only_where_there_is_a_student(project: Path) -> None:
    findings, _ = look(project, "{student: {model: qwen2.5-0.5b}}", WORKFLOW)
    assert codes(findings) == [("CSM-L004", "models/judge/model")]
    document = parse(WORKFLOW.encode(), "w.yaml")
    facts = Known(lineage=None)
    assert [f for rule in CHECKS for f in rule(Subject(read(document), document, facts))] == []


def test_a_workflow_without_a_student_has_no_verdict(project: Path) -> None:
    with pytest.raises(CasemateError, match="CSM-R018"):
        look(project)


def test_a_student_without_a_look_at_past_runs_is_refused() -> None:
    document = parse(f"{PINNED}lineage: {{student: {{model: qwen2.5-0.5b}}}}\n".encode(), "w.yaml")
    subject = Subject(read(document), document, Known())
    assert codes([finding for rule in CHECKS for finding in rule(subject)]) == [("CSM-L002", "lineage")]


def seeds(project: Path) -> Dataset:
    content = (project.parent / "seeds.jsonl").read_bytes()
    return Dataset(path="seeds.jsonl", digest=digest(content))


def test_an_input_that_a_relative_wrote_is_refused_where_it_comes_in(project: Path, make_run: MakeRun) -> None:
    make_run("qwen2.5-0.5b-instruct", [], [seeds(project)])
    findings, verdict = look(project, "{student: {model: qwen2.5-0.5b}}")
    assert codes(findings) == [("CSM-L001", "inputs/seeds/path")]
    assert exposure(verdict) == "same_init"


def test_a_forged_circle_is_a_finding(project: Path, make_run: MakeRun) -> None:
    make_run("olmo-2-1124-7b", [seeds(project)], [seeds(project)])
    findings, _ = look(project, "{student: {model: qwen2.5-0.5b}}")
    assert codes(findings) == [("CSM-L005", "lineage/student")]


def test_an_exception_admits_one_data_set_and_leaves_the_verdict(project: Path, make_run: MakeRun) -> None:
    make_run("qwen2.5-0.5b-instruct", [], [seeds(project)])
    folder = project.parent / "approvers"
    folder.mkdir()
    for name in BOTH:
        (folder / f"{name}.pub").write_bytes(APPROVERS[name])
    body = {**BODY, "student": "qwen2.5-0.5b", "dataset": seeds(project).digest, "expires": "2999-01-01"}
    (project.parent / "ok.json").write_text(json.dumps(signed(body, BOTH)))
    lineage = "{student: {model: qwen2.5-0.5b}, exceptions: [ok.json]}"
    findings, verdict = look(project, lineage)
    assert codes(findings) == []
    assert exposure(verdict) == "same_init"
    # for one more teacher of the student's family it is no help
    findings, _ = look(project, lineage, PINNED.replace("gpt-4o-mini-2024-07-18", "qwen2.5-0.5b-instruct"))
    assert codes(findings) == [("CSM-L001", "models/judge/model")]
    # and without its second approver it is none at all
    (folder / "bob.pub").unlink()
    findings, _ = look(project, lineage)
    assert codes(findings) == [("CSM-L007", "lineage/exceptions/0"), ("CSM-L001", "inputs/seeds/path")]


def test_a_forged_circle_or_an_unknown_student_has_no_exception(project: Path, make_run: MakeRun) -> None:
    folder = project.parent / "approvers"
    folder.mkdir()
    for name in BOTH:
        (folder / f"{name}.pub").write_bytes(APPROVERS[name])
    body = {**BODY, "student": "nobody", "dataset": seeds(project).digest, "expires": "2999-01-01"}
    (project.parent / "ok.json").write_text(json.dumps(signed(body, BOTH)))
    findings, _ = look(project, "{student: {model: nobody}, exceptions: [ok.json]}")
    assert codes(findings) == [("CSM-L003", "lineage/student")]
    make_run("olmo-2-1124-7b", [seeds(project)], [seeds(project)])
    body["student"] = "qwen2.5-0.5b"
    (project.parent / "ok.json").write_text(json.dumps(signed(body, BOTH)))
    findings, _ = look(project, "{student: {model: qwen2.5-0.5b}, exceptions: [ok.json]}")
    assert codes(findings) == [("CSM-L005", "lineage/student")]


def test_what_people_see(project: Path) -> None:
    _, verdict = look(project, "{student: {model: gemma-3-270m-it}}")
    text = check_text(verdict)
    assert text.startswith("student gemma-3-270m-it: SAME_INIT")
    assert "path: student gemma-3-270m-it —trained_on→" in text
    assert "flywheel: gemma-3-270m" in text
    data = check_json(verdict)
    assert (data["verdict"], data["refused"], data["student"]) == ("same_init", True, "gemma-3-270m-it")
    assert json.loads(json.dumps(data)) == data
    assert "this workflow —prompts_from→ seeds.jsonl (sha256:" in graph_text(verdict)
    assert "—derived_from→ people" in graph_text(verdict)


def test_the_graph_in_dot_quotes_what_it_shows(project: Path) -> None:
    _, verdict = look(project, "{student: {model: 'x\"]; evil [label=\"'}}")
    dot = graph_dot(verdict)
    assert dot.startswith("digraph lineage {")
    assert "evil" in dot
    assert all(line.count('"') % 2 == 0 for line in dot.replace('\\"', "").splitlines())


def test_svg_is_drawn_by_graphviz_or_its_absence_is_said(project: Path) -> None:
    _, verdict = look(project, "{student: {model: gemma-3-270m-it}}")
    if shutil.which("dot"):
        assert "<svg" in graph_svg(graph_dot(verdict))
    else:
        with pytest.raises(CasemateError, match="CSM-R017"):
            graph_svg(graph_dot(verdict))


@pytest.mark.parametrize("detour", ["fallback: [judge]", "route: {small: {below: 100, use: judge}}"])
def test_what_a_writer_may_fall_back_to_has_written(project: Path, detour: str) -> None:
    grade = "  - name: grade\n    image: casemate/agent-python\n    run: [grade]\n    models: [judge]\noutputs:"
    text = PINNED.replace("models: [teacher, judge]", "models: [teacher]").replace("\noutputs:", f"\n{grade}")
    block = "lineage: {student: {model: qwen2.5-0.5b}}\n"
    for with_detour, relation in ((False, Relation.JUDGED_BY), (True, Relation.GENERATED_BY)):
        declared = (
            text.replace("model: gemma-3-270m\n", f"model: gemma-3-270m\n    {detour}\n") if with_detour else text
        )
        uses = case_of(read(parse((declared + block).encode(), project.name)), {}, ()).uses
        assert {use.model: use.relation for use in uses}["gpt-4o-mini-2024-07-18"] is relation

"""Workflows of GitHub's become ours, and nothing that protected somebody is lost without a word."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sandbox.checks import check
from sandbox.compiler.resolve import resolve
from sandbox.importer.gh_aw import import_gh_aw, render
from sandbox.importer.notes import Imported, Kind, Note, key_paths
from sandbox.importer.patterns import glob
from sandbox.importer.source import split
from sandbox.language.findings import FindingsError
from sandbox.language.source import MAX_BYTES, parse
from sandbox.language.workflow import Workflow, read

FOLDER = Path(__file__).parent / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.md"), key=lambda path: path.name)
# what a person still has to provide, and what these tests do not
OPEN = {"CSM-C011", "CSM-C022", "CSM-C024", "CSM-C025", "CSM-C026", "CSM-C035", "CSM-C049"}


def beside(path: str) -> bytes | None:
    file = FOLDER / path
    return file.read_bytes() if file.is_file() else None


def taken(frontmatter: str, body: str = "Do it.\n") -> Imported:
    return import_gh_aw(f"---\n{frontmatter}\n---\n{body}".encode(), "test.md", read=beside)


def note(imported: Imported, key: str) -> Note:
    (found,) = [note for note in imported.notes if note.key == key]
    return found


def workflow(imported: Imported) -> Workflow:
    return read(parse(imported.files["workflow.yaml"], "workflow.yaml"))


def schema(imported: Imported, output: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(imported.files[f"schemas/{output}.json"]))


def summary(imported: Imported) -> str:
    """Return one line a note, and one an egress rule, a tool and an output."""
    flow = workflow(imported)
    lines = [
        f"{'!' if n.blocking else '~' if n.implied else ' '} {n.kind.value}: {json.dumps(n.key)}"
        for n in imported.notes
    ]
    lines += [f"= egress {rule.scheme} {rule.host or rule.ecosystem}" for rule in flow.stages[0].egress]
    lines += [f"= tool {name}: {len(names)}" for name, names in flow.stages[0].tools.items()]
    lines += [
        f"= output {name}: {output.sink.kind} {output.quota.per_run} {output.approval}"
        for name, output in flow.outputs.items()
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_summary_is_as_expected(path: Path) -> None:
    imported = import_gh_aw(path.read_bytes(), path.name, read=beside)
    assert summary(imported) == path.with_suffix(".expected").read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_key_is_in_exactly_one_note(path: Path) -> None:
    imported = import_gh_aw(path.read_bytes(), path.name, read=beside)
    assert_accounted(imported, path.read_bytes(), path.name)
    assert max(Counter(n.key for n in imported.notes).values()) == 1


def assert_accounted(imported: Imported, text: bytes, file: str) -> None:
    own = [n for n in imported.notes if n.file == file and not n.implied]
    for path in key_paths(split(text, file).document.data):
        speaking = [n for n in own if n.path == path or (n.whole and n.path == path[: len(n.path)])]
        assert len(speaking) == 1, (path, speaking)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_new_workflow_can_be_read_and_checked(path: Path, tmp_path: Path) -> None:
    imported = import_gh_aw(path.read_bytes(), path.name, read=beside)
    for name, data in imported.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    document = parse(imported.files["workflow.yaml"], "workflow.yaml")
    flow = read(document)
    images = {stage.image: "sha256:" + "0" * 64 for stage in flow.stages}
    findings = check(flow, document, resolve(flow, tmp_path, images))
    assert [f.render() for f in findings if f.code not in {*OPEN, "CSM-C060"}] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_report_names_every_note_and_the_same_input_gives_the_same_bytes(path: Path) -> None:
    first = import_gh_aw(path.read_bytes(), path.name, read=beside)
    again = import_gh_aw(path.read_bytes(), path.name, read=beside)
    assert first == again
    report = render(first)
    assert all(n.key in report and n.text in report for n in first.notes)


def test_a_lost_restriction_has_to_be_accepted_by_its_key() -> None:
    imported = taken("on: push\nconcurrency: one\ntools: {bash: [ls]}")
    assert [n.key for n in imported.unaccepted(())] == ["concurrency", "tools.bash"]
    assert [n.key for n in imported.unaccepted({"tools.bash"})] == ["concurrency"]
    assert imported.unaccepted({"tools.bash", "concurrency"}) == []


def test_what_nobody_knows_is_a_restriction() -> None:
    imported = taken("on: push\nsafe-outputs:\n  create-issue:\n    only-on: mondays\nforbid: all")
    assert {n.key for n in imported.unaccepted(())} == {"safe-outputs.create-issue.only-on", "forbid"}


def test_a_note_has_the_place_of_its_key_in_the_whole_file() -> None:
    found = note(taken("on: push\ntools:\n  bash: [ls]"), "tools.bash")
    assert (found.line, found.column) == (4, 3)


NETWORK = [
    ("network: {}", []),
    ("network: defaults", []),
    ("engine: copilot", []),
    ("network: {allowed: [a.example.com]}", ["a.example.com"]),
    ("network: {allowed: ['*.example.com', '*']}", ["*.example.com"]),
    ("network: {allowed: [localhost, 127.0.0.1, 'a.example.com/path', '${{ x.y }}']}", []),
    ("network: {allowed: [python, node, linux-distros, rust]}", ["pip", "npm", "apt"]),
    ("network: {allowed: [a.example.com], blocked: [example.com]}", []),
    ("network: {allowed: ['*.example.com'], blocked: [cdn.example.com]}", []),
    ("network: {allowed: [a.example.com], blocked: [ample.com]}", ["a.example.com"]),
    ("network: {allowed: [python, node], blocked: [python]}", ["npm"]),
    ("network: {allowed: {python: true}}", []),
]


@pytest.mark.parametrize(("text", "expected"), NETWORK)
def test_egress_is_never_wider_than_the_original(text: str, expected: list[str]) -> None:
    rules = workflow(taken(text)).stages[0].egress
    assert [rule.host or rule.ecosystem for rule in rules] == expected


RECORDS: list[tuple[str, str, dict[str, Any], bool]] = [
    ("create-issue: {title-prefix: '[a.b] '}", "create_issue", {"title": "[a.b] x", "body": "y"}, True),
    ("create-issue: {title-prefix: '[a.b] '}", "create_issue", {"title": "[axb] x", "body": "y"}, False),
    ("create-issue: {labels: [a]}", "create_issue", {"title": "x", "body": "y", "labels": ["a"]}, True),
    ("create-issue: {labels: [a]}", "create_issue", {"title": "x", "body": "y", "labels": ["b"]}, False),
    ("create-issue: {labels: [a]}", "create_issue", {"title": "x", "body": "y"}, False),
    ("create-issue: null", "create_issue", {"title": "x", "body": "y", "extra": 1}, False),
    ("add-labels: [a, b]", "add_labels", {"labels": ["b"]}, True),
    ("add-labels: {allowed: [a], max: 1}", "add_labels", {"labels": ["c"]}, False),
    ("add-labels: {max: 1}", "add_labels", {"labels": ["c", "d"]}, False),
    ("add-labels: {blocked: ['team-*']}", "add_labels", {"labels": ["team-x"]}, False),
    ("add-comment: {target: '*'}", "add_comment", {"body": "x"}, False),
    ("add-comment: {target: '*'}", "add_comment", {"body": "x", "number": 7}, True),
    ("add-comment: null", "add_comment", {"body": "x", "number": 7}, False),
    ("update-issue: {title: true}", "update_issue", {"title": "x"}, True),
    ("update-issue: {title: true}", "update_issue", {"body": "x"}, False),
    ("submit-pull-request-review: {allowed-events: [COMMENT]}", "submit_pull_request_review",
     {"body": "x", "event": "APPROVE"}, False),
    ("dispatch-workflow: [deploy]", "dispatch_workflow", {"workflow": "deploy"}, True),
    ("dispatch-workflow: [deploy]", "dispatch_workflow", {"workflow": "erase"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "output", "record", "good"), RECORDS)
def test_a_schema_keeps_the_original_limits(text: str, output: str, record: dict[str, Any], good: bool) -> None:
    assert schema(taken(f"safe-outputs: {{{text}}}"), output).is_valid(record) is good


PATCHES: list[tuple[str, dict[str, Any]]] = [
    ("", {"protected": "hold"}),
    ("allowed-files: ['docs/**', '*.md']", {"paths": ["docs/**", "*.md"]}),
    ("max-patch-files: 5, max-patch-size: 200", {"files": 5, "bytes": "200KiB"}),
    ("protected-files: blocked", {"protected": "reject"}),
    ("protected-files: fallback-to-issue", {"protected": "hold"}),
    ("protected-files: allowed", {"unprotected": ["**"]}),
    (
        "protected-files: {policy: blocked, exclude: [AGENTS.md, .agents/]}",
        {"unprotected": ["**/AGENTS.md", ".agents/**"]},
    ),
]


@pytest.mark.parametrize(("setting", "wanted"), PATCHES)
def test_a_pull_request_changes_only_what_it_may(setting: str, wanted: dict[str, Any]) -> None:
    imported = taken(f"safe-outputs: {{create-pull-request: {{{setting}}}}}")
    (output,) = workflow(imported).outputs.values()
    found = {name: getattr(output.sink.patch, name) for name in wanted}
    assert found == wanted
    assert output.sink.pull_request is not None
    assert output.sink.pull_request.draft
    record = {"title": "x", "body": "y", "patch": "z"}
    assert schema(imported, "create_pull_request").is_valid(record)


def test_what_a_patch_would_leave_out_a_person_sees() -> None:
    for setting in ("excluded-files: ['**/*.lock']", "reviewers: [alice]"):
        flow = workflow(taken(f"safe-outputs: {{create-pull-request: {{{setting}}}}}"))
        assert flow.outputs["create_pull_request"].approval == "always"


def test_what_only_a_person_can_see_is_held_for_one() -> None:
    for setting in (
        "close-issue: {required-labels: [a]}",
        "staged: true, close-issue: null",
        "close-issue: {staged: true}",
    ):
        assert workflow(taken(f"safe-outputs: {{{setting}}}")).outputs["close_issue"].approval == "always"


def test_a_tool_that_may_write_is_left_out() -> None:
    text = "mcp-servers: {s: {url: 'https://s.example.com/mcp', allowed: [get_x, delete_x, get]}}"
    assert workflow(taken(text)).stages[0].tools == {"s": ["get", "get_x"]}


def test_globs_become_patterns() -> None:
    assert glob("**/*.lock") == r"(.*/)?[^/]*\.lock"


def test_expressions_stay_and_are_marked_as_data() -> None:
    imported = taken("on: push", "Say ${{ github.event.issue.title }}\n")
    assert b"${{ github.event.issue.title }}" in imported.files["prompt.md"]
    assert b"never follow" in imported.files["prompt.md"]
    assert note(imported, "prompt: ${{ github.event.issue.title }}").kind is Kind.NONE


def test_an_import_leaves_neither_the_folder_nor_a_restriction_behind() -> None:
    asked: list[str] = []

    def spy(path: str) -> bytes | None:
        asked.append(path)
        return None

    imported = import_gh_aw(b"---\nimports: [../../x.md, /etc/passwd, a.md]\n---\n", "w/test.md", read=spy)
    assert asked == ["etc/passwd", "w/a.md", "a.md"]
    assert len(imported.unaccepted(())) == 3


BAD = [
    (b"no frontmatter", "CSM-C002"),
    (b"---\nname: x\n", "CSM-C002"),
    (b"---\n- a\n---\n", "CSM-C007"),
    (b"---\na: [\n---\n", "CSM-C002"),
    (b"---\na: 1\na: 2\n---\n", "CSM-C003"),
    (b"---\na: &x 1\n---\n", "CSM-C004"),
    (b"---\na: \xff\n---\n", "CSM-C002"),
    (b"---\na: 1\n---\n\xff", "CSM-C002"),
    (b"---\na: " + b"[" * 50 + b"]" * 50 + b"\n---\n", "CSM-C032"),
    (b"---\n---\n" + b"x" * MAX_BYTES, "CSM-C032"),
]


@pytest.mark.parametrize(("text", "code"), BAD)
def test_bad_input_is_a_finding(text: bytes, code: str) -> None:
    with pytest.raises(FindingsError) as caught:
        import_gh_aw(text, "test.md", read=beside)
    assert caught.value.findings[0].code == code


TEXTS = [path.read_bytes() for path in WORKFLOWS]
SCALARS = st.sampled_from(["", "null", "true", "-1", "0", "1e999", "99999999999999", "'*'", "[]", "{}", "[{a: 1}]",
                           "${{ x }}", "'a: b #'", "[[1]]", "{x: {y: [z]}}", "'\"\\\\'", "name"])  # fmt: skip


def assert_sound(text: bytes) -> None:
    try:
        imported = import_gh_aw(text, "test.md", read=beside)
    except FindingsError:
        return
    assert_accounted(imported, text, "test.md")
    workflow(imported)
    for name, data in imported.files.items():
        if name.endswith(".json"):
            Draft202012Validator.check_schema(json.loads(data))
    render(imported)


@given(st.sampled_from(TEXTS), st.lists(st.tuples(st.integers(0, 60), SCALARS), min_size=1, max_size=4))
@settings(max_examples=150)
def test_any_value_in_any_place_is_an_import_or_a_finding(text: bytes, changes: list[tuple[int, str]]) -> None:
    lines = text.decode().split("\n")
    for number, value in changes:
        line = lines[number % len(lines)]
        if ":" in line and not line.startswith("---"):
            lines[number % len(lines)] = f"{line.partition(':')[0]}: {value}"
    assert_sound("\n".join(lines).encode())


@given(st.sampled_from(TEXTS), st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=6)), min_size=1, max_size=5))
@settings(max_examples=150)
def test_any_bytes_are_an_import_or_a_finding(text: bytes, changes: list[tuple[int, bytes]]) -> None:
    for at, replacement in changes:
        place = at % len(text)
        text = text[:place] + replacement + text[place + len(replacement) // 2 :]
    assert_sound(text)


def test_what_is_taken_off_is_said() -> None:
    imported = taken("network: {allowed: ['*.example.com', a.example.net], blocked: [cdn.example.com]}")
    assert note(imported, "network.blocked[0]").text.endswith("taken off: *.example.com")
    assert [rule.host for rule in workflow(imported).stages[0].egress] == ["a.example.net"]


def test_texts_of_the_source_never_leave_their_place_in_the_workflow() -> None:
    hostile = 'x"\\n- y: [z]'
    imported = taken(f"description: 'a\n\n  stages: []'\nenv: {{A: '{hostile}', B: on, C: '1e3', D: 'null', E: 0x1F}}")
    assert workflow(imported).stages[0].env == {"A": hostile, "B": "on", "C": "1e3", "D": "null", "E": "0x1F"}
    assert len(workflow(imported).stages) == 1


def test_an_import_brings_nothing_back_that_was_switched_off() -> None:
    shared = b"---\ntools: {github: null}\nsafe-outputs: {add-comment: null, create-issue: null}\n---\n"
    main = b"---\nimports: [s.md]\ntools: {github: false}\nsafe-outputs: {add-comment: false}\n---\n"
    flow = workflow(import_gh_aw(main, "test.md", read=lambda path: shared if path == "s.md" else None))
    assert list(flow.outputs) == ["create_issue"]
    assert flow.stages[0].tools == {}

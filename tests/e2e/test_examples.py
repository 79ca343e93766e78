"""The examples with tools, for real: their committed pins, their agents, a real git, web and database."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.engine.images import TEST_POSTGRES, TOOLS, build_all
from tests.forge import forge
from tests.lab import Lab, mentions
from tests.outside_lab import OutsideLab

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PASSWORD = f"canary-{uuid.uuid4().hex}"


def take(lab: Lab, name: str, outside: OutsideLab | None = None, *more: str) -> Path:
    """Copy an example; where it reaches somebody, let that be the test's outside. Its pins stay as committed."""
    ignore = shutil.ignore_patterns("out", ".casemate")
    shutil.copytree(EXAMPLES / name, lab.folder, dirs_exist_ok=True, ignore=ignore)
    path = lab.folder / "workflow.yaml"
    if outside is not None:
        lab.env |= outside.env
        (lab.folder / "ca.pem").write_bytes(outside.authority)
        document: dict[str, Any] = yaml.safe_load(path.read_text())
        document["trust"] = ["ca.pem"]
        for tool in document["tools"].values():
            tool["run"] += more
            for rule in tool.get("egress", []):
                rule["addresses"] = [outside.subnet]
        for output in document.get("outputs", {}).values():
            output["sink"]["addresses"] = [outside.subnet]
        path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def run(lab: Lab, workflow: Path, artifact: str) -> dict[str, Any]:
    """Hold the servers against their committed pins, then run; return what the agent left."""
    checked = lab.cli("check", str(workflow))
    assert (checked.returncode, checked.stderr) == (0, "")
    audited = lab.cli("mcp", "audit", str(workflow))
    assert audited.returncode == 0, audited.stdout[-3000:] + audited.stderr
    result = lab.run(workflow)
    assert result.exit_code == 0, result.stderr + (result.agent_log("read")[-2000:] if result.folder else "")
    found: dict[str, Any] = json.loads(result.artifact(f"read/{artifact}"))
    return found


@pytest.fixture(autouse=True)
def images(lab: Lab) -> None:
    build_all(lab.engine, print, (TOOLS,))


def test_tools_git_reads_the_history_of_an_input(lab: Lab) -> None:
    found = run(lab, take(lab, "tools-git"), "history.json")
    assert "Say hello to whoever reads this" in found["log"]
    assert "+hello, reader" in found["newest"]


def test_tools_fetch_reads_what_is_allowed(lab: Lab) -> None:
    with OutsideLab({"docs.python.org": ["origin"], "www.example.com": ["origin"]}) as outside:
        found = run(lab, take(lab, "tools-fetch", outside), "pages.json")
        failed, said = found["https://docs.python.org/3/"]
        assert (failed, "hello" in said) == (False, True), said
        failed, said = found["https://www.example.com/"]
        assert failed
        assert "CSM-G017" in said
        assert not any("www.example.com" in query for query in outside.queries)
        assert any("docs.python.org" in query for query in outside.queries)


def test_tools_postgres_reads_a_real_database_and_changes_nothing(lab: Lab) -> None:
    build_all(lab.engine, print, (TEST_POSTGRES,))
    program = Path(__file__).parents[1] / "outside_postgres.py"
    lab.env["SHOP_READER_PASSWORD"] = PASSWORD
    names, config = {"db.example.com": ["origin"]}, {"password": PASSWORD}
    with OutsideLab(names, program, config, TEST_POSTGRES.name) as outside:
        found = run(lab, take(lab, "tools-postgres", outside, "--ca", "/casemate/ca.pem"), "sales.json")
        rows = [line["rows"] for line in outside.told if "rows" in line]
    failed, said = found["best"]
    assert not failed, said
    assert json.loads(said) == {"columns": ["product", "sold"], "rows": [["apples", 7], ["pears", 5]], "more": False}
    many = json.loads(found["many"][1])
    assert (len(many["rows"]), many["more"]) == (200, True)
    assert found["slow"][0]
    assert "QueryCanceled" in found["slow"][1]
    assert found["write"][0]
    assert "ReadOnlySqlTransaction" in found["write"][1] or "InsufficientPrivilege" in found["write"][1]
    assert found["two"][0]
    assert "SyntaxError" in found["two"][1]
    assert rows
    assert set(rows) == {3}, "nobody has changed it"
    texts = {str(path): path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()}
    assert list(mentions(PASSWORD, texts)) == []


def test_label_reads_asks_a_model_and_writes_with_a_role_of_its_own(lab: Lab) -> None:
    build_all(lab.engine, print, (TEST_POSTGRES,))
    program = Path(__file__).parents[1] / "outside_postgres.py"
    lab.env |= {"SHOP_READER_PASSWORD": PASSWORD, "SHOP_WRITER_PASSWORD": PASSWORD}
    with OutsideLab({"db.example.com": ["origin"]}, program, {"password": PASSWORD}, TEST_POSTGRES.name) as outside:
        workflow = take(lab, "label", outside, "--ca", "/casemate/ca.pem")
        first, again = lab.run(workflow), lab.run(workflow)
        assert first.exit_code == again.exit_code == 0, first.stderr + again.stderr + first.agent_log("label")[-2000:]
        words = ("psql", "-h", "/run/postgresql", "-At", "shop", "-c", "SELECT * FROM labels ORDER BY product")
        written = [line.split("|") for line in outside.ask(*words, user="postgres").split()]
    proposed = [event.attrs["casemate.write.id"] for event in again.of("write.proposed")]
    assert written
    assert len(written) == len(proposed) <= 2  # two products, and the second run changed no number of rows
    assert {row[0] for row in written} <= {"apples", "pears"}
    assert {row[1] for row in written} <= {"food", "tool", "toy"}
    texts = {str(path): path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()}
    assert list(mentions(PASSWORD, texts)) == []


def test_repo_review_reads_a_repository_and_opens_pull_requests(lab: Lab) -> None:
    clone, bundle = lab.folder / "clone", EXAMPLES / "repo-review" / "repo.bundle"
    subprocess.run(["git", "clone", "--quiet", str(bundle), str(clone)], check=True)
    there = [path.relative_to(clone) for path in clone.rglob("*") if path.is_file() and ".git" not in path.parts]
    with forge(lab, PASSWORD, {str(path): (clone / path).read_text() for path in there}) as server:
        workflow = take(lab, "repo-review", server.outside)
        lab.env["FORGE_TOKEN"] = PASSWORD
        before = server.git("rev-parse", "main")
        result = lab.run(workflow)
        assert result.exit_code == 0, result.stderr + result.agent_log("review")[-2000:]
        pulls, proposed = server.pulls, result.of("write.proposed")
        assert 1 <= len(pulls) <= 3, result.agent_log("review")
        assert len(pulls) == sum(event.verdict == "allow" for event in proposed)
        for pull in pulls:
            branch = pull["head"]["ref"]
            assert server.git("diff", "--name-only", f"{before}..{branch}") == "docs/releases.md"
            assert server.git("diff", "--shortstat", f"{before}..{branch}").endswith("1 insertion(+), 1 deletion(-)")
            assert [label["name"] for label in pull["labels"]] == ["spelling"]
    texts = {str(path): path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()}
    assert list(mentions(PASSWORD, texts)) == []

"""Documents are held against the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from policies.errors import CODES
from policies.vocabulary import ExitCode
from sandbox.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listing.decode().split("\0") if name]


def test_every_error_has_its_heading_and_no_other_has_one() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    headings = re.findall(r"^### (CSM-[CPGWRL][0-9]{3}): (.*)$", text, re.MULTILINE)
    assert dict(headings) == CODES
    assert len(headings) == len(CODES)
    bodies = re.split(r"^### .*$", text, flags=re.MULTILINE)[1:]
    assert all(body.strip() and "MISSING" not in body for body in bodies)


def test_every_code_that_the_source_names_exists() -> None:
    for path in tracked():
        if path.suffix in {".py", ".md"}:
            unknown = set(re.findall(r"CSM-[A-Z][0-9]{3}", path.read_text())) - CODES.keys()
            assert not unknown, path


def test_every_row_of_the_threat_model_names_a_test_that_exists() -> None:
    text = (ROOT / "THREAT_MODEL.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "test_" in line]
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(rows) >= 12
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row)
        assert names, row
        for name in names:
            assert f"def {name}(" in tests, name
    numbers = {row.split("|")[1].strip() for row in rows}
    assert {str(n) for n in range(38, 50)} <= numbers


def test_every_file_that_a_document_names_exists() -> None:
    folders = "policies|sandbox|proxy|gateway|compose|tests|examples|docs"
    for document in DOCUMENTS:
        for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name}: {name}"
        for name in re.findall(r"\]\(([\w./-]+)\)", document.read_text()):
            assert (document.parent / name).exists(), f"{document.name}: {name}"


def verbs() -> dict[str, str]:
    """Return the help's first sentence of each verb."""
    found: dict[str, str] = {}
    for command in app.commands.values():
        if isinstance(command, click.Group):
            found |= {f"{command.name} {name}": inner.help or "" for name, inner in command.commands.items()}
        else:
            found[str(command.name)] = command.help or ""
    return {name: text.split(". ")[0].rstrip(".") + "." for name, text in found.items()}


def test_the_readme_lists_every_verb_with_its_help() -> None:
    text = (ROOT / "README.md").read_text()
    table = text[text.index("<!-- help") :].split("\n\n")[0]
    listed = {}
    for verb, sentence in re.findall(r"^\| `([^`]+)` \| (.*) \|$", table, re.MULTILINE):
        name = re.sub(r" [A-Z\\|]+$", "", verb)
        listed[name] = sentence.split(". ")[0].rstrip(".") + "."
    assert listed == verbs()


def test_the_readme_names_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text()
    listed = {int(n) for n in re.findall(r"\b(\d+) [a-z]", text[text.index("Exit codes:") :].split(".")[0])}
    assert listed == {int(code) for code in ExitCode}


@pytest.mark.parametrize("path", tracked(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_speaks_of_the_machine_it_was_written_on(path: Path) -> None:
    if path.suffix in {".json", ".txt", ".md", ".py", ".toml", ".yaml", ".cfg", ""} and path.name != "LICENSE":
        text = path.read_text(errors="replace")
        # joined here, so that this file does not name them itself
        for word in (
            "/wo" + "rk/",
            "/ro" + "ot/.",
            "deb.deb" + "ian.org",
            "pypi." + "org",
            "npmjs." + "org",
            "docker." + "io/v",
        ):
            assert word not in text, word


def test_help_works_on_every_verb() -> None:
    for verb in verbs():
        command = [sys.executable, "-m", "sandbox", *verb.split(), "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout

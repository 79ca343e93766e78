"""What waits for a person is applied as it was shown, once, or not at all."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sandbox.records.log import read_events, verify
from sandbox.records.store import Store
from tests.lab import PROPOSE, ROOT, Lab

AGENT = PROPOSE + "asyncio.run(propose({'text': 'one'}, {'text': 'two\\u202e'}))\n"


def waits(lab: Lab, **output: Any) -> Path:
    """Run to the point at which two rows wait; return the run's folder."""
    rows = {"sink": {"kind": "dataset", "path": "out/rows.jsonl"}, "schema": "rows.json", "quota": {"per_run": 9}}
    outputs = {"rows": {**rows, "approval": "always", **output}}
    result = lab.run(lab.workflow(AGENT, outputs=["rows"], top={"outputs": outputs}))
    assert (result.exit_code, result.outcome) == (7, "incomplete"), result.stderr
    assert not (lab.folder / "out").exists()
    assert result.folder is not None
    return result.folder


def shown(lab: Lab) -> dict[str, Any]:
    answer = lab.cli("review", "--json")
    assert answer.returncode == 0, answer.stderr
    (one,) = json.loads(answer.stdout)
    return dict(one)


def decide(lab: Lab, verb: str, digest: str) -> tuple[int, str]:
    answer = lab.cli(verb, "latest", "rows", "--reason", "looked at it", "--digest", digest)
    return answer.returncode, answer.stderr


def rows(lab: Lab) -> list[str]:
    return [json.loads(line)["text"] for line in (lab.folder / "out" / "rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("output", [{}, {"approval": {"over": 1}}, {"quota": {"per_run": 9, "per_day": 2}}])
def test_what_was_approved_is_applied_once(lab: Lab, output: dict[str, Any]) -> None:
    folder = waits(lab, **output)
    one = shown(lab)
    assert one["lines"][1:] == ['? {"text":"one"}', '? {"text":"two\\u{202e}"}']
    assert decide(lab, "approve", one["digest"]) == (0, "")
    assert rows(lab) == ["one", "two\u202e"]
    verify(folder)
    events = list(read_events(folder))
    (decided,) = [event for event in events if event.event.value == "write.decided"]
    assert decided.attrs["casemate.digest"] == one["digest"]
    assert (decided.reason, decided.verdict) == ("looked at it", "allow")
    assert sum(event.event.value == "write.applied" for event in events) == 1
    assert decide(lab, "approve", one["digest"])[0] == 2  # nothing waits any more
    (listed,) = json.loads(lab.cli("runs", "--json").stdout)
    assert (listed["outcome"], listed["exit_code"]) == ("completed", 0)
    assert lab.left_over() == []


def test_two_approvers_sign_before_anything_is_written(lab: Lab) -> None:
    (lab.folder / "approvers").mkdir()
    for name in ("anna", "ben", "eve"):
        key = Ed25519PrivateKey.generate()
        (lab.folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (lab.folder / "approvers" / f"{name}.pub").write_bytes(public)
    folder = waits(lab, approvers={"need": 2, "of": ["anna", "ben"]})

    def approve(*by: str) -> int:
        digest = ("--digest", shown(lab)["digest"])
        return lab.cli("approve", "latest", "rows", "--reason", "looked at it", *digest, *by).returncode

    assert approve() == approve("--key", str(lab.folder / "eve.key")) == 4
    assert not any(event.event.value == "write.decided" for event in read_events(folder))
    for _ in range(2):  # and one person twice is one
        assert approve("--key", str(lab.folder / "anna.key")) == 7
        assert (shown(lab)["approved"], shown(lab)["missing"]) == (["anna"], 1)
        assert not (lab.folder / "out").exists()
    assert approve("--key", str(lab.folder / "ben.key")) == 0
    assert rows(lab) == ["one", "two\u202e"]
    decided = [event.attrs["casemate.person"] for event in read_events(folder) if event.event.value == "write.decided"]
    assert decided == ["anna", "ben"]
    assert lab.cli("log", "verify").returncode == 0


@pytest.mark.parametrize("change", ["rows", "sink", "digest"])
def test_row_73_an_approval_of_what_is_another_by_then_is_void(lab: Lab, change: str) -> None:
    folder = waits(lab)
    digest = shown(lab)["digest"]
    match change:
        case "rows":
            held = folder / "held" / "rows.held.jsonl"
            held.write_bytes(held.read_bytes().replace(b"one", b"six"))
        case "sink":
            (lab.folder / "out").mkdir()
            (lab.folder / "out" / "rows.jsonl").write_text('{"text":"zero"}\n')
        case _:
            digest = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    code, said = decide(lab, "approve", digest)
    assert (code, "CSM-W018" in said) == (4, True)
    assert not any(event.event.value == "write.decided" for event in read_events(folder))
    if change == "sink":  # the control: seen as it is now, it is approved
        one = shown(lab)
        assert one["lines"][1] == '- {"text":"zero"}'
        assert decide(lab, "approve", one["digest"])[0] == 0
        assert rows(lab) == ["one", "two\u202e"]


def test_what_was_rejected_is_not_applied(lab: Lab) -> None:
    folder = waits(lab)
    assert decide(lab, "reject", shown(lab)["digest"]) == (0, "")
    assert not (lab.folder / "out").exists()
    assert lab.cli("review").returncode == 2
    assert lab.cli("apply").returncode == 0
    assert not (lab.folder / "out").exists()
    (listed,) = json.loads(lab.cli("runs", "--json").stdout)
    assert (listed["outcome"], listed["exit_code"]) == ("denied", 6)
    verify(folder)


def test_rows_beside_those_that_wait_are_written_with_them(lab: Lab) -> None:
    waits(lab, approval="on_hold", atomic="each", findings={"unicode": "hold"}, scan=["secrets", "unicode"])
    one = shown(lab)
    assert one["lines"][1:] == ['+ {"text":"one"}', '? {"text":"two\\u{202e}"}']
    assert decide(lab, "reject", one["digest"]) == (0, "")
    assert rows(lab) == ["one"]


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_whoever_decides_is_killed_anywhere_and_repeats_it_and_each_row_is_there_once(lab: Lab, verb: str) -> None:
    """Rows go into a database, where one that was written twice would be seen."""
    database = lab.folder / "rows.db"
    output = {"sink": {"kind": "sql", "url": "sqlite:rows.db", "table": "notes"}}
    if verb == "reject":  # what passed beside it is written
        output |= {"approval": "on_hold", "atomic": "each", "findings": {"unicode": "hold"}, "scan": ["unicode"]}  # type: ignore[dict-item]
    with closing(sqlite3.connect(database)) as made:
        made.execute("create table notes (text text, n integer)")
    waits(lab, **output)
    empty = database.read_bytes()
    expected = ["one", "two\u202e"] if verb == "approve" else ["one"]

    def decide_in(name: str, at: int) -> subprocess.CompletedProcess[str]:
        home = lab.folder / name
        if not home.exists():
            shutil.copytree(lab.folder / ".casemate", home / ".casemate")
        command = [sys.executable, "-m", "tests.crash", verb, str(home / "workflow.yaml"), str(at), "after"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)

    def written() -> list[str]:
        with closing(sqlite3.connect(database)) as there:
            return [text for (text,) in there.execute("select text from notes order by text")]

    control = decide_in("whole", 0)
    assert (control.returncode, written()) == (0, expected), control.stderr
    steps = int(control.stdout)
    assert steps >= 4
    for at in range(1, steps + 1):
        database.write_bytes(empty)
        died = decide_in(f"at-{at}", at)
        assert died.returncode == -signal.SIGKILL, (at, died.stderr)
        again = decide_in(f"at-{at}", 0)
        assert again.returncode == 0 or (again.returncode == 1 and "CSM-R018" in again.stderr), (at, again.stderr)
        assert written() == expected, at
        store = Store(lab.folder / f"at-{at}" / ".casemate")
        verify(store.folder(store.latest()))
        assert store.runs()[0]["outcome"] == "completed", at

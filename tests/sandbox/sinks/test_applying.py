"""Applying: killed at every moment, what was accepted is applied once; and it can be taken back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.canonical import canonical, digest
from policies.errors import CasemateError
from policies.events import Attribute
from policies.plan import Output, Plan
from policies.sinks import At, Batch, Moment, pass_by
from policies.vocabulary import EventName
from policies.writes import Declaration, Written
from sandbox.archives import Kept
from sandbox.records.store import Options, Store
from sandbox.records.writes import State
from sandbox.sinks.applying import Applier, Here, enter, keep
from tests.plans import SHA, plan

ROWS = b'{"text":"one"}\n{"text":"two"}\n'
FORMER = b'{"text":"former"}\n'
KINDS: dict[str, tuple[dict[str, Any], str, bytes]] = {
    "dataset": ({}, "out/rows.jsonl", ROWS),
    "partition": ({"target": {"partition": "run"}}, "out/rows.jsonl/run=RUN/part.jsonl", ROWS),
    "file": ({"sink": "file", "format": "", "path": "out/report.md"}, "out/report.md", b"one\ntwo\n"),
}
TOLD: list[tuple[EventName, dict[str, Attribute]]] = []


def note(event: EventName, **fields: Any) -> None:
    """Take an event."""
    TOLD.append((event, fields["attrs"]))


def planned(**changes: Any) -> Plan:
    """Return a plan with one output."""
    base = plan()
    return msgspec.structs.replace(base, outputs=[msgspec.structs.replace(base.outputs[0], **changes)])


def accepted(root: Path, wanted: Plan, rows: bytes = ROWS) -> tuple[Store, str]:
    """Return a store with a run whose rows customs has accepted."""
    store = Store(root / ".casemate")
    (output,) = wanted.outputs
    written = [Written(output="rows", file="rows.jsonl", path=output.path, digest=digest(rows), rows=2, size=len(rows))]
    with store.new(wanted, SHA, Options(root=str(root))) as (run, folder):
        declared = Declaration(plan=SHA, accepted={"rows": 2}, rejected={}, written=written)
        (folder / "declaration.json").write_bytes(canonical(msgspec.to_builtins(declared)) + b"\n")
        (folder / "out").mkdir()
        files = {"rows.jsonl": rows, "rows.manifest.json": b'{"run":"x"}'}
        for name, content in files.items():
            (folder / "out" / name).write_bytes(content)
        keep(folder, wanted, written, {name: Kept(folder / "out" / name, digest(files[name])) for name in files})
        enter(store, run, root, written)
    return store, run


def dies_at(moment: Moment) -> At:
    """Return what kills this process at a moment, as nothing could be caught."""
    return lambda now: os.kill(os.getpid(), signal.SIGKILL) if now is moment else None


def main(home: str, run: str, moment: str) -> None:
    """Apply in a process of its own, and die."""
    store = Store(Path(home))
    Applier(store, run, store.plan(run), note, at=dies_at(Moment(moment))).apply()


def dies(store: Store, run: str, moment: Moment) -> None:
    """Apply in a process that is killed at a moment."""
    code = "import sys; from tests.sandbox.sinks.test_applying import main; main(*sys.argv[1:])"
    words = [sys.executable, "-c", code]
    died = subprocess.run([*words, str(store.home), run, moment.value], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL, "it did not die where it was to"


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment_it_is_applied_once(kind: str, moment: Moment, tmp_path: Path) -> None:
    changes, path, content = KINDS[kind]
    wanted = planned(**changes)
    store, run = accepted(tmp_path, wanted)
    dies(store, run, moment)
    target = tmp_path / path.replace("RUN", run)
    assert target.exists() == (moment in (Moment.FINAL, Moment.APPLIED))
    (write,) = store.writes.of(run)
    assert write.state is (State.APPLIED if moment is Moment.APPLIED else State.INTENDED)
    for _ in range(2):
        Applier(store, run, wanted, note).apply()
    (write,) = store.writes.of(run)
    assert (write.state, target.read_bytes()) == (State.APPLIED, content)
    assert json.loads(write.receipt or "")["digest"] == digest(content)
    Applier(store, run, wanted, note).undo()
    assert not target.exists()
    assert store.writes.of(run)[0].state is State.UNDONE


def test_what_was_there_comes_back_and_what_others_wrote_stays(tmp_path: Path) -> None:
    wanted = planned()
    target = tmp_path / "out" / "rows.jsonl"
    target.parent.mkdir()
    target.write_bytes(FORMER)
    store, run = accepted(tmp_path, wanted)
    applier = Applier(store, run, wanted, note)
    applier.apply()
    assert target.read_bytes() == ROWS
    manifest = json.loads(target.with_name("rows.jsonl.manifest.json").read_bytes())
    assert manifest["key"] == store.writes.of(run)[0].key
    target.write_bytes(b"mine")
    with pytest.raises(CasemateError, match="CSM-W017"):
        applier.undo()
    assert target.read_bytes() == b"mine"
    target.write_bytes(ROWS)
    applier.undo()
    assert target.read_bytes() == FORMER
    assert not (tmp_path / "out" / "rows.jsonl.manifest.json").exists()


def test_rows_that_were_changed_after_customs_are_not_applied(tmp_path: Path) -> None:
    wanted = planned()
    store, run = accepted(tmp_path, wanted)
    (store.folder(run) / "accepted" / "rows.jsonl").write_bytes(b'{"text":"other"}\n')
    with pytest.raises(CasemateError, match="CSM-W010"):
        Applier(store, run, wanted, note).apply()
    assert not (tmp_path / "out").exists()


class Deaf:
    """A sink that cannot tell what it has, and breaks off once."""

    tells, repeats = False, False

    def __init__(self) -> None:
        self.got = 0

    def find(self, batch: Batch) -> str | None:
        """Nobody knows."""
        return None

    def apply(self, batch: Batch, at: At) -> str:
        """Take it, and the first time break off."""
        self.got += 1
        if self.got == 1:
            raise RuntimeError("the line was cut")
        return "{}"

    def undo(self, _batch: Batch, _receipt: str) -> None:
        """Forget it."""
        self.got = 0


def rows_of(database: Path) -> list[tuple[str]]:
    """Return what is in the table."""
    with closing(sqlite3.connect(database)) as open_:
        return open_.execute("select text from notes order by text").fetchall()


@pytest.mark.parametrize("moment", Moment)
def test_rows_go_into_a_file_of_sqlite_once_and_come_out_again(moment: Moment, tmp_path: Path) -> None:
    target = {"url": "sqlite:app.db", "table": "notes"}
    wanted = planned(sink="sql", path="", format="", target=target, unique=["text"])
    with closing(sqlite3.connect(tmp_path / "app.db")) as database:
        database.execute("create table notes (text text primary key, score real)")
    store, run = accepted(tmp_path, wanted)
    dies(store, run, moment)
    there = [("one",), ("two",)]
    assert rows_of(tmp_path / "app.db") == (there if moment in (Moment.FINAL, Moment.APPLIED) else [])
    applier = Applier(store, run, wanted, note)
    for _ in range(2):
        applier.apply()
        assert rows_of(tmp_path / "app.db") == there
    applier.undo()
    assert (rows_of(tmp_path / "app.db"), store.writes.of(run)[0].state) == ([], State.UNDONE)


def test_a_row_that_somebody_changed_is_not_taken_back_nor_any_other(tmp_path: Path) -> None:
    target = {"url": "sqlite:app.db", "table": "notes"}
    wanted = planned(sink="sql", path="", format="", target=target, unique=["text"])
    with closing(sqlite3.connect(tmp_path / "app.db")) as database:
        database.execute("create table notes (text text primary key, score real)")
    store, run = accepted(tmp_path, wanted)
    applier = Applier(store, run, wanted, note)
    applier.apply()
    with closing(sqlite3.connect(tmp_path / "app.db")) as database:
        database.execute("update notes set score = 1 where text = 'two'")
        database.commit()
    with pytest.raises(CasemateError, match="CSM-W017"):
        applier.undo()
    assert len(rows_of(tmp_path / "app.db")) == 2


@pytest.mark.parametrize(("done", "times"), [(True, 1), (False, 2)])
def test_what_a_sink_cannot_tell_a_person_decides(done: bool, times: int, tmp_path: Path) -> None:
    wanted, sink = planned(sink="http", path="", format="", target={"url": "https://x.example"}), Deaf()
    store, run = accepted(tmp_path, wanted)

    def reach(output: Output, root: Path) -> Here:
        return Here(sink, pass_by)

    applier = Applier(store, run, wanted, note, reach, pass_by)
    with pytest.raises(RuntimeError):
        applier.apply()
    for _ in range(2):
        with pytest.raises(CasemateError, match="CSM-W016") as caught:
            applier.apply()
        assert (caught.value.exit_code, sink.got, store.writes.of(run)[0].state) == (7, 1, State.UNKNOWN)
    applier.decide("rows", done=done)
    applier.apply()
    assert (sink.got, store.writes.of(run)[0].state) == (times, State.APPLIED)
    with pytest.raises(CasemateError, match="CSM-R018"):
        applier.decide("rows", done=done)

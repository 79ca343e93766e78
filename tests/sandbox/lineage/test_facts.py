"""Facts of past runs: real run folders with real chained logs, and what becomes of them when somebody edits one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.lineage.facts import read_record, read_records
from sandbox.lineage.gate import LineageVerdict, judge, tell
from sandbox.lineage.registry import registry
from sandbox.lineage.types import Case, Dataset, Kinship, Record, Relation, Student, Use
from tests.sandbox.lineage.conftest import MakeRun, data

A, A_CHAT, B, C = "qwen2.5-0.5b", "qwen2.5-0.5b-instruct", "gemma-2-2b-it", "olmo-2-1124-7b"


def verdict(home: Path, *inputs: Dataset, student: str = A, teachers: tuple[str, ...] = (C,)) -> LineageVerdict:
    records = read_records(home, inputs, [student, *teachers])
    uses = tuple(Use(model=name) for name in teachers)
    return judge(Case(student=Student(model=student), uses=uses, inputs=inputs, records=records), registry())


def test_a_record_is_what_the_log_says(make_run: MakeRun) -> None:
    folder = make_run("gpt-4o-mini", [data("seeds")], [data("one")], answered="gpt-4o-mini-2024-07-18")
    record = read_record(folder)
    assert record.problem is None
    assert record.uses == (Use(model="gpt-4o-mini-2024-07-18", relation=Relation.GENERATED_BY, tokens=7),)
    assert (record.inputs, record.outputs) == ((data("seeds"),), (data("one"),))
    assert record.plan.startswith("sha256:")


def test_a_to_data_to_b_to_data_to_a_is_refused_with_the_path(home: Path, make_run: MakeRun) -> None:
    make_run(A_CHAT, [data("seeds")], [data("one")])
    make_run(B, [data("one")], [data("two")])
    make_run(C, [data("two")], [data("three")])
    found = verdict(home, data("three"))
    assert found.verdict is Kinship.SAME_INIT
    way = tell(found.path)
    places = [
        way.index(word) for word in ("three.jsonl", "000003", "two.jsonl", "000002", "one.jsonl", "000001", A_CHAT)
    ]
    assert places == sorted(places)
    assert found.generation == 4
    assert verdict(home, data("three"), student="pythia-1b").verdict is Kinship.CROSS


def test_a_teacher_brings_what_a_run_taught_it(home: Path, make_run: MakeRun) -> None:
    make_run(A_CHAT, [], [data("one")], student="gemma-2-2b")
    found = verdict(home, teachers=("gemma-2-2b",))
    assert found.verdict is Kinship.SAME_INIT
    assert frozenset({"gemma-2-2b", A}) in found.flywheels


def test_a_moving_name_is_unknown_until_the_answer_pins_it(home: Path, make_run: MakeRun) -> None:
    make_run("gpt-4o", [], [data("loose")])
    make_run("gpt-4o", [], [data("pinned")], answered="gpt-4o-2024-08-06")
    assert verdict(home, data("loose")).verdict is Kinship.UNKNOWN
    assert verdict(home, data("pinned")).verdict is Kinship.CROSS


def test_an_answer_under_another_name_counts_not_the_plan(home: Path, make_run: MakeRun) -> None:
    make_run(B, [], [data("one")], answered=A_CHAT)
    assert verdict(home, data("one")).verdict is Kinship.SAME_INIT


def test_a_call_that_broke_off_is_the_planned_models(home: Path, make_run: MakeRun) -> None:
    make_run(A_CHAT, [], [data("one")], answered=None)
    assert verdict(home, data("one")).verdict is Kinship.SAME_INIT


def test_an_empty_file_brings_nothing(home: Path, make_run: MakeRun) -> None:
    make_run(A_CHAT, [], [data("")], rows=0)
    assert [record.outputs for record in read_records(home, [data("")], [])] == [()]


def edit_log(folder: Path) -> None:
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes().replace(A_CHAT.encode(), b"pythia-1b"))


def drop_write(folder: Path) -> None:
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b"write.applied" not in line))


def edit_plan(folder: Path) -> None:
    path = folder / "plan.json"
    plan = json.loads(path.read_bytes())
    plan["inputs"] = []
    path.write_bytes(json.dumps(plan, separators=(",", ":"), sort_keys=True).encode())


def swap_plan(folder: Path) -> None:
    other = folder.with_name("20260101-000002-abcdef")
    shutil.copy(other / "plan.json", folder / "plan.json")


def move_run(folder: Path) -> None:
    folder.rename(folder.with_name("20250101-000001-abcdef"))


TAMPERED: dict[str, Callable[[Path], object]] = {
    "another model's name": edit_log,
    "a write taken out": drop_write,
    "another plan": swap_plan,
    "inputs taken out of the plan": edit_plan,
    "no plan": lambda folder: (folder / "plan.json").unlink(),
    "no head": lambda folder: (folder / "events.head").unlink(),
    "another run's id": move_run,
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_run_is_unknown_provenance(home: Path, make_run: MakeRun, how: str) -> None:
    folder = make_run(A_CHAT, [data("seeds")], [data("one")])
    make_run(B, [data("other")], [data("one too", "one.jsonl")])
    assert verdict(home, data("one")).verdict is Kinship.SAME_INIT
    TAMPERED[how](folder)
    found = verdict(home, data("one"))
    assert found.verdict is Kinship.UNKNOWN
    assert found.path[-1].target.key == data("one").digest


def test_a_forged_circle_over_runs_is_refused(home: Path, make_run: MakeRun) -> None:
    make_run(B, [data("two")], [data("one")])
    make_run(B, [data("one")], [data("two")])
    found = verdict(home, data("one"))
    assert found.verdict is Kinship.UNKNOWN
    assert len({node.key for node in found.forged}) == 4


def test_runs_that_do_not_matter_are_not_read(home: Path, make_run: MakeRun) -> None:
    make_run(A_CHAT, [], [data("one")])
    make_run(B, [], [data("elsewhere")])
    records: tuple[Record, ...] = read_records(home, [data("one")], [])
    assert [record.run for record in records] == ["20260101-000001-abcdef"]
    assert read_records(home / "nothing", [data("one")], []) == ()

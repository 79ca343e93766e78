"""The gate: what a student may not be exposed to, however long the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.lineage.gate import judge, tell
from sandbox.lineage.registry import Registry
from sandbox.lineage.types import Case, Dataset, Kinship, Record, Relation, Student, Use
from tests.sandbox.lineage.conftest import MODELS, data


def case(
    *teachers: str,
    student: str = "alpha-chat",
    root: str | None = None,
    inputs: tuple[Dataset, ...] = (),
    datasets: tuple[Dataset, ...] = (),
    records: tuple[Record, ...] = (),
) -> Case:
    uses = tuple(Use(model=name) for name in teachers)
    who = Student(model=student, init_root=root)
    return Case(student=who, uses=uses, inputs=inputs, datasets=datasets, records=records)


def record(
    number: int,
    *models: str,
    inputs: tuple[Dataset, ...] = (),
    outputs: tuple[Dataset, ...],
    student: str | None = None,
) -> Record:
    uses = tuple(Use(model=name) for name in models)
    run = f"20260101-00000{number}-abcdef"
    return Record(run=run, plan="", uses=uses, inputs=inputs, outputs=outputs, student=student)


@pytest.mark.parametrize(
    ("teacher", "verdict"),
    [
        ("alpha", Kinship.SAME_INIT),
        ("alpha-chat", Kinship.SAME_INIT),
        ("alpha-chat-gguf", Kinship.SAME_INIT),
        ("alpha-small", Kinship.SAME_INIT),
        ("alpha-lora", Kinship.SAME_INIT),
        ("alpha-beta", Kinship.SAME_INIT),
        ("beta-from-alpha", Kinship.SAME_INIT),
        ("gamma-from-beta-from-alpha", Kinship.SAME_INIT),
        ("beta", Kinship.CROSS),
        ("gamma", Kinship.CROSS),
        ("closed-2026-01-01", Kinship.CROSS),
        ("closed", Kinship.UNKNOWN),
        ("mystery", Kinship.UNKNOWN),
        ("never-heard-of", Kinship.UNKNOWN),
    ],
)
def test_what_a_teacher_means_for_a_student(models: Registry, teacher: str, verdict: Kinship) -> None:
    found = judge(case(teacher), models)
    assert found.verdict is verdict
    assert bool(found.refusals()) == verdict.refused
    assert tell(found.path).startswith("student alpha-chat —trained_on→ its outputs —derived_from→ this workflow")


def test_nothing_but_people_is_human(models: Registry) -> None:
    found = judge(case(inputs=(data("seeds"),)), models)
    assert found.verdict is Kinship.HUMAN
    assert (found.path, found.generation, found.flywheels) == ((), 0, ())


def test_a_judge_is_an_exposure_too(models: Registry) -> None:
    whole = Case(
        student=Student(model="alpha"),
        uses=(Use(model="beta"), Use(model="alpha-chat", relation=Relation.JUDGED_BY)),
        inputs=(),
    )
    found = judge(whole, models)
    assert found.verdict is Kinship.SAME_INIT
    assert found.path[-1].relation is Relation.JUDGED_BY


def test_the_path_through_a_distilled_teacher_is_shown(models: Registry) -> None:
    found = judge(case("beta-from-alpha"), models)
    assert tell(found.path).endswith(
        "—generated_by→ beta-from-alpha —trained_on→ outputs of alpha-chat —generated_by→ alpha-chat"
    )
    assert found.flywheels == (frozenset({"alpha", "beta"}),)


def test_the_way_back_over_three_runs_is_found(models: Registry) -> None:
    records = (
        record(1, "alpha-chat", inputs=(data("seeds"),), outputs=(data("one"),)),
        record(2, "beta", inputs=(data("one"),), outputs=(data("two"),)),
    )
    found = judge(case("gamma", student="alpha", inputs=(data("two"),), records=records), models)
    assert found.verdict is Kinship.SAME_INIT
    assert [edge.target.key for edge in found.path if edge.target.kind.value == "job"] == [
        "this workflow",
        "20260101-000002-abcdef",
        "20260101-000001-abcdef",
    ]
    assert found.generation == 3
    assert found.flywheels == (frozenset({"alpha"}),)


def test_a_model_carries_what_recorded_runs_taught_it(models: Registry) -> None:
    records = (record(1, "alpha-chat", outputs=(data("one"),), student="beta"),)
    assert judge(case("beta", student="alpha"), models).verdict is Kinship.CROSS
    found = judge(case("beta", student="alpha", records=records), models)
    assert found.verdict is Kinship.SAME_INIT
    assert found.flywheels == (frozenset({"alpha", "beta"}),)


def test_a_listed_data_set_needs_a_record(models: Registry) -> None:
    assert judge(case(datasets=(data("web"),)), models).verdict is Kinship.UNKNOWN
    known = (record(1, "beta", outputs=(data("web"),)),)
    assert judge(case(datasets=(data("web"),), records=known), models).verdict is Kinship.CROSS
    unread = (Dataset(path="gone.jsonl", digest=None),)
    assert judge(case(datasets=unread), models).verdict is Kinship.UNKNOWN
    assert judge(case(inputs=unread), models).verdict is Kinship.UNKNOWN


def test_a_recorded_file_that_was_changed_is_not_human(models: Registry) -> None:
    records = (record(1, "beta", outputs=(data("one", "rows.jsonl"),)),)
    found = judge(case(inputs=(data("one edited", "rows.jsonl"),), records=records), models)
    assert found.verdict is Kinship.UNKNOWN
    assert "not these bytes" in found.reasons[0]


def test_a_run_is_not_blamed_for_a_file_that_was_there_before_it(models: Registry) -> None:
    records = (
        record(1, "beta", inputs=(data("seeds", "rows.jsonl"),), outputs=(data("one"),)),
        record(2, "beta", outputs=(data("later", "rows.jsonl"),)),
    )
    assert judge(case(inputs=(data("one"),), records=records), models).verdict is Kinship.CROSS


def test_the_same_file_seen_before_and_after_it_was_changed_is_unknown(models: Registry) -> None:
    records = (
        record(1, "beta", inputs=(data("seeds", "rows.jsonl"),), outputs=(data("one"),)),
        record(2, "beta", outputs=(data("later", "rows.jsonl"),)),
    )
    both = (data("one"), data("seeds", "rows.jsonl"))
    assert judge(case(inputs=both, records=records), models).verdict is Kinship.UNKNOWN


def test_a_record_that_does_not_verify_counts_against_its_data(models: Registry) -> None:
    bad = Record(run="20260101-000009-abcdef", plan="", problem="the chain is broken here", outputs=(data("one"),))
    good = record(1, "beta", outputs=(data("one"),))
    for records in ((bad,), (bad, good), (good, bad)):
        found = judge(case(inputs=(data("one"),), records=records), models)
        assert found.verdict is Kinship.UNKNOWN
        assert "does not verify" in found.reasons[0]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_circle_of_digests_is_a_forgery(models: Registry, length: int) -> None:
    files = [data(f"d{i}") for i in range(length)]
    records = tuple(record(i, "beta", inputs=(files[i],), outputs=(files[(i + 1) % length],)) for i in range(length))
    found = judge(case(inputs=(files[0],), records=records), models)
    assert found.verdict is Kinship.UNKNOWN
    assert len(found.forged) >= 2
    assert found.generation == 0


def test_a_circle_that_nothing_here_leads_to_does_not_matter(models: Registry) -> None:
    records = (record(1, "beta", inputs=(data("x"),), outputs=(data("x"),)),)
    assert judge(case("gamma", records=records), models).forged == ()


def test_a_long_chain_of_runs_is_walked(models: Registry) -> None:
    records = [record(0, "alpha-chat", outputs=(data("d0"),))]
    records += [record(i, "beta", inputs=(data(f"d{i - 1}"),), outputs=(data(f"d{i}"),)) for i in range(1, 1500)]
    found = judge(case(inputs=(data("d1499"),), records=tuple(records)), models)
    assert found.verdict is Kinship.SAME_INIT


@pytest.mark.parametrize(
    ("student", "root", "code"),
    [
        ("alpha", None, None),
        ("alpha-chat", "alpha", None),
        ("alpha-chat", "alpha-chat-gguf", None),
        ("home-made", "alpha", None),
        ("home-made", None, "CSM-L003"),
        ("home-made", "home-made", "CSM-L003"),
        ("home-made", "alhpa", "CSM-L003"),
        ("home-made", "mystery", "CSM-L003"),
        ("mystery", None, "CSM-L003"),
        ("mystery", "alpha", "CSM-L003"),
        ("closed", None, "CSM-L004"),
        ("closed-2026-01-01", "test-closed", None),
        ("alpha-chat", "beta", "CSM-L006"),
        ("alpha-beta", "alpha", "CSM-L006"),
    ],
)
def test_what_is_known_of_a_student(models: Registry, student: str, root: str | None, code: str | None) -> None:
    found = judge(case("gamma", student=student, root=root), models)
    assert (found.problem.code if found.problem else None) == code
    assert found.verdict is (Kinship.UNKNOWN if code else Kinship.CROSS)


def test_a_root_that_the_workflow_names_counts_where_the_registry_is_silent(models: Registry) -> None:
    assert judge(case("alpha-chat", student="home-made", root="alpha"), models).verdict is Kinship.SAME_INIT


def test_only_the_first_refusal_on_a_way_is_named(models: Registry) -> None:
    found = judge(case("alpha-small", student="alpha"), models)
    assert [item.node.key for item in found.refusals()] == ["alpha-small"]


def test_an_exception_is_for_the_data_set_that_is_given_not_for_what_others_made_of_it(models: Registry) -> None:
    records = (
        record(1, "alpha-chat", outputs=(data("one"),)),
        record(2, "beta", inputs=(data("one"),), outputs=(data("two"),)),
    )
    whole = case("gamma", student="alpha", inputs=(data("two"),), records=records)
    assert judge(whole, models, without=frozenset({data("one").digest or ""})).verdict is Kinship.SAME_INIT
    assert judge(whole, models, without=frozenset({data("two").digest or ""})).verdict is Kinship.CROSS


TEACHERS = st.sampled_from([*MODELS, "never-heard-of"])
FILES = st.sampled_from([data(f"d{i}", path) for i in range(4) for path in ("", "rows.jsonl")])
PARTS = st.tuples(st.lists(TEACHERS, max_size=3), st.lists(FILES, max_size=3), st.lists(FILES, max_size=2))
RECORDS = st.lists(
    st.builds(
        lambda n, uses, inputs, outputs, problem, student: Record(
            run=f"20260101-00000{n}-abcdef",
            plan="",
            uses=tuple(Use(model=name) for name in uses),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            problem=problem,
            student=student,
        ),
        st.integers(0, 9),
        st.lists(TEACHERS, max_size=2),
        st.lists(FILES, max_size=2),
        st.lists(FILES, max_size=2),
        st.sampled_from([None, None, "broken"]),
        st.sampled_from([None, "alpha", "beta"]),
    ),
    max_size=4,
)


@given(PARTS, PARTS, RECORDS, st.sampled_from(["alpha", "alpha-chat", "beta", "mystery"]))
def test_more_exposure_never_lowers_the_verdict(
    models: Registry,
    some: tuple[list[str], list[Dataset], list[Dataset]],
    more: tuple[list[str], list[Dataset], list[Dataset]],
    records: list[Record],
    student: str,
) -> None:
    def of(teachers: list[str], inputs: list[Dataset], datasets: list[Dataset]) -> Kinship:
        fixed = {"student": student, "records": tuple(records)}
        return judge(case(*teachers, inputs=tuple(inputs), datasets=tuple(datasets), **fixed), models).verdict  # type: ignore[arg-type]

    both = (some[0] + more[0], some[1] + more[1], some[2] + more[2])
    assert of(*both) >= max(of(*some), of(*more))

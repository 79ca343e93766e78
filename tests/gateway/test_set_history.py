"""History: rows far from it, and sets that drift, wait for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.plan import Bound, Candidate, Distribution
from tests.gateway.judged import chained, judge, one
from tests.gateway.kit import make_output, make_plan


def history(**bound: Any) -> dict[str, Any]:
    centiles = [float(part) / 10 for part in range(101)]
    anchor = Distribution(n=1000, mean=5.0, sd=2.9, nulls=0.0, centiles=centiles)
    return {"bounds": {"score": Bound(min=None, max=None, sigma=3, anchor=anchor, **bound)}, "unique": []}


def scored(values: list[float]) -> list[dict[str, Any]]:
    return [{"prompt": f"row {number}", "score": value} for number, value in enumerate(values)]


def test_a_set_that_is_like_its_history_passes_and_says_what_it_was_like(tmp_path: Path) -> None:
    judged = one(tmp_path, scored([number % 11 for number in range(88)]), **history())
    assert judged.declaration().accepted == {"samples": 88}
    values = judged.declaration().values["samples"]["score"]
    assert (values.n, values.mean, values.centiles[0], values.centiles[100]) == (88, 5.0, 0.0, 10.0)


def test_a_row_far_from_its_history_is_rejected(tmp_path: Path) -> None:
    judged = one(tmp_path, scored([*(number % 11 for number in range(88)), 40]), **history())
    assert (judged.declaration().accepted, judged.declaration().rejected) == ({"samples": 88}, {"samples": 1})
    assert judged.lines("verdicts.jsonl")[88]["reasons"][0]["code"] == "CSM-W003"


def test_a_set_that_drifts_waits_for_a_person(tmp_path: Path) -> None:
    judged = one(tmp_path, scored([9.5] * 50), **history())
    declaration = judged.declaration()
    assert (declaration.accepted, declaration.rejected) == ({"samples": 0}, {"samples": 0})
    (held,) = declaration.held
    assert (held.rows, held.file) == (50, "samples.held.jsonl")
    assert judged.lines("samples.held.jsonl") == scored([9.5] * 50)
    assert {line["verdict"] for line in judged.lines("verdicts.jsonl")} == {"hold"}
    assert judged.lines("verdicts.jsonl")[0]["reasons"][0]["code"] == "CSM-W014"


def test_without_a_history_everything_waits_unless_there_are_limits(tmp_path: Path) -> None:
    unknown = one(tmp_path / "a", scored([1, 2, 3]), bounds={"score": Bound(min=None, max=None, sigma=3)})
    assert unknown.declaration().held[0].rows == 3
    limited = one(tmp_path / "b", scored([1, 2, 3]), bounds={"score": Bound(min=0, max=9, sigma=3)})
    assert limited.declaration().accepted == {"samples": 3}


def test_small_steps_that_have_added_up_are_held(tmp_path: Path) -> None:
    far = Candidate(n=1000, mean=5.0, sd=2.9, centiles=[5.0] * 101, up=1.9)
    records = scored([min(10, number % 11 + 1.2) for number in range(88)])
    data, last = chained([("samples", record) for record in records])
    plan = make_plan(make_output(**history()))
    facts = {"candidate/samples": msgspec.json.encode({"score": far}).decode()}
    alone = judge(tmp_path / "a", plan, {"draft": data}, {"draft": last})
    summed = judge(tmp_path / "b", plan, {"draft": data}, {"draft": last}, more=facts)
    assert (alone.declaration().accepted, summed.declaration().accepted) == ({"samples": 88}, {"samples": 0})


def test_a_field_that_is_left_out_does_not_escape_its_history(tmp_path: Path) -> None:
    without = [{"prompt": f"row {number}"} for number in range(30)]
    for name, records in {"all": without, "most": [*without, {"prompt": "one", "score": 5}]}.items():
        judged = one(tmp_path / name, records, **history())
        assert judged.declaration().accepted == {"samples": 0}, name
        assert judged.lines("verdicts.jsonl")[0]["reasons"][0]["code"] == "CSM-W014"
    unknown = one(tmp_path / "unknown", without, bounds={"score": Bound(min=None, max=None, sigma=3)})
    assert unknown.declaration().held[0].rows == 30


KINDS: dict[str, Any] = {
    "type": "object",
    "properties": {"prompt": {"type": "string"}, "kind": {"type": "string", "enum": ["good", "bad"]}},
    "required": ["prompt"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("others", [0, 40])
def test_a_text_is_bounded_by_its_length_alone_and_among_others(tmp_path: Path, others: int) -> None:
    lengths = [2, 3, 7, 8]
    records = [{"prompt": "é" * length} for length in lengths] + [{"prompt": "x" * 5}] * others
    result = one(tmp_path, records, bounds={"prompt": Bound(min=2.5, max=7)}, unique=[])
    assert [len(row["prompt"]) for row in result.lines("samples.jsonl")] == [3, 7] + [5] * others
    reasons = [line["reasons"][0] for line in result.lines("verdicts.jsonl") if line["verdict"] == "reject"]
    assert [(r["code"], r["excerpt"]) for r in reasons] == [("CSM-W003", "below 2.5"), ("CSM-W003", "above 7")]


def kinds(good: int, bad: int, length: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{n:0{length}d}", "kind": "good" if n < good else "bad"} for n in range(good + bad)]


def test_a_set_with_other_shares_or_lengths_than_its_history_is_held(tmp_path: Path) -> None:
    none = Bound(min=None, max=None, sigma=5)
    asked: dict[str, Any] = {"schema": KINDS, "per_run": 500, "unique": ["prompt"]}
    first = one(tmp_path / "first", kinds(80, 20, 9), bounds={"kind": none, "prompt": none}, **asked)
    values = first.declaration().values["samples"]
    assert values["kind"].shares == {"good": 0.8, "bad": 0.2}
    assert (values["prompt"].mean, values["prompt"].n) == (9, 100)
    signed = {name: msgspec.structs.replace(none, anchor=anchor) for name, anchor in values.items()}
    assert one(tmp_path / "same", kinds(150, 50, 9), bounds=signed, **asked).declaration().accepted == {"samples": 200}
    for name, others in (("kind", kinds(60, 140, 9)), ("prompt", kinds(160, 40, 12))):
        held = one(tmp_path / name, others, bounds={name: signed[name]}, **asked)
        assert held.declaration().accepted == {"samples": 0}, name

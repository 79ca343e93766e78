"""Every check as a table: what it objects to, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from gateway.customs.checks.base import Candidate, Check
from gateway.customs.checks.bounds import Bounds
from gateway.customs.checks.shape import MAX_NODES, Shape
from gateway.customs.columns import Columns
from gateway.customs.examine import checks_for
from gateway.customs.judge import MAX_REASONS, judgement, objections
from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import Scanner
from policies.plan import Bound
from policies.writes import Reason
from tests.gateway.kit import make_output

OPEN: dict[str, Any] = {"type": "object"}


def row(record: dict[str, Any] | None) -> Candidate:
    return Candidate(record=record, size=100)


def codes(check: Check, *records: dict[str, Any]) -> list[list[str]]:
    """What a check says of rows, one after the other: code and pointer."""
    return [[f"{reason.code} {reason.pointer}" for reason in check(row(record))] for record in records]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "x"}, []),
        ({"prompt": "x", "tags": [], "meta": {}}, []),
        ({}, ["CSM-W001 "]),
        ({"prompt": "x", "other": 1}, ["CSM-W001 "]),
        ({"prompt": 1}, ["CSM-W001 /prompt"]),
        ({"prompt": "x", "tags": ["a", 1]}, ["CSM-W001 /tags/1"]),
        ({"prompt": "x", "meta": {"a": [0] * (MAX_NODES + 1)}}, ["CSM-W006 "]),
    ],
)
def test_shape(record: dict[str, Any], expected: list[str]) -> None:
    assert codes(Shape(make_output()), record) == [expected]


def test_shape_of_rows_that_a_column_cannot_hold() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    table = make_output(schema=schema, format="parquet", bounds={}, unique=[])
    assert codes(Shape(table), {"n": 5}, {"n": 1e300}, {}) == [[], ["CSM-W001 /n"], []]


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (0, False),
        (10, False),
        (9.999, False),
        (-0.001, True),
        (10.001, True),
        (1e300, True),
        ("5", True),
        (None, True),
        (True, True),
        ([5], True),
        ({"n": 5}, True),
    ],
)
def test_bounds(value: Any, refused: bool) -> None:
    assert codes(Bounds(make_output()), {"score": value}) == [["CSM-W003 /score"] if refused else []]


def test_bounds_with_one_side_and_odd_names() -> None:
    bounds = {"a/b~c": Bound(min=None, max=1), "low": Bound(min=3, max=None)}
    check = Bounds(make_output(bounds=bounds))
    assert codes(check, {"a/b~c": -(10**9), "low": 10**9}, {"a/b~c": 2, "low": 2}, {}) == [
        [],
        ["CSM-W003 /a~1b~0c", "CSM-W003 /low"],
        [],
    ]


class Raising:
    """A check with a fault of its own."""

    name = "raising"

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        raise ZeroDivisionError(str(candidate.record))


def test_a_check_that_raises_rejects_and_says_nothing_of_the_row() -> None:
    reasons = objections(row({"prompt": "private"}), [Raising()])
    assert [(reason.code, reason.excerpt) for reason in reasons] == [
        ("CSM-W009", "the check failed: ZeroDivisionError")
    ]


def test_reasons_are_bounded() -> None:
    record = {"prompt": "x", "tags": list(range(50))}
    checks = list(checks_for(make_output(), Scanner(load(), []), b"k"))
    assert 0 < len(objections(row(record), checks)) <= MAX_REASONS


def test_what_is_found_may_wait_for_a_person_instead() -> None:
    hidden = Reason(check="unicode", code="CSM-W011", pointer="/a", excerpt="zero-width")
    secret = Reason(check="secrets", code="CSM-W005", pointer="/a", excerpt="x")
    output = make_output(findings={"unicode": "hold"})
    assert judgement("a-0", output, [hidden], False).verdict == "hold"
    assert judgement("a-0", output, [hidden, secret], False).verdict == "reject"
    assert judgement("a-0", make_output(), [hidden], False).verdict == "reject"


def test_one_bad_row_rejects_a_batch_and_only_a_batch() -> None:
    bad = [Reason(check="bounds", code="CSM-W003", pointer="/score", excerpt="above 10")]
    whole, single = make_output(atomic="batch"), make_output(atomic="each")
    assert judgement("a-0", whole, [], True).reasons[0].code == "CSM-W008"
    assert judgement("a-0", whole, [], False).verdict == "accept"
    assert judgement("a-0", single, [], True).verdict == "accept"
    assert judgement("a-0", single, bad, True).verdict == "reject"
    assert judgement("a-0", whole, bad, True).reasons == bad


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, "string"),
        ({"type": ["string", "null"]}, "string"),
        ({"type": "integer"}, "int64"),
        ({"type": ["integer", "number"]}, "float64"),
        ({"type": "boolean"}, "bool"),
        ({"type": ["string", "integer"]}, "json"),
        ({"type": "object"}, "json"),
        ({"enum": ["a", 1]}, "json"),
        (True, "json"),
        ({"type": "array", "items": {"type": "string"}}, "list<string>"),
        ({"type": "array", "items": {"type": "array"}}, "json"),
        ({"type": "array"}, "json"),
        ({"type": "array", "items": {"type": "boolean"}}, "json"),
    ],
)
def test_columns(schema: Any, kind: str) -> None:
    columns = Columns({"properties": {"field": schema}})
    assert [(column.name, column.kind) for column in columns.columns] == [("field", kind)]


def test_what_the_schema_does_not_name_is_kept_beside_it() -> None:
    columns = Columns({"properties": {"b": {"type": "number"}, "_extra": {"type": "object"}}})
    assert columns.extra == "__extra"
    assert columns.cells({"b": 1, "_extra": {"z": 1}, "more": True}) == ['{"z":1}', 1.0]
    assert columns.unnamed({"b": 1, "more": True}) == {"more": True}
    assert list(columns.misfits({"b": "x"})) == ["b"]

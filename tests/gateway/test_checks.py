"""Every check as a table: what it objects to, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.customs.checks.base import Candidate, Check
from gateway.customs.checks.bounds import Bounds
from gateway.customs.checks.quota import Quota
from gateway.customs.checks.registry import checks_for
from gateway.customs.checks.shape import MAX_NODES, Shape
from gateway.customs.checks.unique import Unique
from gateway.customs.columns import Columns
from gateway.customs.judge import MAX_REASONS, judgement, objections, record_of
from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import Scanner
from policies.canonical import canonical
from policies.plan import Bound
from policies.writes import Reason
from tests.gateway.kit import make_output

OPEN: dict[str, Any] = {"type": "object"}


def row(record: dict[str, Any], *, clean: bool = True, padding: int = 0) -> Candidate:
    return Candidate(line=canonical({"record": record}) + b" " * padding, record=record, clean=clean)


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


def test_quota_of_rows_and_bytes() -> None:
    rows = [{"prompt": str(n)} for n in range(4)]
    assert codes(Quota(make_output(per_run=2)), *rows) == [[], [], ["CSM-W002 "], ["CSM-W002 "]]
    assert codes(Quota(make_output(per_run=0)), rows[0]) == [["CSM-W002 "]]
    small = Quota(make_output(max_bytes=70))
    assert [len(list(small(row(record)))) for record in rows] == [0, 0, 1, 1]


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


def test_unique_first_wins_and_a_rejected_row_claims_nothing() -> None:
    check = Unique(make_output(unique=["prompt", "n"]))

    def objected(record: dict[str, Any], *, clean: bool = True) -> int:
        return len(list(check(row(record, clean=clean))))

    assert objected({"prompt": "a", "n": 1}, clean=False) == 0
    assert objected({"prompt": "a", "n": 1}) == 0
    assert objected({"prompt": "a", "n": 1, "score": 3}) == 1
    assert objected({"prompt": "a", "n": 2}) == 0
    assert objected({"prompt": "a"}) == 0
    assert objected({"prompt": "a", "n": None}) == 0
    assert objected({"prompt": "a"}) == 1
    assert objected({"prompt": "a", "n": 1.0}) == 1


class Raising:
    """A check with a fault of its own."""

    name = "raising"

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        raise ZeroDivisionError(str(candidate.record))


def test_a_check_that_raises_rejects_and_says_nothing_of_the_row() -> None:
    reasons = objections(canonical({"record": {"prompt": "private"}}), [Raising()])
    assert [(reason.code, reason.excerpt) for reason in reasons] == [
        ("CSM-W009", "the check failed: ZeroDivisionError")
    ]


def test_reasons_are_bounded() -> None:
    record = {"prompt": "x", "tags": list(range(50))}
    checks = checks_for(make_output(), Scanner(load(), []), b"k")
    assert 0 < len(objections(canonical({"record": record}), checks)) <= MAX_REASONS


def test_one_bad_row_rejects_a_batch_and_only_a_batch() -> None:
    bad = [Reason(check="bounds", code="CSM-W003", pointer="/score", excerpt="above 10")]
    whole, single = make_output(atomic="batch"), make_output(atomic="each")
    assert judgement("a-0", whole, [], True).reasons[0].code == "CSM-W008"
    assert judgement("a-0", whole, [], False).verdict == "accept"
    assert judgement("a-0", single, [], True).verdict == "accept"
    assert judgement("a-0", single, bad, True).verdict == "reject"
    assert judgement("a-0", whole, bad, True).reasons == bad


@pytest.mark.parametrize(
    "line",
    [
        b'{"record":{"a":1,"a":2}}',
        b'{"record":{"a":1},"record":{"a":2}}',
        b'{"record":{"a":NaN}}',
        b'{"record":{"a":1.0}}',
        b'{"record": {"a":1}}',
        b'{"record":{"b":1,"a":2}}',
        b'{"record":{"a":"\\ud800"}}',
        b'{"record":{"a":"\\u0041"}}',
        b'{"record":{"a":9007199254740993}}',
        b'{"record":' + b'{"a":' * 70 + b"1" + b"}" * 71,
        b'{"record":[]}',
        b'{"other":{}}',
        b"[]",
        b"",
        b"\xff",
    ],
)
def test_a_line_with_a_second_reading_has_no_record(line: bytes) -> None:
    assert record_of(line) is None
    reasons = objections(line, checks_for(make_output(), Scanner(load(), []), b"k"))
    assert reasons[0].code == "CSM-W006"


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e9, 1e9).filter(lambda number: number != int(number))
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=10,
)


@given(record=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _values, max_size=5))
def test_every_canonical_record_is_read_back(record: dict[str, Any]) -> None:
    assert record_of(canonical({"record": record})) == record


@given(data=st.binary(max_size=300))
def test_the_decoder_takes_any_bytes(data: bytes) -> None:
    record = record_of(data)
    assert record is None or canonical(json.loads(data)) == data


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

"""The form of records: it takes what the schema and the bounds take, or is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.customs.checks.bounds import Bounds
from gateway.customs.sheet.form import MAX_FIELDS, form_of
from gateway.customs.sheet.sheet import Reader
from gateway.schema import Schema
from policies.canonical import StrictJsonError, strict_loads
from policies.plan import Bound
from tests.gateway.kit import make_output
from tests.gateway.sheets import closed, reader_of, written

TEXT: dict[str, Any] = {"type": "string"}
INNER = {"type": "object", "properties": {}, "additionalProperties": False}
NO_FORM: dict[str, dict[str, Any]] = {
    "no fields": closed({}),
    "open": {"type": "object", "properties": {"a": TEXT}},
    "open by a schema": closed({"a": TEXT}, additionalProperties={}),
    "more fields by a pattern": closed({"a": TEXT}, patternProperties={}),
    "no type": {"properties": {"a": TEXT}, "additionalProperties": False},
    "types": closed({"a": TEXT}, type=["object"]),
    "a field that is required and not there": closed({"a": TEXT}, required=["a", "b"]),
    "too many fields": closed({f"f{number}": TEXT for number in range(MAX_FIELDS + 1)}),
    **{
        f"records {keyword}": closed({"a": TEXT}, **{keyword: value})
        for keyword, value in {
            "$id": "x:y", "$defs": {}, "$ref": "#", "allOf": [{}], "anyOf": [{}], "not": {"required": ["b"]}, "if": {},
            "minProperties": 1, "maxProperties": 1, "propertyNames": {}, "dependentRequired": {}, "const": {},
            "enum": [{}], "unevaluatedProperties": False,
        }.items()
    },
    **{
        f"the name {name!r}": closed({name: TEXT})
        for name in ("", "é", '"', "\\", "\t", "\x7f", "a\u200b", "a\nb", "\ud7ff", "ａ")
    },
    **{
        f"a field {asked}": closed({"a": asked, "b": TEXT})
        for asked in (
            True, {}, {"enum": ["a"]}, {"type": "array"}, {"type": "object"}, INNER, {"type": ["string", "array"]},
            {"type": "string", "pattern": "a"}, {"type": "string", "format": "date"}, {"type": "string", "not": {}},
            {"type": "string", "const": "a"}, {"$ref": "#"}, {"type": "string", "$ref": "#"},
            {"type": "integer", "enum": [1]}, {"type": ["string", "null"], "enum": ["a", None]},
            {"type": "integer", "multipleOf": 2}, {"type": "string", "anyOf": [{}]},
            {"type": "number", "maximum": 2**53}, {"type": "number", "minimum": -1e300},
            {"type": "number", "exclusiveMaximum": 1e17},
            {"type": "string", "$comment": "", "x-other": 1}, {"type": "string", "contentEncoding": "base64"},
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NO_FORM)
def test_a_schema_that_asks_for_more_has_no_form(name: str) -> None:
    assert form_of(NO_FORM[name], {}) is None


def test_bounds_that_tables_cannot_hold_give_no_form() -> None:
    schema = closed({"a": {"type": "string", "enum": ["a"]}})
    assert form_of(schema, {}) is not None
    assert form_of(schema, {"b": {"type": "number"}}) is None
    assert form_of(schema, {"a": {"type": "string", "not": {}}}) is None
    assert form_of(schema, {"a": {"type": "string", "enum": ["a"]}}) is None


def test_only_what_has_one_way_of_being_written_identifies_a_row() -> None:
    kinds = [
        *(({"type": kind}) for kind in ("string", "integer", "boolean", "null", "number")),
        {"type": ["null", "number"]},
    ]
    schema = closed({f"f{number}": kind for number, kind in enumerate(kinds)} | {"free": TEXT})
    form = form_of({**schema, "required": [f"f{number}" for number in range(6)]}, {})
    assert form is not None
    assert [form.identifies(name) for name in (*schema["properties"], "other")] == [True] * 4 + [False] * 4


def test_the_last_of_as_many_fields_as_there_may_be_is_read() -> None:
    names = [f"f{number}" for number in range(MAX_FIELDS)]
    reader = reader_of(closed({name: {"type": "integer"} for name in names}, required=names))
    row = dict.fromkeys(reversed(names), 1)
    found = reader.read(written([row, row]))
    assert found is not None
    assert list(found.records.values()) == [row, row]
    for name in (names[0], names[-1]):
        assert reader.read(written([row, {other: 1 for other in names if other != name}])) is None


_side = st.sampled_from([0, 1, -1, 2, 2.5, 0.1, -0.0, 1e-320, 2**53 - 1, 9007199254740990.5, 1.0]) | st.floats(-10, 10)
_length = st.sampled_from([0, 1, 2, 3, 2.0, 5, 2**31 - 1, 2**40, 1e20])
_limits = st.fixed_dictionaries(
    {},
    optional={
        "minimum": _side, "maximum": _side, "exclusiveMinimum": _side, "exclusiveMaximum": _side,
        "minLength": _length, "maxLength": _length,
    },
)  # fmt: skip
_kind = st.sampled_from(["string", "integer", "number", "boolean", "null"])
_kinds = _kind | st.lists(_kind, min_size=1, unique=True)
_words = st.sampled_from(["", "a", "aa", "ü", "🏴🏴", 'a"\n\\', "/\x7f\b"])
_field = st.builds(lambda kinds, more: {"type": kinds, **more}, _kinds, _limits | st.just({})) | st.builds(
    lambda kinds, words: {"type": kinds, "enum": words}, _kinds, st.lists(_words, min_size=1, unique=True)
)
_bound = st.builds(Bound, min=st.none() | _side, max=st.none() | _side | st.just(2**53 - 1))
_decimal = st.builds(lambda whole, places: round(whole / 10**places, places), st.integers(-999, 999), st.integers(0, 2))
_exact = _side | st.builds(lambda side, off: side + off, _side, st.sampled_from([1, -1, 1e-15, -1e-15]))
_value = st.one_of(_words, st.text("aü🏴", max_size=4), st.integers(-3, 3), _decimal, _exact, st.booleans(), st.none())


@settings(max_examples=500)
@given(st.data())
def test_what_a_form_takes_the_schema_and_the_bounds_take(data: st.DataObject) -> None:
    fields = data.draw(st.dictionaries(st.sampled_from(["a", "ab", "b c", "{:"]), _field, min_size=1))
    names = sorted(fields)
    schema = closed(fields, required=data.draw(st.lists(st.sampled_from(names), unique=True)))
    bounds = Bounds(
        make_output(
            schema=schema, unique=[], bounds=data.draw(st.dictionaries(st.sampled_from(names), _bound, max_size=2))
        )
    )
    form, fits = form_of(schema, bounds.schemas()), Schema(schema, "test")
    rows = data.draw(st.lists(st.dictionaries(st.sampled_from(names), _value), min_size=1, max_size=8))
    if form is None:
        return
    reader = Reader(form)
    for row in rows:
        line = written([row], ensure_ascii=data.draw(st.booleans()))
        try:
            good = fits.fits(strict_loads(line)) and not any(bounds.broken(row))  # type: ignore[arg-type]
        except StrictJsonError:
            good = False
        # 1.0 is an integer, too; it is read in another way
        odd = any(isinstance(value, float) and value.is_integer() for value in row.values())
        assert (reader.read(line) is not None) == good or (good and odd), (line, schema)


@pytest.mark.parametrize(
    ("asked", "taken", "refused"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 3}, [1, 2, 3], [0, 4, -1, 1.5, "1", True, None]),
        ({"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 3}, [1.0000000000000002, 2.5], [1, 1.0, 3, 3.0]),
        ({"type": "number", "minimum": 1, "exclusiveMinimum": 2}, [2.1], [1, 2]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "🏴🏴", "\n\n\n"], ["", "a", "🏴", "abcd"]),
        ({"type": "string", "maxLength": 2.0}, ["", "ab"], ["abc"]),
        ({"type": "string", "maxLength": 1e20}, ["", "ab" * 999], []),
        ({"type": "string", "minLength": 1e20}, [], ["", "ab" * 999]),
        ({"type": "string", "enum": ["a", "ü\n"]}, ["a", "ü\n"], ["", "A", "aa", "b", None]),
        ({"type": ["string", "null"], "maxLength": 0, "minimum": 5}, ["", None], ["a", 6, True]),
        ({"type": ["boolean", "integer"], "maximum": 5, "minLength": 9}, [True, False, 5], [6, "a", None]),
    ],
)  # fmt: skip
def test_a_field_takes_what_its_schema_takes(asked: dict[str, Any], taken: list[Any], refused: list[Any]) -> None:
    reader = reader_of(closed({"a": asked}))
    for value in taken:
        assert reader.read(written([{"a": value}])) is not None, value
    for value in refused:
        assert reader.read(written([{"a": value}])) is None, value
    assert reader.read(written([{"a": value} for value in taken])) is not None or not taken

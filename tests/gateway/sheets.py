"""Lines for the sheet, and what the older way reads in them and makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from gateway.customs import history
from gateway.customs.checks import unicode
from gateway.customs.checks.contamination import letters_of
from gateway.customs.examine import keys_as_written
from gateway.customs.sheet.form import form_of
from gateway.customs.sheet.sheet import Reader, Sheet
from gateway.customs.sieve import decode, planes
from gateway.customs.sieve.patterns import Patterns
from gateway.schema import Schema
from policies.canonical import strict_loads


def closed(fields: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the schema of a record with these fields and no other."""
    return {"type": "object", "properties": dict(fields), "additionalProperties": False, **more}


ANY = ["string", "number", "boolean", "null"]
SCHEMA = closed(
    {
        "text": {"type": "string", "maxLength": 300},
        "a": {"type": ANY},
        "n": {"type": "integer", "minimum": -(2**53) + 1},
        "yes": {"type": ["boolean", "null"]},
        "b": {"type": ANY},
        "word": {"type": "string", "enum": ["good", "bad", "ü", "\\\b\f\n\r\t\"/\x7f"]},
    }
)  # fmt: skip
NAMES = list(SCHEMA["properties"])
FITS = Schema(SCHEMA, "test")


def reader_of(schema: Mapping[str, Any], bounds: Mapping[str, Any] | None = None) -> Reader:
    form = form_of(schema, bounds or {})
    assert form is not None
    return Reader(form)


READER = reader_of(SCHEMA)


_DECEIVING = Patterns({"unicode": unicode.SIEVE})


def _places(some: planes.Planes) -> list[list[int]]:
    return [place for place in some.places.tolist() if place[0] < place[1]]


def read(block: bytes, reader: Reader = READER, fits: Schema = FITS) -> Sheet | None:
    """Read lines; what is read is as the strict parser reads it, and as the older way would apply and search it."""
    sheet = reader.read(block)
    if sheet is None:
        return None
    lines = block.removesuffix(b"\n")
    rows = decode.read(lines)
    strict: list[Any] = [strict_loads(line) for line in lines.split(b"\n")]
    assert all(map(fits.fits, strict))
    # as text, in which neither 1 is 1.0 nor fields have another order
    assert repr(list(sheet.records.values())) == repr(strict) == repr(rows.records)
    assert sheet.block == rows.block
    plane = plane_of(strict)
    assert sheet.planes == planes.planes_of(plane)
    assert sheet.planes.deceives or not _DECEIVING.rows(sheet.planes.text)
    assert _places(sheet.planes) == _places(planes.planes_of(plane))
    assert sheet.letters == letters_of(plane)
    names = reader._form.names
    assert sheet.plane() == b"".join(column_of(strict, name) for name in names)
    for name in names:
        check_column(sheet, strict, name)
    return sheet


def plane_of(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the plane of records, in which true, false and null are nothing."""
    return planes.plane_of([{name: shown(value) for name, value in r.items()} for r in records], flat=True)


def shown(value: object) -> object:
    return "" if value is None or isinstance(value, bool) else value


def column_of(records: Sequence[Mapping[str, Any]], name: str) -> bytes:
    joined = planes.joined(["".join(str(shown(record[name])) for record in records if name in record)])
    return planes.squeezed(planes.unhidden(planes.folded(joined)))


def check_column(sheet: Sheet, records: Sequence[Mapping[str, Any]], name: str) -> None:
    """The values of a field are those that the older way has."""
    there = [record for record in records if name in record]
    if not any(isinstance(record[name], float) for record in there):
        assert sheet.lines_of([name]) == keys_as_written(there, [name])
    for without in (set[int](), {0, len(records) - 1}):
        kept = [record for number, record in enumerate(records) if number not in without]
        for measure in ("value", "length"):
            assert list(sheet.measured(name, measure, without)) == history.columns_of(kept, {name: measure})[name]
        if not any(isinstance(record[name], float | int) and not isinstance(record[name], bool) for record in there):
            assert sheet.measured(name, "share", without) == history.columns_of(kept, {name: "share"})[name]


_space = st.sampled_from([b"", b"", b"", b" ", b"\t", b"\r", b"  "])
_raw = st.characters(exclude_categories=["Cs"], exclude_characters='"\\').map(str.encode)
_escape = st.sampled_from([b'\\"', b"\\\\", b"\\/", b"\\b", b"\\f", b"\\n", b"\\r", b"\\t", b"\\u00e9", b"\\u0041"])
_hex = st.sampled_from(
    [0, 7, 8, 9, 10, 11, 12, 13, 14, 0x1E, 0x1F, 0x22, 0x2F, 0x5C, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x200B, 0x430]
) | st.integers(0, 0xFFFF)
_escaped = st.builds(lambda code, form: form % code, _hex, st.sampled_from([b"\\u%04x", b"\\u%04X"]))
_pair = st.builds(
    lambda high, low: b"\\u%04x\\u%04X" % (high, low), st.integers(0xD7FF, 0xDC00), st.integers(0xDBFF, 0xE000)
)
_ESCAPES = rb"\u12 \x41 \ \u \ud83d \udc00x \U0041 \u+123 \u00g0 \u00_0".split()
_BYTES = """00 1f 7f 80 c3 fe ff c0ae c1bf c280 e282 e080af e09fbf eda080 edbfbf ed9fbf ee8080 f08fbfbf f09f98 f48080
    f48fbfbf f4908080 f5808080 f888808080 5cc3a9"""
_odd = st.sampled_from([*_ESCAPES, *map(bytes.fromhex, _BYTES.split())])
_part = st.one_of(_raw, _raw, _raw, _escape, _escaped, _pair)
_text = st.lists(_part, max_size=5).map(b"".join)
_odd_text = st.lists(_part | _odd, max_size=5).map(b"".join)
_digits = st.text("0123456789", max_size=19).map(str.encode)
_number = st.one_of(
    st.builds(
        lambda *parts: b"".join(parts),
        st.sampled_from([b"", b"", b"-", b"+"]),
        st.sampled_from([b"0", b"1", b"10", b"9007199254740991", b"9007199254740992", b"00"]) | _digits,
        st.just(b"") | st.builds(lambda digits: b"." + digits, _digits),
        st.just(b"") | st.builds(lambda e, n: e + n[:3], st.sampled_from([b"e", b"E", b"e-", b"E+"]), _digits),
    ),
    st.sampled_from(b"1E15 1e-400 5e-324 -0 -0.0 -0e5 0.00010 0.001 1e22 1e400 NaN".split()),
    st.floats(allow_nan=False).map(lambda number: repr(number).encode()),
    st.floats(-1e5, 1e5).map(lambda number: repr(number).encode()),
    st.integers(-(2**54), 2**54).map(lambda number: b"%d" % number),
)  # fmt: skip
_quoted = st.builds(lambda text: b'"' + text + b'"', _text)
_word = st.sampled_from([b"true", b"false", b"null"])
_good_word = st.sampled_from([b'"good"', b'"bad"', '"ü"'.encode(), b'"\\u00fc"', b'"go\\u006fd"'])
_value = {
    "text": _quoted, "a": _quoted | _number | _word, "b": _quoted | _number | _word, "n": _number,
    "yes": _word, "word": _good_word,
}  # fmt: skip
_odd_value = st.one_of(
    _number, _word, _quoted, st.builds(lambda text: b'"' + text + b'"', _odd_text),
    st.sampled_from([b"[]", b"{}", b"", b"nul", b"True", b"nullx", b"'a'", b'"', b"tru", b'"worse"']),
)  # fmt: skip
_odd_key = st.sampled_from([b'"c"', b'"\\u0061"', b'"aa"', b'""', b'"te"', b"a", b'"a', b'"text"', b'"a"', b'"words"'])


def _line(draw: st.DrawFn, *, odd: bool) -> bytes:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    parts = [[f'"{name}"'.encode(), draw(_value[name])] for name in names]
    if odd:
        parts.insert(draw(st.integers(0, len(parts))), [draw(_odd_key), draw(_odd_value)])
    spaces = st.tuples(_space, _space)
    members = b",".join(
        b"".join([*draw(spaces), key, draw(_space), b":", draw(_space), value, draw(_space)]) for key, value in parts
    )
    return draw(_space) + b"{" + (members or draw(_space)) + b"}" + draw(_space)


@st.composite
def lines(draw: st.DrawFn, *, odd: bool = False) -> bytes:
    return _line(draw, odd=odd)


def written(rows: Sequence[Mapping[str, Any]], **how: Any) -> bytes:
    """Return rows as an agent would write them, a line each."""
    return "\n".join(json.dumps(row, **how) for row in rows).encode()

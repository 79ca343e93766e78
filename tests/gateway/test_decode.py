"""Lines to records: a line has one reading, which is that of the strict parser, alone and among others."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.customs.sieve.decode import MAX_RECORD, read
from policies.canonical import MAX_DEPTH, StrictJsonError, canonical, strict_loads
from tests.gateway.sieves import joined

SECOND_READINGS = [
    b'{"a":1,"a":2}',
    b'{"a":{"b":1,"b":1}}',
    b'{"a":1, "a":1}',
    b'{"a":1,"\\u0061":2}',
    b'{"a\\\\":1,"a\\\\":2}',
    b'{"a" :1,"a":2}',
    b'{"a"\t:1,"a":2}',
    b'{"a":NaN}',
    b'{"a":"\\ud800"}',
    b'{"a":9007199254740993}',
    b'{"a":123456789012345678901234567890}',
    b'{"a":1e400}',
    b"[]",
    b"1",
    b"",
    b"\xff",
    b'{"a":"\xff"}',
    b'\xef\xbb\xbf{"a":1}',
    b'{"a":' * 70 + b"1" + b"}" * 70,
    b'{"a":1}{"b":2}',
    b'{"a":1},{"b":2}',
    b'{"a":1',
    b'"b":2}',
    b'{"a":01}',
    b"{'a':1}",
    b'{"a":1}\x1e',
    b'{"a":1}{"b":{"c":1}',
    b'{"a":1} {"b":2}',
    b'{"a":\x0b1}',
    b'{"a":"\x01"}',
    b'{"a":"\t"}',
    b'{"a":"\\x41"}',
    b'{"a":"\\ud800\\u0041"}',
    b'{"a":"\\udc00\\ud800"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xc0\xae"}',
    b'{"a":1.}',
    b'{"a":.5}',
    b'{"a":+1}',
    b'{"a":-}',
    b'{"a":1e}',
    b'{"a":0x1}',
    b'{"a":Infinity}',
    b'{"a":true1}',
    b'{"a":1,}',
    b'{"a":[1,]}',
    b'{"a" 1}',
    b"{a:1}",
    b"{1:1}",
    b'{"a":1/**/}',
    b'{"a":"' + b"x" * MAX_RECORD + b'"}',
]


@pytest.mark.parametrize("line", SECOND_READINGS, ids=lambda line: repr(line[:30]))
def test_a_line_with_a_second_reading_is_no_record_alone_or_among_others(line: bytes) -> None:
    good = [b'{"a":1,"b":"two"}', b'{"b": "x\\"y\\":z", "a": 1.0}', b'{"a":"\\\\"}']
    assert read(line).records == [None]
    among = [record is None for record in read(joined([*good, line, *good])).records]
    assert among == [False] * 3 + [True] + [False] * 3


@pytest.mark.parametrize(
    "lines",
    [
        [b'{"a":1}{"b":{"c":1}', b'{"d":1}}'],
        [b'{"a":1}{"b":2}', b'{"c":', b"3}"],
        [b'{"a":{', b'}}{"b":1}'],
        [b'{"a":1},{"b":{}', b'{"c":2}'],
        [b'{"a":[{}', b"{}]}"],
        [b'{"a":"}', b'{"}{"b":1}'],
        [b"{}{}", b'{"a":{"b":1}', b"}"],
        [b'{"a":1} ', b' {"b":2}{}'],
    ],
    ids=repr,
)
def test_a_record_is_one_line_and_a_line_one_record(lines: list[bytes]) -> None:
    good = b'{"a":1}'
    for before, after in (([], []), ([good], [good] * 2)):
        wanted = [one(line) for line in (*before, *lines, *after)]
        assert read(joined([*before, *lines, *after])).records == wanted


@pytest.mark.parametrize("others", [[], [b'{"a":1}'] * 9, [b"[]", b"", b'{"a":NaN}'] * 9, [b'{"a":1}', b"1"] * 9])
def test_a_line_that_is_nested_too_deep_is_no_record_whatever_is_beside_it(others: list[bytes]) -> None:
    for depth in (MAX_DEPTH, MAX_DEPTH + 1):
        for opening, closing in ((b'{"a":', b"}"), (b"[", b"]")):
            line = b'{"a":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}"
            assert (read(joined([*others, line])).records[-1] is None) == (depth > MAX_DEPTH)


def one(line: bytes) -> object:
    try:
        record = strict_loads(line)
    except StrictJsonError:
        return None
    return record if isinstance(record, dict) else None


@given(st.data())
def test_lines_that_are_cut_and_mixed_are_read_as_each_is_alone(data: st.DataObject) -> None:
    parts = st.sampled_from([b"{", b"}", b'{"a":', b'"b":', b"[", b"]", b",", b'"', b"1", b" ", b'{"c":{}}', b"\\"])
    line = st.lists(parts, min_size=1, max_size=6).map(b"".join) | st.just(b'{"a":1}')
    lines = data.draw(st.lists(line, min_size=1, max_size=4))
    assert read(joined(lines)).records == [one(line) for line in lines]


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e9, 1e9)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=10,
)


@given(
    record=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _json, max_size=5), pretty=st.booleans()
)
def test_every_record_is_read_back(record: dict[str, Any], pretty: bool) -> None:
    line = orjson.dumps(record, option=orjson.OPT_INDENT_2).replace(b"\n", b" ") if pretty else canonical(record)
    rows = read(joined([b"{}", line]))
    assert rows.records[1] == record
    assert orjson.loads(rows.forms[1]) == record


@given(data=st.binary(max_size=300))
def test_whatever_is_read_the_strict_parser_reads_too(data: bytes) -> None:
    record = read(data.replace(b"\n", b" ")).records[0]
    try:
        strict = strict_loads(data)
    except StrictJsonError:
        strict = None
    assert record is None or record == strict or orjson.dumps(record)  # exponents beyond 2^53 are floats for everybody
    if isinstance(strict, dict):
        assert record == strict

"""Chunks that are read at once and the same chunks read row by row: nothing of what is found may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.customs.examine import KEY_BYTES, Examined, Examiner, examiner
from gateway.customs.scan.values import Needle
from policies.plan import Bound, Output
from tests.gateway.kit import make_output
from tests.gateway.sheets import closed, lines, written
from tests.gateway.sieves import ALL, NEEDLES, WIDE
from tests.gateway.test_contamination import LONG, PROBES, SHORT
from tests.gateway.test_rules import POSITIVE
from tests.gateway.test_secrets import FOREIGN, GUISES, SECRET
from tests.gateway.test_sieve import _texts, _words

FIELDS: dict[str, Any] = {
    "n": {"type": "integer"},
    "text": {"type": "string", "maxLength": 600},
    "a": {"type": ["string", "number", "boolean", "null"]},
    "yes": {"type": ["boolean", "null"]},
    "b": {"type": ["string", "number", "boolean", "null"]},
    "kind": {"type": "string", "enum": ["good", "bad", "ü"]},
    "score": {"type": "number"},
    "sure": {"type": "boolean"},
}
BOUNDS = {
    "score": Bound(min=0, max=10, sigma=3),
    "text": Bound(min=None, max=500, sigma=3),
    "kind": Bound(min=None, max=None, sigma=3),
    "sure": Bound(min=None, max=None, sigma=3),
    "n": Bound(min=-(2**53) + 1, max=None, sigma=3),
}
EVERY: dict[str, Any] = {
    "schema": closed(FIELDS, required=["n"]),
    "bounds": BOUNDS,
    "unique": ["n"],
    "scan": ALL,
    "hosts": ["example.com"],
}


def both(known: Sequence[Needle] = NEEDLES, **changes: Any) -> tuple[Examiner, Examiner]:
    """Return two examiners of one output: one that reads chunks at once, and one that does not."""
    output: Output = make_output(**{**EVERY, **changes})
    fast, slow = (examiner(output, known, b"k", PROBES) for _ in range(2))
    assert fast._reader is not None
    slow._reader = None
    return fast, slow


PLAIN = both()
REDACTING = both(
    findings={"pii": "redact", "unicode": "hold"}, unique=["n", "text"], schema=closed(FIELDS, required=["n", "text"])
)
MIXED = both(unique=["yes", "text"], schema=closed(FIELDS, required=["yes", "text"]), scan=["secrets"], bounds={})
TABLE = both(format="parquet", path="out/samples.parquet")
OTHER = both(WIDE)
PAIRS = {"plain": PLAIN, "redacting": REDACTING, "mixed": MIXED, "a table": TABLE, "other letters": OTHER}


def told(examined: Examined) -> dict[str, Any]:
    """Return what an examination tells; keys only by which of them are equal."""
    edges = examined.edges
    keys = [examined.keys[start : start + KEY_BYTES] for start in range(0, len(examined.keys), KEY_BYTES)]
    return {
        "count": examined.count,
        "rows": examined.rows,
        "reasons": examined.reasons,
        "keys": [key if not any(key) else keys.index(key) for key in keys],
        "refers": {n: names for n, names in examined.refers.items() if names},
        "flags": (examined.open, examined.rejects),
        "numbers": {name: list(values) for name, values in examined.numbers.items()},
        "found": sorted(map(repr, edges.found)) if edges else None,
        "heads": {name: head for name, head in edges.heads.items() if head} if edges else None,
        "tails": {name: tail for name, tail in edges.tails.items() if tail} if edges else None,
    }


def same(pair: tuple[Examiner, Examiner], block: bytes) -> Examined:
    """Examine a chunk in both ways, which must tell the same."""
    fast, slow = (one.examine(block) for one in pair)
    assert told(fast) == told(slow)
    assert fast.keys == slow.keys
    return fast


def at_once(pair: tuple[Examiner, Examiner], block: bytes) -> bool:
    assert pair[0]._reader is not None
    return pair[0]._reader.read(block) is not None


_pieces = st.sampled_from(
    [text for text in GUISES.values() if isinstance(text, str)]
    + [FOREIGN, FOREIGN[:9], FOREIGN[9:], FOREIGN.lower()]
    + [SECRET[:5], SECRET[5:12], SECRET[12:], LONG, LONG[:30], LONG[30:], SHORT, SHORT[:20], SHORT[20:]]
    + [part for token in POSITIVE.values() for part in (token, token[:12], token[12:])]
)
_any_text = st.one_of(_texts, _pieces, st.lists(_pieces | _words, max_size=3).map("".join))
_honest = st.sampled_from(["two plus two", "Съешь ещё", "北京 🏴", "", "a 7", "é\n"])
_text = (_honest | _any_text).map(
    lambda text: "".join(char for char in text if char >= " " or char in "\b\t\n\f\r")[:400]
)
_integer = st.integers(0, 3) | st.integers(-(10**9), 10**9)
_any = _text | _integer | st.floats(-1e5, 1e5) | st.booleans() | st.none()
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n": _integer,
    "text": _text,
    "a": _any,
    "yes": st.booleans() | st.none(),
    "b": _any,
    "kind": st.sampled_from(["good", "bad", "ü"]),
    "score": st.floats(0, 10) | st.integers(0, 10),
    "sure": st.booleans(),
}


@st.composite
def chunks(draw: st.DrawFn, required: Sequence[str]) -> bytes:
    """Rows that fit, with fields in any order."""
    optional = {name: values for name, values in VALUES.items() if name not in required}
    row = st.fixed_dictionaries({name: VALUES[name] for name in required}, optional=optional)
    rows = draw(st.lists(row, min_size=1, max_size=4))
    ordered = [{name: found[name] for name in draw(st.permutations(list(found)))} for found in rows]
    return written(ordered, ensure_ascii=draw(st.booleans()))


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_read_at_once_is_found_as_row_by_row(name: str) -> None:
    pair = PAIRS[name]
    seen: list[bool] = []

    @settings(max_examples=150)
    @given(chunks(pair[0].output.schema["required"]))
    def holds(block: bytes) -> None:
        assert at_once(pair, block)
        seen.append(bool(same(pair, block).reasons))

    holds()
    assert 20 < sum(seen) < len(seen) - 20


@settings(max_examples=100)
@given(st.lists(lines(odd=True), min_size=1, max_size=3))
def test_odd_chunks_are_found_as_row_by_row(rows: list[bytes]) -> None:
    same(PLAIN, b"\n".join(rows).replace(b'"word"', b'"kind"'))


def told_of(name: str, *rows: Mapping[str, Any]) -> Examined:
    """Return what both ways tell of rows that can be read at once."""
    block = written(rows)
    assert at_once(PAIRS[name], block)
    return same(PAIRS[name], block)


@pytest.mark.parametrize("between", [True, False, None])
@pytest.mark.parametrize("where", range(3))
def test_what_is_split_around_true_or_null_is_found(between: object, where: int) -> None:
    honest = {"n": 1, "text": "nothing to see", "yes": between, "a": "there"}
    rows: list[dict[str, Any]] = [honest] * 3
    for whole in (SECRET, LONG, *POSITIVE.values()):
        split = {"text": f"see {whole[:9]}", "yes": between, "a": f"{whole[9:]} there", "n": 2}
        rows[where] = split
        assert list(told_of("plain", *rows).reasons) == [where], whole


@pytest.mark.parametrize("between", [True, None, "", "-", "\u200b"])
@pytest.mark.parametrize(
    ("name", "secret"), [("plain", SECRET), ("other letters", SECRET), ("other letters", FOREIGN.lower())]
)
def test_a_secret_that_is_spread_over_rows_is_found_around_any(name: str, secret: str, between: object) -> None:
    rows: list[dict[str, Any]] = [{"b": secret[:9]}, {"b": between}, {}, {"b": secret[9:]}]
    found = told_of(name, *({"n": n, **row} for n, row in enumerate(rows)))
    assert found.edges is not None
    assert [spread.rows for spread in found.edges.found] == [(0, 3)]


def test_the_rows_of_a_chunk_are_told_apart_by_their_keys() -> None:
    rows = [{"yes": yes, "text": text} for yes in (True, None) for text in ("a", "\u00fc", "a")]
    keys = told(told_of("mixed", *rows))["keys"]
    assert keys == [0, 1, 0, 3, 4, 3]


def test_both_ways_have_the_same_key_for_a_value() -> None:
    row: dict[str, Any] = {"yes": True, "text": 'say "\n/\x7fü"'}
    odd = b'{"yes": true, "n": 2.0, "text": "say \\"\\n\\/\x7f\\u00fc\\""}'
    fast = told_of("mixed", row).keys
    assert not at_once(MIXED, odd)
    assert same(MIXED, odd).keys == fast != bytes(KEY_BYTES)


def test_personal_data_is_taken_out_of_what_was_read_at_once() -> None:
    found = told_of("redacting", {"n": 1, "text": "ask x@acme.io"}, {"n": 2, "text": "ask nobody"})
    assert found.rows.split(b"\n")[1:] == [b'{"n":2,"text":"ask nobody"}', b""]
    assert b"acme" not in found.rows
    assert not found.rejects


def test_many_columns_are_read_downwards_whatever_there_is_in_them() -> None:
    fields: dict[str, Any] = {f"n{number}": {"type": "number"} for number in range(63)} | {"a": {"type": "number"}}
    pair = both(schema=closed(fields), bounds={}, unique=[])
    assert same(pair, b'{"a":1E15}').rows == b'{"a":1000000000000000.0}\n'


def test_what_is_not_for_the_sheet_is_not_read_by_it() -> None:
    for changes in (
        {"schema": closed(FIELDS)},  # a row may have no key then
        {"schema": closed({**FIELDS, "n": {"type": "number"}}, required=["n"])},
        {"schema": closed({**FIELDS, "key": {"type": "string"}}, required=["n"])},
        {"schema": closed({**FIELDS, "tags": {"type": "array"}}, required=["n"])},
        {"sink": "mlflow", "target": {"source": "s"}},
    ):
        output = make_output(**{**EVERY, **changes})
        assert examiner(output, NEEDLES, b"k", PROBES)._reader is None

"""JSON from outside has one reading, or none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.canonical import StrictJsonError, canonical, digest, pointer, strict_loads

LARGEST = 2**53 - 1
text = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-LARGEST, LARGEST) | st.floats(-LARGEST, LARGEST) | st.floats(1e21, 1e300)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_canonical_bytes_are_read_back_to_the_same_bytes(value: object) -> None:
    data = canonical(value)
    assert canonical(strict_loads(data)) == data


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"a": 1, "a": 2}', "duplicate"),
        (b'{"a": {"b": 1, "b": 1}}', "duplicate"),
        (b'[NaN]', "NaN"),
        (b'[Infinity]', "Infinity"),
        (b'[-Infinity]', "Infinity"),
        (b'[1e999]', "range"),
        (b'[' + b'9' * 401 + b']', "range"),
        (b'[9007199254740993]', "range"),
        (b'[-9007199254740992]', "range"),
        (b'[9007199254740993.0]', "range"),
        (b'[1e17]', "range"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'\xef\xbb\xbf{}', "byte order"),
        (b'"\xff"', "utf-8"),
        (b'[' * 65 + b']' * 65, "nested"),
        (b'{"a":' * 65 + b'1' + b'}' * 65, "nested"),
        (b'[' * 100_000, "nested"),
        (b'{} {}', "Extra"),
        (b'', "Expecting"),
    ],
)  # fmt: skip
def test_ambiguous_json_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(StrictJsonError, match=why):
        strict_loads(text)


def test_brackets_in_strings_are_not_nesting() -> None:
    text = json.dumps(["[" * 200 + '\\"' + "{" * 200]).encode()
    assert strict_loads(text) == json.loads(text)


def test_depth_at_the_limit_passes() -> None:
    assert strict_loads(b"[" * 64 + b"]" * 64)


def test_pointer_escapes() -> None:
    assert pointer(("a/b", "c~d", 0)) == "/a~1b/c~0d/0"
    assert pointer(()) == ""


def test_digest_is_sha256() -> None:
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def _depth(data: bytes) -> int:
    """How deep brackets are nested outside of texts, byte by byte."""
    depth = most = 0
    inside = escaped = False
    for byte in data:
        if inside:
            inside, escaped = escaped or byte != 0x22, not escaped and byte == 0x5C
        elif byte == 0x22:
            inside = True
        else:
            depth += (byte in b"[{") - (byte in b"]}")
            most = max(most, depth)
    return most


@given(st.lists(st.sampled_from([b"[", b"{", b"]", b"}", b'"', b"\\", b'\\"', b"a", b"\n"]), max_size=60).map(b"".join))
def test_depth_is_counted_outside_of_texts_only(data: bytes) -> None:
    said = ""
    try:
        strict_loads(data, max_depth=3)
    except StrictJsonError as error:
        said = str(error)
    assert said.startswith("nested deeper") == (_depth(data) > 3)

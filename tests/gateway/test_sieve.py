"""The fast path against the slow one: what a check objects to, the sieve stops."""

from __future__ import annotations

import base64
import random
import re
import sys
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.customs.checks import pii, unicode
from gateway.customs.examine import examiner
from gateway.customs.sieve import planes
from gateway.customs.sieve.decode import read
from tests.gateway.kit import make_output
from tests.gateway.sieves import (
    ALL,
    CHECKS,
    NEEDLES,
    OUTPUT,
    SIEVE,
    WIDE_CHECKS,
    WIDE_SIEVE,
    joined,
    objected,
    suspects,
)
from tests.gateway.test_contamination import LONG, PROBES
from tests.gateway.test_rules import POSITIVE
from tests.gateway.test_secrets import FOREIGN, FOREIGN_GUISES, GUISES, SECRET
from tests.gateway.test_text_checks import BAD_LINKS, GOOD_LINKS, NOBODY, PERSONAL, PLAIN


@pytest.mark.parametrize("guise", GUISES.values(), ids=GUISES)
def test_every_guise_is_stopped_among_honest_rows(guise: Any) -> None:
    honest = {"field": "nothing to see", "prompt": "two plus two", "n": 3}
    assert 7 in suspects([*[honest] * 7, {"field": guise, "prompt": "two plus two"}, honest])
    assert suspects([honest] * 9) == set()


@pytest.mark.parametrize("guise", FOREIGN_GUISES.values(), ids=FOREIGN_GUISES)
def test_every_guise_of_other_letters_is_stopped_among_honest_rows(guise: Any) -> None:
    honest = {"field": "nichts zu sehen: Ключ, 密码", "prompt": "zwei plus zwei", "n": 3}
    assert suspects([*[honest] * 7, {"field": guise, "prompt": "two plus two"}, honest], WIDE_SIEVE) == {7}


@pytest.mark.parametrize("token", POSITIVE.values(), ids=POSITIVE)
def test_every_token_is_stopped(token: str) -> None:
    assert suspects([{"a": f"see {token} there"}]) == {0}
    assert suspects([{"a": f"see {token[:9]}", "b": f"{token[9:]} there"}]) == {0}
    assert suspects([{"a": base64.b64encode(f"see {token} there".encode()).decode()}]) == {0}


@pytest.mark.parametrize("between", [True, False, None])
def test_what_is_no_text_parts_no_token_and_no_probe(between: object) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "yes": {"type": ["boolean", "null"]}, "b": {"type": "string"}},
        "additionalProperties": False,
    }
    output = make_output(schema=schema, scan=ALL, bounds={}, unique=[], hosts=["example.com"])
    both = examiner(output, NEEDLES, b"k", PROBES)
    both._reader = None
    for whole, check in [*((token, "secrets") for token in POSITIVE.values()), (LONG, "contamination")]:
        rows = [{"a": f"see {whole[:9]}", "yes": between, "b": f"{whole[9:]} there"}, {"a": "see", "yes": between}]
        reasons = both.examine(joined([orjson.dumps(row) for row in rows])).reasons
        assert {number: found[0].check for number, found in reasons.items()} == {0: check}, whole


@pytest.mark.parametrize("secret", ["p4ss-w0rd", "4711", "!§$%&/()=?"])
def test_short_and_odd_values_are_stopped_where_the_check_would(secret: str) -> None:
    for text in (
        f"is {secret} it",
        secret,
        f"{secret}.",
        base64.b64encode(f"it is the word {secret} here".encode()).decode(),
    ):
        if objected({"a": text}):
            assert suspects([{"a": text}]) == {0}, text
    assert suspects([{"a": f"is {secret} it"}]) == {0}


_words = st.sampled_from(
    [
        *(
            "the",
            "a\u200bb",
            "pаypal",
            "x@acme.io",
            "https://evil.example/x",
            "//cdn.example.org",
            "=SUM(A1)",
            "-1+cmd|x!",
            "@bob",
        ),
        *(
            "4111 1111 1111 1111",
            "+49 30 901820",
            "DE89370400440532013000",
            "93.184.215.14",
            "2001:4860:4860::8888",
            "123-45-6789",
        ),
        *(
            "![x](y)",
            "<img src=x>",
            "javascript:x",
            "\x1b[31m",
            "ünïcödé",
            "Съешь",
            "北京",
            "\u202egnp",
            "\U000e0041",
            "%41%42",
        ),
        *(
            "&#65;&#66;",
            "\\u0041",
            "\x00",
            "\x1e",
            "\x07",
            "é",
            "ﬁ",
            "K",
            "🏴",
            "ghp_",
            "AKIA",
            SECRET[:9],
            SECRET[9:],
            SECRET,
            FOREIGN[:7],
            FOREIGN[7:],
            FOREIGN.upper(),
        ),
        *(
            "4711",
            "p4ss",
            "w0rd",
            base64.b64encode(SECRET.encode()).decode(),
            "0x41,0x42",
            "lorem ipsum dolor",
            "fixes #12",
        ),
    ]
)
_texts = st.lists(_words | st.text(max_size=8), max_size=4).map(" ".join) | st.lists(_words, max_size=3).map("".join)
_records = st.dictionaries(
    _words | st.sampled_from("abc"), _texts | st.integers() | st.lists(_texts, max_size=3), max_size=4
)


@settings(max_examples=600)
@given(records=st.lists(_records, min_size=1, max_size=4))
def test_the_sieve_stops_whatever_a_check_objects_to(records: list[dict[str, Any]]) -> None:
    lines = [orjson.dumps(record) for record in records if all(abs(n) < 2**53 for n in _numbers(record))]
    rows = read(joined(lines))
    readable = {n: record for n, record in enumerate(rows.records) if record is not None}
    stopped = SIEVE.sift(readable, rows).suspects
    wide = WIDE_SIEVE.sift(readable, rows).suspects
    for number, record in readable.items():
        assert number in stopped or not objected(record, CHECKS), record
        assert number in wide or not objected(record, WIDE_CHECKS), record


def _numbers(value: Any) -> list[int]:
    match value:
        case int():
            return [value]
        case dict():
            return [n for item in value.values() for n in _numbers(item)]
        case list():
            return [n for item in value for n in _numbers(item)]
        case _:
            return []


@given(text=st.one_of(*(st.from_regex(re.compile(pattern, re.ASCII)) for pattern in pii.SIEVE)))
def test_what_could_be_personal_has_a_lead(text: str) -> None:
    assert any(re.search(lead, text, re.ASCII) for lead in (*pii.LEADS, *pii.LEADS_OF_DIGITS))


def test_no_letter_that_looks_like_ascii_is_left_out_of_the_table() -> None:
    missed = []
    for code in set(range(0x80, sys.maxunicode + 1)).difference(*planes._LOOKED_AT):
        char = chr(code)
        category = unicodedata.category(char)
        stands_alone = category in {"Lo", "Cn", "Co", "Cs"} and not unicodedata.decomposition(char)
        if not stands_alone and planes._ascii(char, category) != planes.OTHER:
            missed.append(hex(code))
    assert missed == []


def test_many_rows_in_chunks_are_what_they_are_alone() -> None:
    random.seed(7)
    pool = [{"a": guise} for guise in GUISES.values()] + [
        {"a": text} for text in (*PLAIN, *GOOD_LINKS, *NOBODY, *BAD_LINKS, *PERSONAL)
    ]
    records = [random.choice(pool) for _ in range(400)]
    lines = [orjson.dumps(record) for record in records]
    together = examiner(OUTPUT, NEEDLES, b"k").examine(joined(lines)).reasons
    alone = {n: r for n, line in enumerate(lines) if (r := examiner_once(line))}
    assert {n: [x.code for x in r] for n, r in together.items()} == {n: [x.code for x in r] for n, r in alone.items()}


ONE = examiner(OUTPUT, NEEDLES, b"k")


def examiner_once(line: bytes) -> Any:
    return ONE.examine(line).reasons.get(0)


def test_every_letter_and_number_that_makes_a_word_mixed_is_stopped() -> None:
    letters = [chr(code) for code in range(0x80, sys.maxunicode + 1) if chr(code).isalnum()]
    for before, after in (("\u0435", "FCQ"), ("FCQ", "\u0435"), ("FC", "Q")):
        words = [before + letter + after for letter in letters]
        deceive = {number for number, word in enumerate(words) if list(unicode.deceits(word))}
        assert deceive
        assert SIEVE.look(planes.planes_of(planes.joined(words)), {}) >= deceive

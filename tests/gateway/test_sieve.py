"""The fast path against the slow one: what a check objects to, the sieve stops; what it reads, all read alike."""

from __future__ import annotations

import base64
import random
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.customs.checks import links, pii, unicode
from gateway.customs.checks.base import Candidate
from gateway.customs.checks.links import Links
from gateway.customs.examine import checks_for, examiner
from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import Scanner
from gateway.customs.scan.values import needles
from gateway.customs.sieve import planes
from gateway.customs.sieve.decode import MAX_RECORD, read
from gateway.customs.sieve.patterns import Patterns
from gateway.customs.sieve.sieve import Sieve
from policies.canonical import StrictJsonError, canonical, strict_loads
from policies.secret_rules import secret_rules
from tests.gateway.kit import make_output
from tests.gateway.test_rules import POSITIVE
from tests.gateway.test_secrets import GUISES, SECRET

ALL = ["links", "pii", "secrets", "unicode"]
NEEDLES = needles({"hub": SECRET, "pin": "4711", "odd": "!§$%&/()=?", "short": "p4ss-w0rd"})
OPEN: dict[str, Any] = {"type": "object"}
OUTPUT = make_output(schema=OPEN, scan=ALL, bounds={}, unique=[], hosts=["example.com"])
SCANNER = Scanner(load(), NEEDLES)
CHECKS = list(checks_for(OUTPUT, SCANNER, b"k"))
SIEVE = Sieve(ALL, secret_rules(), NEEDLES, None)


def joined(lines: Sequence[bytes]) -> bytes:
    return b"\n".join(lines)


def suspects(records: Sequence[Mapping[str, Any]], sieve: Sieve = SIEVE) -> set[int]:
    rows = read(joined([orjson.dumps(record) for record in records]))
    return sieve.sift({n: record for n, record in enumerate(rows.records) if record is not None}, rows).suspects


def objected(record: dict[str, Any]) -> bool:
    return any(list(check(Candidate(record=record, size=1))) for check in CHECKS)


@pytest.mark.parametrize("guise", GUISES.values(), ids=GUISES)
def test_every_guise_is_stopped_among_honest_rows(guise: Any) -> None:
    honest = {"field": "nothing to see", "prompt": "two plus two", "n": 3}
    assert 7 in suspects([*[honest] * 7, {"field": guise, "prompt": "two plus two"}, honest])
    assert suspects([honest] * 9) == set()


@pytest.mark.parametrize("token", POSITIVE.values(), ids=POSITIVE)
def test_every_token_is_stopped(token: str) -> None:
    assert suspects([{"a": f"see {token} there"}]) == {0}
    assert suspects([{"a": f"see {token[:9]}", "b": f"{token[9:]} there"}]) == {0}
    assert suspects([{"a": base64.b64encode(f"see {token} there".encode()).decode()}]) == {0}


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
    for number, record in readable.items():
        assert number in stopped or not objected(record), record


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


@pytest.mark.parametrize("rule", pii.RULES, ids=lambda rule: rule.pattern.pattern[:30])
def test_what_looks_personal_is_stopped(rule: pii.Rule) -> None:
    found = 0
    sieve = Patterns({"pii": pii.SIEVE})
    for text in PERSONAL:
        for match in rule.pattern.finditer(text):
            found += 1
            assert sieve.rows(planes.folded(f"x {match.group()} y" + planes.ROW))["pii"] == {0}, match.group()
    assert found


@given(text=st.one_of(*(st.from_regex(re.compile(pattern, re.ASCII)) for pattern in pii.SIEVE)))
def test_what_could_be_personal_has_a_lead(text: str) -> None:
    assert any(re.search(lead, text, re.ASCII) for lead in pii.LEADS)


def test_no_letter_that_looks_like_ascii_is_left_out_of_the_table() -> None:
    missed = []
    for code in set(range(0x80, sys.maxunicode + 1)).difference(*planes._LOOKED_AT):
        char = chr(code)
        category = unicodedata.category(char)
        stands_alone = category in {"Lo", "Cn", "Co", "Cs"} and not unicodedata.decomposition(char)
        if not stands_alone and planes._ascii(char, category) != planes.OTHER:
            missed.append(hex(code))
    assert missed == []


PERSONAL = [
    "bob@acme.io",
    "+49 30 901820",
    "(415) 234-5678",
    "415-234-5678",
    "4111 1111 1111 1111",
    "5500005555555559",
    "3782 822463 10005",
    "DE89 3704 0044 0532 0130 00",
    "GB82WEST12345698765432",
    "123-45-6789",
    "2 55 08 14 168 025 38",
    "12345678Z",
    "X1234567L",
    "RSSMRA85T10A562S",
    "529.982.247-25",
    "11010519491231002X",
    "93.184.215.14",
    "2001:4860:4860::8888",
    "fe80:0:0:0:1:2:3:4",
]


@pytest.mark.parametrize("text", PERSONAL[:-1])
def test_personal_data_is_found_and_can_be_taken_out(text: str) -> None:
    record = {"a": f"Reach me: {text}, any day.", "b": "nothing"}
    assert [reason.code for reason in pii.Pii()(Candidate(record=record, size=1))] == ["CSM-W013"]
    assert list(pii.kinds(pii.redacted(record["a"]))) == []
    lines = [orjson.dumps(record)]
    redacting = make_output(schema=OPEN, scan=ALL, bounds={}, unique=[], findings={"pii": "redact"})
    examined = examiner(redacting, [], b"k").examine(joined(lines))
    assert text.encode() not in examined.rows
    assert [reason.excerpt for reason in examined.reasons[0]] == ["redacted"]


NOBODY = [
    "someone@example.com",
    "git@github.com:a/b.git",
    "v1.2.3.4",
    "Linux 2.6.16.27",
    "8.8.8.8",
    "192.168.0.1",
    "127.0.0.1",
    "10.0.0.1",
    "00:1b:44:11:3a:b7",
    "12:30:45",
    "4111111111111112",
    "1234 5678 9012 3456",
    "0.4111111111111111",
    "2024-11-21",
    "1234567890123456",
    "+1 000",
    "e3b0c44298fc1c149afbf4c8996fb924",
    "ISBN 978-3-16-148410-0",
    "123e4567-e89b-12d3-a456-426614174000",
    "std::vector<int>::iterator",
    "a::b::c::d",
    "@property",
    "user@host",
]


@pytest.mark.parametrize("text", NOBODY)
def test_what_only_looks_personal_is_left_alone(text: str) -> None:
    assert list(pii.kinds(f"It says {text} there.")) == []


DECEITS = {
    "ünïcödéСъешь": "mixed-script",
    "abc日Пора": "mixed-script",
    "pаypal.com": "mixed-script",
    "a\u200bb": "zero-width",
    "x\ufeffy": "zero-width",
    "so\u00adft": "zero-width",
    "\u202egnp.exe": "bidi-control",
    "a\u2066b": "bidi-control",
    "a\u200fb": "bidi-mark",
    "x\U000e0041": "tag",
    "a\ufe0f\ufe0fb": "selectors",
    "a\x07b": "control",
    "a\x1bb": "control",
    "a\x9bb": "control",
    "Аdmin": "mixed-script",
    "gοοgle": "mixed-script",
    "a\u200db": "zero-width",
    "\U000f1234": "private-use",
}


@pytest.mark.parametrize(("text", "rule"), DECEITS.items())
def test_hidden_and_deceiving_characters(text: str, rule: str) -> None:
    assert rule in list(unicode.deceits(text))
    assert suspects([{"k": text}]) == {0}


PLAIN = [
    "Съешь же ещё этих мягких французских булок",
    "敏捷的棕色狐狸",
    "👩‍👩‍👧‍👦 семья",
    "می‌خواهم بروم",
    "שלום\u200f!",
    "naïve café",
    "µm, kΩ, Δx",
    "α-decay of β",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "क्‍ष",
    "ﬁne ﬂow",
    "①②③",
    "tabs\tand\nlines\r\n",
    "❤️ ok",
    "日本語テキスト（括弧）",
    "x² + y²",
    "a–b — c…",
]


@pytest.mark.parametrize("text", PLAIN)
def test_honest_text_of_any_script_is_left_alone(text: str) -> None:
    assert list(unicode.deceits(text)) == []


BAD_LINKS = [
    "https://github.com@evil.example/x",
    "https:\\\\evil.example",
    "https:/evil.example",
    "//evil.example/x",
    "https://example.com%2eevil.example/",
    "http://0x7f.1/",
    "http://2130706433/",
    "https://example.com.evil.example",
    "https://evil.example#example.com",
    "https://evil.example?example.com",
    "javascript:alert(1)",
    "JaVaScRiPt :alert(1)",
    "data:text/html,<b>",
    "www.evil.example",
    "ftp://evil.example/",
    "https://еxample.com/",
    "https://notexample.com",
    "![x](https://example.com/a?q=1)",
    "![x][ref]",
    "<img src=x>",
    "<script>x</script>",
    "<a href=x onclick=y>",
    "=HYPERLINK(A1)",
    "=1+1",
    "@SUM(A1)",
    "+cmd(1)",
    "-2+3+cmd|x!A",
    "\x1b]0;title\x07",
    "<svg/onload=x>",
    "https://[::1]/",
    "\\\\evil.example\\share",
    "https://exa\u00admple.org",
]


@pytest.mark.parametrize("text", BAD_LINKS)
def test_links_elsewhere_and_active_content(text: str) -> None:
    assert list(Links(OUTPUT).broken(text)), text
    assert suspects([{"k": text}]) == {0}


GOOD_LINKS = [
    "see https://example.com/a/b?q=1#c.",
    "http://example.com",
    "a // comment",
    "x = y",
    "-5",
    "- item",
    "+ item",
    "== title",
    "@decorator",
    "1/2",
    "C:\\Users\\x",
    "if (a<b && c>d)",
    "a < b",
    "std::vector<int>",
    "List<String> x",
    "e.g.: this/that",
    "s3 or gs",
    "1 - 2",
    "=== note ===",
    "--flag",
    "://",
    "#include <math.h>",
    "//comment",
    "a \\\\\\\\n (b)",
    "unix:/run/x.sock",
]


@pytest.mark.parametrize("text", GOOD_LINKS)
def test_honest_text_is_no_link(text: str) -> None:
    assert list(Links(OUTPUT).broken(text)) == []


CLOSING = ("Fixes #12", "closes: org/repo#3", "fix#12", "merges #3", "Closing issue #4", "implements: group/app#5")
"""Of GitHub, Pagure and GitLab."""


def test_mentions_and_closing_words_count_at_a_forge() -> None:
    forge = Links(msgspec.structs.replace(OUTPUT, sink="git"))
    for text in (*CLOSING, "ping @torvalds now", "@org/team look"):
        assert list(forge.broken(text)), text
        assert list(Links(OUTPUT).broken(text)) == []
        assert suspects([{"k": text}]) == {0}
    assert list(forge.broken("use @property and fix 12 bugs, merge 3 (see #4), mail a@example.com")) == ["mention"]


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


def test_patterns_of_a_check_are_in_its_sieve() -> None:
    assert len(links.SIEVE) > 5
    assert len(unicode.SIEVE) > 5

"""Checks of texts, case by case: personal data, characters that deceive, links and active content."""

from __future__ import annotations

import msgspec
import orjson
import pytest

from gateway.customs.checks import pii, unicode
from gateway.customs.checks.base import Candidate
from gateway.customs.checks.links import Links
from gateway.customs.examine import examiner
from gateway.customs.sieve import planes
from gateway.customs.sieve.patterns import Patterns
from tests.gateway.kit import make_output
from tests.gateway.sieves import ALL, OPEN, OUTPUT, joined, suspects


@pytest.mark.parametrize("rule", pii.RULES, ids=lambda rule: rule.pattern.pattern[:30])
def test_what_looks_personal_is_stopped(rule: pii.Rule) -> None:
    found = 0
    sieve = Patterns({"pii": pii.SIEVE})
    for text in PERSONAL:
        for match in rule.pattern.finditer(text):
            found += 1
            assert sieve.rows(planes.folded(f"x {match.group()} y" + planes.ROW))["pii"] == {0}, match.group()
    assert found


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

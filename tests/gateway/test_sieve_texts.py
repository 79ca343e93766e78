"""Personal data, links and what deceives, written with other characters: what a check objects to, the sieve stops."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from gateway.customs.checks.base import TextCheck
from gateway.customs.checks.links import Links
from gateway.customs.checks.pii import Pii
from gateway.customs.checks.unicode import Unicode
from gateway.customs.sieve import planes
from gateway.customs.sieve.known import Known
from gateway.customs.sieve.sieve import Sieve
from policies.secret_rules import secret_rules
from tests.gateway.sieves import OUTPUT
from tests.gateway.test_text_checks import BAD_LINKS, DECEITS, PERSONAL, PLAIN

CASES = int(os.environ.get("CASEMATE_CASES", "600")) * 20
CHECKS: dict[str, Callable[[], TextCheck]] = {"pii": Pii, "links": lambda: Links(OUTPUT), "unicode": Unicode}
TEXTS = [
    *BAD_LINKS,
    *DECEITS,
    *PLAIN,
    *PERSONAL,
    "fixes #12",
    "@bob",
    "//cdn.evil.example",
    "//-a.evil.example",
    "//_a.evil.example",
    "see www.evil.example",
]
LIKE = {
    **{str(digit): [chr(zero + digit) for zero in (0x660, 0x966, 0xFF10, 0x1D7CE)] for digit in range(10)},
    " ": ["\xa0", "\u2003", "\u2028", "\u1680", "\x85", "\u3000", "\t", "\n", "\x0b", "\x1c", "\u200b", ""],
    "i": ["ı", "İ", "і", "𝐢"], "I": ["İ", "ı"], "s": ["ſ", "ѕ"], "S": ["ſ"], "k": ["K"], "K": ["K"],
    "-": ["‐", "–", "−", "－"], "@": ["＠", "﹫"], ".": ["．", "。", "․"], "/": ["／", "⁄", "\\"], ":": ["：", "︓"],
    "<": ["＜"], "=": ["＝", "﹦"], "+": ["＋", "﬩"], "#": ["＃"], "!": ["！"], "[": ["［"], "(": ["（"],
}  # fmt: skip
MORE = [
    "-",
    "_",
    ".",
    " ",
    "\u200d",
    "\u0301",
    "é",
    "я",
    "字",
    "ﬁ",
    "²",
    "٣",
    "0",
    "a",
    "\x1f",
    "\x00",
    "\x1e",
    "🏴",
    "'",
]


def _written(draw: random.Random, text: str) -> str:
    """Return a text with characters replaced by others like them, put in or taken out."""
    often, more = draw.choice((0.03, 0.3, 1)), draw.choice((0, 0.03, 0.1))
    written = []
    for char in text:
        changed = draw.choice(LIKE[char]) if char in LIKE and draw.random() < often else char
        written.append(changed if draw.random() >= more else draw.choice((changed + draw.choice(MORE), "")))
    return "".join(written)


@pytest.mark.parametrize("name", CHECKS)
def test_whatever_a_check_of_texts_objects_to_is_stopped(name: str) -> None:
    draw, check = random.Random(f"{name}{CASES}"), CHECKS[name]()
    sieve = Sieve([name], secret_rules(), Known(()), ("a",), flat=True)
    kept = [text for text in TEXTS for _ in range(3) if list(check.broken(text))]
    texts = [_written(draw, draw.choice(kept)) for _ in range(CASES)]
    texts = [text for text in texts if planes.ROW not in text and planes.TEXT not in text]
    objected = {number for number, text in enumerate(texts) if list(check.broken(text))}
    stopped = sieve.look(planes.planes_of(planes.joined(texts)), {n: {"a": text} for n, text in enumerate(texts)})
    assert len(objected) > len(texts) / 8
    assert [texts[number] for number in sorted(objected - stopped)] == []

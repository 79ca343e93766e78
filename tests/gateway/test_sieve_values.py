"""Values and tokens of all kinds, hidden in all ways at once: what the checks object to, the sieve stops."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.customs.examine import checks_for
from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import Scanner
from gateway.customs.scan.values import needles
from gateway.customs.sieve import planes
from gateway.customs.sieve.known import Known
from gateway.customs.sieve.sieve import Sieve
from policies.secret_rules import secret_rules
from tests.gateway.kit import make_output
from tests.gateway.sieves import ALL, OPEN, objected, suspects
from tests.gateway.test_rules import POSITIVE
from tests.gateway.test_secrets import guises_of

CASES = int(os.environ.get("CASEMATE_CASES", "600"))
ALPHABETS = (
    "abcXYZ019",
    "abcdefgh-_/+=.",
    "0123456789",
    "!§$%&/()=?",
    "äöüß abcDEF",
    "абвГДЕёж",
    "密码钥匙",
    "aа1-é٣①ﬁ𝔞",
)
HIDDEN = ("\u200b", "\u00ad", "\u2060", "\U000e0041", "-", " ", "\u0301")
LIKE = {"a": "а", "e": "е", "o": "ο", "p": "р", "A": "Ａ", "0": "０", "k": "\u212a", "s": "ſ"}
BETWEEN = ("", "honest", "да", "7")
SCANS = (["secrets"], ["secrets", "unicode"], ALL)
NAMES = ["-", "--", "---", "----", "-----"]
"""Of which nothing can be a part of anything: they are the schema's, and no sieve looks at them."""


def _secret(draw: random.Random) -> str:
    alphabet = draw.choice(ALPHABETS)
    return "".join(draw.choice(alphabet) for _ in range(draw.choice((5, 8, 9, 14, 20, 33, 64))))


def _texts(guise: Any) -> list[str]:
    """Return the texts of a guise, keys too."""
    match guise:
        case dict():
            return [text for key, value in guise.items() for text in (*_texts(key), *_texts(value))]
        case list():
            return [text for value in guise for text in _texts(value)]
        case _:
            return [str(guise)]


def _hidden(draw: random.Random, text: str) -> str:
    """Return a text with some letters replaced, or with something put between them."""
    way = draw.randrange(4)
    if way == 0:
        return "".join(LIKE.get(char, char) if draw.random() < 0.3 else char for char in text)
    if way == 1:
        return "".join(char + draw.choice(HIDDEN) if draw.random() < 0.2 else char for char in text)
    return text.swapcase() if way == 2 else text


def _split(draw: random.Random, text: str) -> list[str]:
    """Return a text in a few parts or in many small ones, with or without others between them."""
    few = [draw.randrange(len(text) + 1) for _ in range(draw.randrange(4))]
    cuts = sorted(few) if draw.random() < 0.7 else list(range(0, len(text), draw.randrange(1, 7)))
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return parts if draw.random() < 0.7 else [each for part in parts for each in (part, draw.choice(BETWEEN))]


def _row(draw: random.Random, texts: Sequence[str]) -> list[str]:
    before = draw.choice((("",), ("", "", "see ", "key: ")))
    return [draw.choice(before) + text for text in texts]


@pytest.mark.parametrize("scans", SCANS, ids=["secrets", "unicode", "all"])
def test_whatever_the_checks_object_to_is_stopped(scans: list[str]) -> None:
    draw = random.Random(f"{scans}{CASES}")
    output = make_output(schema=OPEN, scan=scans, bounds={}, unique=[], hosts=["example.com"])
    apart, flat = (Sieve(scans, secret_rules(), Known(()), names) for names in (None, NAMES))
    both = {True: 0, False: 0}
    for _ in range(CASES):
        secret = _secret(draw)
        known = needles({"s": secret})
        apart._known = flat._known = Known(known)
        checks = list(checks_for(output, Scanner(load(), known), b"k"))
        token = draw.choice(list(POSITIVE.values()))
        for hidden in (token, *(draw.choice(list(guises_of(whole).values())) for whole in (secret, token))):
            texts = [part for text in _texts(hidden)[:60] for part in _split(draw, _hidden(draw, text))]
            listed = _row(draw, texts)
            row: dict[str, Any] = {"n": 3, "field": draw.choice((listed, dict(zip(listed, listed[::-1], strict=True))))}
            if objected(row, checks):
                both[False] += 1
                assert suspects([{"n": 1}, row], apart) >= {1}, (secret, row)
            few = dict(zip(NAMES, _row(draw, texts), strict=False))
            if objected(few, checks):
                both[True] += 1
                plane = planes.planes_of(planes.plane_of([{"-": "so"}, few], flat=True))
                assert flat.look(plane, {0: {"-": "so"}, 1: few}) >= {1}, (secret, few)
    assert min(both.values()) > CASES / 4, both

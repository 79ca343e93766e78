"""unicode: characters that a reader does not see, or takes for others. Honest text in any script is left alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import regex

from gateway.customs.checks.base import TextCheck

_SCRIPTS: Final = (
    "Arabic Bengali Devanagari Gujarati Gurmukhi Hebrew Kannada Khmer Malayalam Mongolian Nko Oriya Sinhala Syriac "
    "Tamil Telugu"
)
_JOINS: Final = r"[\p{Emoji}\p{M}\u200d\ufe0f" + "".join(rf"\p{{{name}}}" for name in _SCRIPTS.split()) + "]"
"""What a joiner stands beside in honest text: emoji, marks, and scripts whose letters join."""
_RIGHT_TO_LEFT: Final = r"[\p{Arabic}\p{Hebrew}\p{Syriac}\p{Thaana}\p{Nko}]"
RULES: Final[dict[str, regex.Pattern[str]]] = {
    "bidi-control": regex.compile(r"[\u202a-\u202e\u2066-\u2069]"),
    "bidi-mark": regex.compile(r"[\u200e\u200f\u061c]"),
    "zero-width": regex.compile(rf"[\u200b\u2060-\u2064\ufeff\u00ad\u180e]|(?<!{_JOINS})[\u200c\u200d]"),
    "tag": regex.compile(r"(?<!\U0001f3f4[\U000e0020-\U000e007e]{0,6})[\U000e0000-\U000e007f]"),
    "selectors": regex.compile(r"[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}"),
    "control": regex.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
    "private-use": regex.compile(r"[\U000f0000-\U0010ffff]"),
}
_MIXED: Final = re.compile(r"[^\W\d_]+")
_LATIN: Final = re.compile(r"[A-Za-z]")
ALIKE: Final = frozenset("авсԁеёһіјкӏморԛѕтѵԝхуАВСЕЁНІЈКМОРЅТХУԜαικνορτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")
"""Cyrillic and Greek letters that pass for Latin ones among Latin ones."""
_LETTER: Final = (
    r"(?:[A-Za-z]|\xc2[\xaa\xb2\xb3\xb5\xb9\xba\xbc-\xbe]|\xc3[\x80-\xbf]|[\xc4-\xcc\xd5-\xdf][\x80-\xbf]|\xd4[\xb0-\xbf]"
    r"|[\xe0\xe1\xe3-\xed\xef][\x80-\xbf]{2}|\xe2[\x81\x82\x84-\x86\x91-\x93\x9d\x9e\xb0-\xb8][\x80-\xbf]|\xf0[\x80-\xbf]{3})"
)
_ALIKE: Final = r"(?:[\xcd-\xd3][\x80-\xbf]|\xd4[\x80-\xaf])"
"""Letters that are neither Cyrillic nor Greek, and those that are, as UTF-8: a word is mixed where they meet."""
_HIDDEN: Final = (
    r"\xe2\x80[\x8b-\x8f\xaa-\xae]",
    r"\xe2\x81[\xa0-\xaf]",
    r"\xef\xbb\xbf|\xc2[\x80-\x9f\xad]|\xd8\x9c|\xe1\xa0\x8e",
    r"\xf3[\xa0\xb0-\xbf]|\xf4[\x80-\x8f]",
)
_SELECTOR: Final = r"\xef\xb8[\x80-\x8f]"
SIEVE: Final = (*_HIDDEN, _SELECTOR + _SELECTOR, _LETTER + _ALIKE, _ALIKE + _LETTER)
"""Patterns over UTF-8 of which one matches wherever a rule does, but for control characters."""


class Unicode(TextCheck):
    """Objects (CSM-W011) to hidden and deceiving characters, in values and in keys."""

    name, code = "unicode", "CSM-W011"

    def broken(self, text: str) -> Iterator[str]:
        """Yield the rules that a text breaks."""
        return deceits(text)


def deceits(text: str) -> Iterator[str]:
    """Yield the rules that a text breaks."""
    if text.isascii() and text.isprintable():
        return
    for name, rule in RULES.items():
        if rule.search(text) and not (name == "bidi-mark" and regex.search(_RIGHT_TO_LEFT, text)):
            yield name
    if any(len(_LATIN.findall(word)) > 2 and not ALIKE.isdisjoint(word) for word in _MIXED.findall(text)):
        yield "mixed-script"


def kinds() -> bytes:
    """Return for every code point 1 if it could deceive by itself, 2 or 4 for letters that do so side by side, or 0.

    So no pattern of `SIEVE` matches where there is no 1, and no 2 beside a 4.
    """
    table = bytearray(0x110000)
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, len(table))))).encode()
    for kind, pattern in ((2, _LETTER), (4, _ALIKE), (1, "|".join((*_HIDDEN, _SELECTOR)))):
        for found in re.finditer(rf"(?:{pattern})[\x80-\xbf]*".encode("latin-1"), every):
            table[ord(found.group().decode())] = kind
    return bytes(table)

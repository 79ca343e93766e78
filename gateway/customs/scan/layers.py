"""What is encoded inside a text: percent, escapes, base64, base32, hex, gzip and zlib, inside each other. Bounded.

Threats: a secret wrapped once more than the scanner unwraps, and a bomb that unwraps for ever. Both end the same way:
when the budget is exhausted, the caller rejects.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import urllib.parse
import zlib
from collections.abc import Iterator
from typing import Final

MAX_DEPTH = 4
MAX_NODES = 2_000
"""Decoded texts of one record that are looked into again."""
MAX_BYTES = 4 * 1024 * 1024
"""Decoded bytes of one record."""
MAX_INFLATE = 1024 * 1024
"""Bytes that one compressed piece may become."""

_SHORTEST_RUN: Final = 24
"""Characters of the shortest run that is decoded. What a short value becomes in less is looked for by itself."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{24,}")
_BASE32: Final = re.compile(r"[A-Z2-7]{24,}")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){12,}")
_SPACED_HEX: Final = re.compile(r"(?:(?:0x|\\x)?[0-9a-fA-F]{2}[ :,-]{0,2}){7,}(?:0x|\\x)?[0-9a-fA-F]{2}")
_WRAPPED: Final = re.compile(r"(?<=[A-Za-z0-9+/_-]{40})[ \t]*\r?\n[ \t]*(?=[A-Za-z0-9+/_-])")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\([0-7]{3})")
_ESCAPED_BYTES: Final = re.compile(r"(?:\\x[0-9a-fA-F]{2}|\\[0-7]{3}){2,}")
_NOT_HEX: Final = re.compile(r"0x|\\x|[^0-9a-fA-F]")
_GZIP_IN_BASE64: Final = "H4sI"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class ExhaustedError(Exception):
    """The record has more layers, or larger ones, than are looked into."""


class Layers:
    """Unwraps the texts of one record within one budget."""

    def __init__(self) -> None:
        self._nodes, self._bytes = 0, 0

    def of(self, text: str) -> Iterator[tuple[str, bool]]:
        """Yield every text decoded from `text`, and whether it reads as text (else it is bytes as Latin-1).

        Raises `ExhaustedError` when the budget does not suffice.
        """
        waiting = [(text, 0)]
        while waiting:
            current, depth = waiting.pop()
            for data in _decoded(current):
                found, readable = self._read(data)
                if found == current:
                    continue
                yield found, readable
                if readable:
                    if depth + 1 >= MAX_DEPTH and any(True for _ in _decoded(found)):
                        self._refuse_deeper(found)
                    elif depth + 1 < MAX_DEPTH:
                        waiting.append((found, depth + 1))

    def _read(self, data: bytes) -> tuple[str, bool]:
        for _ in range(MAX_DEPTH):
            if data[:2] != b"\x1f\x8b" and (data[:1] != b"\x78" or len(data) <= 8):
                break
            data = _inflate(data) or data
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            raise ExhaustedError
        if len(data) > 8 and not any(data[1::2]):
            data = data[::2]
        try:
            found = data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1"), False
        if _CONTROL.search(found):
            return found, False
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ExhaustedError
        return found, True

    def _refuse_deeper(self, text: str) -> None:
        """At the last depth: whatever still unwraps to readable text is one layer too many."""
        for data in _decoded(text):
            found, readable = self._read(data)
            if readable and found != text:
                raise ExhaustedError


def _inflate(data: bytes) -> bytes | None:
    machine = zlib.decompressobj(wbits=47)
    try:
        plain = machine.decompress(data, MAX_INFLATE)
    except zlib.error:
        return None
    if machine.unconsumed_tail:
        raise ExhaustedError
    return plain


def _decoded(text: str) -> Iterator[bytes]:
    if "%" in text and (plain := urllib.parse.unquote_to_bytes(text)) != text.encode():
        yield plain
    if "\\" in text:
        yield from _unescaped(text)
    if "&" in text and (plain_text := html.unescape(text)) != text:
        yield plain_text.encode("utf-8", "replace")
    if len(text) < _SHORTEST_RUN:
        return
    if "\n" in text:
        text = _WRAPPED.sub("", text)
    for run in _BASE64.findall(text):
        yield from _base64(run)
    for run in _BASE32.findall(text):
        yield from _attempt(base64.b32decode, run + "=" * (-len(run) % 8))
    for run in _HEX.findall(text):
        yield from _attempt(bytes.fromhex, run)
    for run in _SPACED_HEX.findall(text):
        digits = _NOT_HEX.sub("", run)
        if digits != run:
            yield from _attempt(bytes.fromhex, digits[: len(digits) // 2 * 2])


def _unescaped(text: str) -> Iterator[bytes]:
    # Bytes that are escaped side by side can be UTF-8; each by itself would be a letter of Latin-1.
    either = (text, _ESCAPED_BYTES.sub(_unescape_bytes, text))
    for plain in dict.fromkeys(_ESCAPE.sub(_unescape, part) for part in either):
        if plain != text:
            yield plain.encode("utf-8", "replace")


def _unescape(match: re.Match[str]) -> str:
    unicode, byte, octal = match.groups()
    return chr(int(octal, 8) if octal else int(unicode or byte, 16))


def _unescape_bytes(match: re.Match[str]) -> str:
    letters = _ESCAPE.sub(_unescape, match[0])
    try:
        return letters.encode("latin-1").decode()
    except UnicodeError:
        return letters


def _base64(run: str) -> Iterator[bytes]:
    plain = run.replace("-", "+").replace("_", "/")
    starts = {0}
    # Compressed data must be decoded from its very start; junk before it would hide it.
    if (found := plain.find(_GZIP_IN_BASE64)) > 0:
        starts.add(found)
    for start in starts:
        part = plain[start:]
        if len(part) % 4 == 1:
            part = part[:-1]
        yield from _attempt(base64.b64decode, part + "=" * (-len(part) % 4))


def _attempt(decode: object, run: str) -> Iterator[bytes]:
    try:
        data = decode(run) if callable(decode) else b""
    except (binascii.Error, ValueError):
        return
    if data:
        yield data

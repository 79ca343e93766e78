"""Canonical JSON (RFC 8785), digests over it, and the strict parser for JSON from outside."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import rfc8785

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH = 64
MAX_INT = 2**53 - 1


class StrictJsonError(ValueError):
    """The bytes are not JSON that everybody reads alike."""


def canonical(value: object) -> bytes:
    """Return the one RFC 8785 encoding of a JSON value (UTF-8, no newline)."""
    return rfc8785.dumps(value)  # type: ignore[arg-type]


def digest(data: bytes) -> str:
    """Return `sha256:` and the lower-case hex digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def strict_loads(data: bytes, *, max_depth: int = MAX_DEPTH) -> Json:
    """Parse JSON that has exactly one reading.

    Refuses a BOM, invalid UTF-8, duplicate keys, NaN and Infinity, integers beyond ±(2⁵³-1) however they are written
    (a reader that holds numbers as doubles would see another one), lone surrogates, and nesting beyond `max_depth`.
    Raises `StrictJsonError`.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise StrictJsonError("byte order mark")
    _refuse_depth(data, max_depth)
    try:
        value: Json = _DECODER.decode(data.decode("utf-8"))
    except RecursionError as error:
        raise StrictJsonError("nested too deeply") from error
    except ValueError as error:
        raise StrictJsonError(str(error)) from error
    if b"\\u" in data:  # raw ones are no UTF-8, so a lone surrogate can only have been escaped
        _refuse_surrogates(value)
    return value


def _refuse_depth(data: bytes, max_depth: int) -> None:
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    depth = 0
    for byte in _STRING.sub(b"", data).translate(None, _NO_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > max_depth:
            raise StrictJsonError(f"nested deeper than {max_depth}")


# Each byte is looked at once, an unfinished string's as well: what is left are the brackets outside of texts.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise StrictJsonError(f"duplicate key {key[:80]!r}")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> Json:
    raise StrictJsonError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    # Canonical JSON writes a double below 1e21 as an integer if it is one.
    if MAX_INT < abs(value) < 1e21 or value in (float("inf"), float("-inf")):
        raise StrictJsonError("number out of range")
    return value


def _bounded_int(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INT:
        raise StrictJsonError("number out of range")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_bounded_int
)


def _refuse_surrogates(value: Json) -> None:
    stack: list[Json] = [value]
    while stack:
        match stack.pop():
            case str() as text if not text.isascii():
                _encodable(text)
            case dict() as mapping:
                for key in mapping:
                    if not key.isascii():
                        _encodable(key)
                stack.extend(mapping.values())
            case list() as items:
                stack.extend(items)
            case _:
                pass


def _encodable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise StrictJsonError("lone surrogate") from error


def pointer(path: Sequence[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) of a path of keys and indexes."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def digest_of(value: object) -> str:
    """Return the digest of a value's canonical encoding."""
    return digest(canonical(value))


def merkle(parts: Mapping[str, str]) -> str:
    """Return one digest over named digests."""
    return digest_of(dict(parts))

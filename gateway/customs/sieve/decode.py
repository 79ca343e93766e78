"""Lines to records, a chunk at a time: each with one reading, and the bytes that will be applied.

The parser is fast and lenient (it keeps the last of duplicate keys, and turns long integers into floats), so it is held
to account: the keys of a chunk are counted in what was read and in what came out, and long runs of digits are looked
at. Where anything differs, every line in question is read once more by the strict parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import orjson

from gateway.customs.sieve.patterns import Patterns
from policies.canonical import MAX_DEPTH, StrictJsonError, strict_loads

MAX_RECORD = 8 << 20
"""Bytes of one record."""
UNREAD = b""

_ODD = Patterns({"number": ["[0-9]{16}"], "key": [r'"[ \t\r]+:', r'\\\\"']})
"""Numbers that may be too long, and ways of writing a key in which keys cannot be counted."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Records of a chunk (None where a line has not one reading) and their canonical bytes (empty there)."""

    records: Sequence[dict[str, Any] | None]
    forms: Sequence[bytes]


canonical_row = msgspec.json.Encoder(order="deterministic").encode
"""Returns a record as it is applied: keys sorted, no whitespace, numbers as they were read."""


def read(lines: Sequence[bytes]) -> Rows:
    """Read the lines of a chunk."""
    records = _lenient(lines)
    forms = [canonical_row(record) if record is not None else UNREAD for record in records]
    for number in _doubtful(lines, forms):
        records[number] = record = strict_record(lines[number])
        forms[number] = canonical_row(record) if record is not None else UNREAD
    return Rows(records, forms)


def strict_record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None when it has not exactly one reading."""
    if len(line) > MAX_RECORD:
        return None
    try:
        record = strict_loads(line)
    except (StrictJsonError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _lenient(lines: Sequence[bytes]) -> list[dict[str, Any] | None]:
    """Return the records of lines as the fast parser reads them."""
    try:
        found = [orjson.loads(line) for line in lines]
    except orjson.JSONDecodeError:
        found = [_one(line) for line in lines]
    return [
        record if type(record) is dict and len(line) <= MAX_RECORD else None
        for record, line in zip(found, lines, strict=True)
    ]


def _one(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _doubtful(lines: Sequence[bytes], forms: Sequence[bytes]) -> Sequence[int]:
    """Return the numbers of the lines that the lenient parser may have read in another way than others would."""
    there, came_out = b"\x1e".join(lines) + b"\x1e", b"\x1e".join(forms) + b"\x1e"
    if there.count(b"\x1e") != len(lines):
        return range(len(lines))
    odd = _ODD.rows(there)
    found = set(odd["number"])
    if there != came_out and (odd["key"] or _keys(there) != _keys(came_out)):
        found |= {number for number, (line, form) in enumerate(zip(lines, forms, strict=True)) if line != form}
    data = np.frombuffer(came_out, dtype=np.uint8)
    if np.count_nonzero((data | 0x20) == ord("{")) > len(lines) + MAX_DEPTH:  # braces and brackets differ in that bit
        found |= {n for n, form in enumerate(forms) if form.count(b"{") + form.count(b"[") > MAX_DEPTH}
    return sorted(found)


def _keys(text: bytes) -> int:
    """Return how many keys there are in JSON text: a quote before a colon ends one, unless it is a part of a text."""
    data = np.frombuffer(text, dtype=np.uint8)
    ends = (data[:-1] == ord('"')) & (data[1:] == ord(":"))
    return int(np.count_nonzero(ends)) - (text.count(b'\\":') if b'\\":' in text else 0)

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
import numpy.typing as npt
import orjson

from gateway.customs.sieve.patterns import Patterns
from policies.canonical import MAX_DEPTH, StrictJsonError, strict_loads

MAX_RECORD = 8 << 20
"""Bytes of one record."""
UNREAD = b""
_END = 0x1E
"""A byte that JSON text has not: it ends each line of a chunk."""

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
    if set(map(type, found)) == {dict} and max(map(len, lines)) <= MAX_RECORD:
        return found
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
    if np.count_nonzero(np.frombuffer(there, dtype=np.uint8) == _END) != len(lines):
        return range(len(lines))
    odd = _ODD.rows(there)
    found = set(odd["number"])
    if there != came_out and (odd["key"] or _keys(there) != _keys(came_out)):
        found |= {number for number, (line, form) in enumerate(zip(lines, forms, strict=True)) if line != form}
    return sorted(found.union(_deep(np.frombuffer(came_out, dtype=np.uint8), len(lines))))


def _deep(data: npt.NDArray[np.uint8], count: int) -> Sequence[int]:
    """Return the lines that could be nested too deep: those that open more than that, even in a text."""
    opening = (data | 0x20) == ord("{")  # braces and brackets differ in that bit
    if np.count_nonzero(opening) <= count + MAX_DEPTH:
        return ()
    lines = np.searchsorted(np.flatnonzero(data == _END), np.flatnonzero(opening))
    found: list[int] = np.flatnonzero(np.bincount(lines) > MAX_DEPTH).tolist()
    return found


def _keys(text: bytes) -> int:
    """Return how many keys there are in JSON text: a quote before a colon ends one, unless it is a part of a text."""
    data = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero((data[:-1] == ord('"')) & (data[1:] == ord(":")))
    return len(ends) - int(np.count_nonzero(data[ends - 1] == ord("\\")))

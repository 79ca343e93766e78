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
_END = b"\n"
"""A byte that no line has: it ends each in a block."""

_ODD = Patterns({"number": ["[0-9]{16}"], "key": [r'"[ \t\r]+:', r'\\\\"']})
"""Numbers that may be too long, and ways of writing a key in which keys cannot be counted."""
_lines_of = msgspec.json.Decoder().decode_lines
_block_of = msgspec.json.Encoder(order="deterministic").encode_lines


@dataclass(frozen=True, slots=True)
class Rows:
    """Records of a chunk (None where a line has not one reading), and as canonical lines (empty there) in a block."""

    records: Sequence[dict[str, Any] | None]
    block: bytes

    @property
    def forms(self) -> list[bytes]:
        """The canonical lines."""
        return self.block.split(_END)[:-1]

    @property
    def longest(self) -> int:
        """Bytes of the longest of them."""
        ends = np.flatnonzero(np.frombuffer(self.block, dtype=np.uint8) == ord(_END))
        return int(np.diff(ends, prepend=-1).max()) - 1


canonical_row = msgspec.json.Encoder(order="deterministic").encode
"""Returns a record as it is applied: keys sorted, no whitespace, numbers as they were read."""


def read(block: bytes) -> Rows:
    """Read the lines of a chunk: one at least, without a last newline."""
    records = _at_once(block) or _one_by_one(block.split(_END))
    came_out = block_of(records)
    if doubtful := _doubtful(block + _END, came_out, len(records) - records.count(None)):
        lines = block.split(_END)
        for number in doubtful:
            records[number] = strict_record(lines[number])
        came_out = block_of(records)
    return Rows(records, came_out)


def block_of(records: Sequence[dict[str, Any] | None]) -> bytes:
    """Return canonical lines."""
    if None not in records:
        return _block_of(records)
    return b"".join(canonical_row(record) + _END if record is not None else _END for record in records)


def strict_record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None when it has not exactly one reading."""
    if len(line) > MAX_RECORD:
        return None
    try:
        record = strict_loads(line)
    except (StrictJsonError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _at_once(block: bytes) -> list[dict[str, Any] | None] | None:
    """Return the records of a block as the fast parser reads them; None where it could mistake where a line ends.

    It takes any whitespace for a break between two records. But after a brace that closes, and before one that opens,
    no line can break but between two: so there are as many records as lines only if each line is one.
    """
    data = np.frombuffer(block, dtype=np.uint8)
    breaks = np.flatnonzero(data == ord(_END))
    if len(block) > MAX_RECORD or block[:1] != b"{" or block[-1:] != b"}":
        return None
    if (data[breaks - 1] != ord("}")).any() or (data[breaks + 1] != ord("{")).any():
        return None
    try:
        found: list[dict[str, Any] | None] = _lines_of(block)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return found if len(found) == len(breaks) + 1 else None


def _one_by_one(lines: Sequence[bytes]) -> list[dict[str, Any] | None]:
    found = [_one(line) if len(line) <= MAX_RECORD else None for line in lines]
    return [record if type(record) is dict else None for record in found]


def _one(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _doubtful(there: bytes, came_out: bytes, records: int) -> Sequence[int]:
    """Return the numbers of the lines that the lenient parser may have read in another way than others would."""
    odd = _ODD.rows(there, _END)
    found = set(odd["number"])
    if there != came_out and (odd["key"] or _keys(there) != _keys(came_out)):
        pairs = zip(there.split(_END), came_out.split(_END), strict=True)
        found |= {number for number, (line, form) in enumerate(pairs) if line != form}
    return sorted(found.union(_deep(came_out, records)))


def _deep(block: bytes, records: int) -> Sequence[int]:
    """Return the lines that could be nested too deep: those that open more than that, even in a text.

    Each of the `records` opens one at least, and a line without a record none.
    """
    data = np.frombuffer(block, dtype=np.uint8)
    opening = (data | 0x20) == ord("{")  # braces and brackets differ in that bit
    if np.count_nonzero(opening) < records + MAX_DEPTH:
        return ()
    lines = np.searchsorted(np.flatnonzero(data == ord(_END)), np.flatnonzero(opening))
    found: list[int] = np.flatnonzero(np.bincount(lines) > MAX_DEPTH).tolist()
    return found


def _keys(text: bytes) -> int:
    """Return how many keys there are in JSON text: a quote before a colon ends one, unless it is a part of a text."""
    data = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero((data[:-1] == ord('"')) & (data[1:] == ord(":")))
    return len(ends) - int(np.count_nonzero(data[ends - 1] == ord("\\")))

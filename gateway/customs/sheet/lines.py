"""The lines of a chunk: where their values lie, and how they are applied. Compiled; see `lines.pxd` for the types.

A line is read only as every reader of JSON would read it. Whatever is unusual (another field, a value of another kind,
a list, a key with an escape, an integer beyond 53 bits) ends the reading with -1: then the chunk is read otherwise.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import cython
import msgspec

TEXT: Final = 1
"""A text whose bytes are as they will be applied."""
ESCAPED: Final = 2
"""A text with an escape that is applied in another way."""
PLAIN: Final = 3
"""A number whose digits are as they will be applied."""
NUMBER: Final = 4
"""Any other number."""
WORD: Final = 5
"""true, false or null."""

TEXTS: Final = (TEXT, ESCAPED)
NUMBERS: Final = (PLAIN, NUMBER)

STRING: Final = 1
INTEGER: Final = 2
FLOAT: Final = 4
BOOLEAN: Final = 8
NULL: Final = 16
KINDS: Final = {
    "string": STRING, "integer": INTEGER, "number": INTEGER | FLOAT, "boolean": BOOLEAN, "null": NULL,
}  # fmt: skip
"""What values a field takes, as bits, by the types of JSON Schema."""

MAX_INT: Final = 9007199254740991
_PRIME: Final = 0x100000001B3
_OTHER: Final = 0x9E3779B97F4A7C15
_MASK: Final = 0xFFFFFFFFFFFFFFFF
_write = msgspec.json.encode

Bytes: TypeAlias = "bytes | memoryview[int]"
Room: TypeAlias = "memoryview[int]"
Numbers: TypeAlias = Any
"""A memory view of numbers, in one dimension or two."""


def cells(
    data: Bytes, names: Bytes, ends: Numbers, kinds: Numbers, low: Numbers, high: Numbers, required: int,
    found: Numbers, numbers: Numbers,
) -> int:  # fmt: skip
    """Find the values of lines, each ended by a newline. Return how many there are, with the ends of lines; or -1.

    `names`: those of the fields, one after the other, each up to its end; `kinds`, `low` and `high`: what values a
    field takes; `required`: a bit for each field that must be there. `found`: for each value its field, where it starts
    and ends, and what it is (-1 and where, for the end of a line); `numbers`: its number, if it is one.
    """
    count = len(data)
    at = cell = 0
    field, one = -1, 1
    while at < count:
        at = _blank(data, at)
        if data[at] != 123:
            return -1
        at = _blank(data, at + 1)
        seen = 0
        mark = 44
        if data[at] == 125:
            at += 1
            mark = 125
        while mark == 44:
            field = _name(data, at, names, ends, field)
            if field < 0 or seen >> field & 1:
                return -1
            seen |= one << field
            at = _blank(data, at + 2 + ends[field + 1] - ends[field])
            if data[at] != 58:
                return -1
            found[cell, 0] = field
            at = _value(data, _blank(data, at + 1), kinds[field], cell, found, numbers)
            if at < 0 or (PLAIN <= found[cell, 3] <= NUMBER and not low[field] <= numbers[cell] <= high[field]):
                return -1
            cell += 1
            at = _blank(data, at)
            mark = data[at]
            at += 1
            if mark == 44:
                at = _blank(data, at)
        at = _blank(data, at)
        if mark != 125 or seen & required != required or data[at] != 10:
            return -1
        found[cell, 0] = -1
        found[cell, 1] = at
        cell += 1
        at += 1
    return cell


def _blank(data: Bytes, at: int) -> int:
    while data[at] == 32 or data[at] == 9 or data[at] == 13:
        at += 1
    return at


def _name(data: Bytes, at: int, names: Bytes, ends: Numbers, last: int) -> int:
    """Return the field whose name stands here, or -1. It is often the one after the `last`."""
    fields = len(ends) - 1
    if data[at] != 34:
        return -1
    for _ in range(fields):
        last += 1
        if last == fields:
            last = 0
        size = ends[last + 1] - ends[last]
        here = 0
        while here < size and data[at + 1 + here] == names[ends[last] + here]:
            here += 1
        if here == size and data[at + 1 + here] == 34:
            return last
    return -1


def _value(data: Bytes, at: int, kinds: int, cell: int, found: Numbers, numbers: Numbers) -> int:
    """Return where the value that begins here ends, or -1."""
    first = data[at]
    if first == 34 and kinds & STRING:
        found[cell, 1] = at + 1
        found[cell, 3] = TEXT
        at = _text(data, at + 1, cell, found)
        found[cell, 2] = at
        return at + 1 if at >= 0 else -1
    found[cell, 1] = at
    if (first == 45 or 48 <= first <= 57) and kinds & (INTEGER | FLOAT):
        at = _number(data, at, kinds, cell, found, numbers)
    elif first == 110 and kinds & NULL:
        at = _word(data, at, b"null", cell, found)
    elif first == 116 and kinds & BOOLEAN:
        at = _word(data, at, b"true", cell, found)
    elif first == 102 and kinds & BOOLEAN:
        at = _word(data, at, b"false", cell, found)
    else:
        return -1
    found[cell, 2] = at
    return at


def _text(data: Bytes, at: int, cell: int, found: Numbers) -> int:
    at = _plain(data, at)
    byte = data[at]
    while byte != 34:
        if byte < 32:
            return -1
        if byte == 92:
            at += 1
            byte = data[at]
            if byte == 117 or byte == 47:
                found[cell, 3] = ESCAPED
            if byte < 32:
                return -1
        at += 1
        byte = data[at]
    return at


def _plain(data: Bytes, at: int) -> int:
    """Return where a block of 32 bytes (which C sees at once) begins that an end, an escape or a fault is in."""
    with cython.boundscheck(False):
        while at + 32 <= len(data):
            other = False
            for place in range(32):
                byte = data[at + place]
                other |= (byte == 34) | (byte == 92) | (byte < 32)
            if other:
                break
            at += 32
    return at


def _word(data: Bytes, at: int, word: bytes, cell: int, found: Numbers) -> int:
    found[cell, 3] = WORD
    for place in range(len(word)):
        if data[at + place] != word[place]:
            return -1
    return at + len(word)


def _number(data: Bytes, start: int, kinds: int, cell: int, found: Numbers, numbers: Numbers) -> int:
    """Read a number. One of few digits and without an exponent is exact as a quotient, and is written as it stands."""
    at = start + (data[start] == 45)
    first = at
    whole = 0
    while 48 <= data[at] <= 57:
        if at - first < 16:
            whole = whole * 10 + (data[at] - 48)
        at += 1
    digits = at - first
    if digits == 0 or digits > 16 or (digits > 1 and data[first] == 48):
        return -1
    if data[at] != 46 and data[at] != 101 and data[at] != 69:
        if whole > MAX_INT or (whole == 0 and first > start):
            return -1
        found[cell, 3] = PLAIN
        numbers[cell] = -float(whole) if first > start else float(whole)
        return at
    return _float(data, start, at, whole, cell, found, numbers) if kinds & FLOAT else -1


def _float(data: Bytes, start: int, point: int, whole: int, cell: int, found: Numbers, numbers: Numbers) -> int:
    """Read a number with a fraction or an exponent from `point` on. `whole`: what stands before it."""
    minus = data[start] == 45
    at = point
    digits = point - start - minus
    scale = 1
    if data[at] == 46:
        at += 1
        while 48 <= data[at] <= 57:
            if digits + at - point <= 15:
                whole = whole * 10 + (data[at] - 48)
                scale = scale * 10
            at += 1
        if at == point + 1:
            return -1
    found[cell, 3] = PLAIN
    numbers[cell] = -float(whole) / float(scale) if minus else float(whole) / float(scale)
    odd = data[at] == 101 or data[at] == 69 or digits + at - point > 16 or (data[at - 1] == 48 and at > point + 2)
    if odd or (whole != 0 and -0.001 < numbers[cell] < 0.001):
        at = _exponent(data, at)
        if at < 0:
            return -1
        found[cell, 3] = NUMBER
        numbers[cell] = float(bytes(data[start:at]))
        if abs(numbers[cell]) > MAX_INT:
            return -1
    return at


def _exponent(data: Bytes, at: int) -> int:
    if data[at] == 101 or data[at] == 69:
        at += 1
        if data[at] == 43 or data[at] == 45:
            at += 1
        start = at
        while 48 <= data[at] <= 57:
            at += 1
        if at == start:
            return -1
    return at


def written(
    data: Bytes, found: Numbers, count: int, numbers: Numbers, keys: Bytes, ends: Numbers, order: Numbers,
    text: Bytes, places: Numbers, out: Room,
) -> int:  # fmt: skip
    """Write the lines as they are applied: fields in `order`, nothing between them. Return how long that is.

    `keys`: for each field its name as JSON, and a colon. `text`: see `letters.planes`. `places` has -1 for each field.
    """
    size = 0
    for cell in range(count):
        field = found[cell, 0]
        if field >= 0:
            places[field] = cell
            continue
        mark = 123
        for turn in range(len(order)):
            field = order[turn]
            here = places[field]
            if here < 0:
                continue
            places[field] = -1
            out[size] = mark
            mark = 44
            size = copied(out, size + 1, keys, ends[field], ends[field + 1])
            size = value(data, found, here, numbers, text, out, size)
        if mark == 123:
            out[size] = 123
            size += 1
        out[size] = 125
        out[size + 1] = 10
        size += 2
    return size


def value(data: Bytes, found: Numbers, cell: int, numbers: Numbers, text: Bytes, out: Room, size: int) -> int:
    """Write one value as it is applied; return how long all is then."""
    kind = found[cell, 3]
    if kind == TEXT:
        return copied(out, size, data, found[cell, 1] - 1, found[cell, 2] + 1)
    if kind in (PLAIN, WORD):
        return copied(out, size, data, found[cell, 1], found[cell, 2])
    form = _write(numbers[cell] if kind == NUMBER else bytes(text[found[cell, 4] : found[cell, 5]]).decode())
    return copied(out, size, form, 0, len(form))


def column(
    data: Bytes, found: Numbers, count: int, numbers: Numbers, text: Bytes, wanted: Numbers, out: Room
) -> int:  # fmt: skip
    """Write the values of one field, or of several as a list, a line for each row that has them; return how long."""
    size = row = there = 0
    for cell in range(count):
        if found[cell, 0] >= 0:
            continue
        start = size
        there = 0
        for turn in range(len(wanted)):
            for here in range(row, cell):
                if found[here, 0] == wanted[turn]:
                    out[size] = 91 if turn == 0 else 44
                    size = value(data, found, here, numbers, text, out, size + (len(wanted) > 1))
                    there += 1
        row = cell + 1
        if there < len(wanted):
            size = start
            continue
        if len(wanted) > 1:
            out[size] = 93
            size += 1
        out[size] = 10
        size += 1
    return size


def fits(text: Bytes, found: Numbers, count: int, field: int, words: Bytes, ends: Numbers) -> bool:
    """Tell whether every text of a field is one of some words, each of which has its end in `ends`."""
    for cell in range(count):
        if found[cell, 0] == field and not _among(text, found[cell, 4], found[cell, 5], words, ends):
            return False
    return True


def _among(text: Bytes, start: int, end: int, words: Bytes, ends: Numbers) -> bool:
    for word in range(len(ends) - 1):
        first = ends[word]
        if ends[word + 1] - first == end - start:
            place = start
            while place < end and text[place] == words[first + place - start]:
                place += 1
            if place == end:
                return True
    return False


def hashes(lines: Bytes, size: int, seeds: Numbers, out: Numbers) -> int:
    """Write two numbers for each line, which are equal for equal lines; return how many lines there are.

    Whoever knows the `seeds` can find lines that differ and have the same: they look as if one was there twice.
    """
    prime, other, mask = _PRIME, _OTHER, _MASK
    one, two = seeds[0], seeds[1]
    row = 0
    for at in range(size):
        byte = lines[at]
        if byte != 10:
            one = (one ^ byte) * prime & mask
            two = (two ^ byte) * other & mask
            two = two ^ two >> 29
            continue
        out[row, 0] = one ^ one >> 32
        out[row, 1] = two ^ two >> 32
        one, two = seeds[0], seeds[1]
        row += 1
    return row


def copied(out: Room, size: int, source: Bytes, start: int, end: int) -> int:
    """Copy bytes; return where they end."""
    if size < 0 or start < 0 or end > len(source) or size + end - start > len(out):
        raise IndexError
    with cython.boundscheck(False):
        for place in range(end - start):
            out[size + place] = source[start + place]
    return size + end - start

"""The texts of a chunk as bytes that can be searched at once. Compiled; see `letters.pxd` for the types.

Each is written in one pass over the texts in several ways (see `sieve.planes`): as they are, folded to ASCII, the same
glued together, squeezed to letters and digits; and as letters alone, by which probes are compared.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import cython
import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = "bytes | memoryview[int]"
Room: TypeAlias = "memoryview[int]"
Numbers: TypeAlias = Any
"""A memory view of numbers, in one dimension or two."""

ESCAPED: Final = 2
NUMBER: Final = 4
WORD: Final = 5
"""As in `lines`, whose constants C does not see from here."""
ROW: Final = 30
"""The mark that ends a row; texts of a row are parted by 0."""
DECEIVES: Final = 1
ODD: Final = 2
_CHARACTERS: Final = 0x110000
_MASK: Final = 0xFFFFFFFFFFFFFFFF
_ODD: Final = 1 << 16
_DIFFERS: Final = 1 << 17
_KIND: Final = 24
_ALONE: Final = 1 << _KIND
_MIXED: Final = 6 << _KIND
"""Marks of a character: that it is odd; that it is not the same in the squeezed plane and among the letters; that it
deceives by itself, and the two kinds that do beside each other. Below is its byte in the folded plane, and as letter.
"""


def planes(  # noqa: C901 - one loop over characters
    data: Bytes, source: Bytes, found: Numbers, count: int, numbers: Numbers,
    marks: Numbers, tights: Bytes, lengths: Numbers,
    text: Room, folded: Room, glued: Room, tight: Room, letters: Room, sizes: Numbers,
) -> int:  # fmt: skip
    """Write what `lines.cells` found in `data` as planes, and how long they are; return -1 if a text is unusual.

    Otherwise return `DECEIVES` where a character could, by itself or beside one of another script; and `ODD` where one
    is not seen, or stands for several.

    `marks`: of each character (see `marks_of`); `tights`: the byte of a folded one in the squeezed plane; 0 where it is
    left out. `lengths`: the least and the most characters of a text of each field. Where a value lies in `text` and in
    `tight` is noted beside where it lies in `data`; the number of a text is how many characters it has. `source` is the
    data, too: what is read from.
    """
    at_text = at_folded = at_glued = at_tight = at_letters = 0
    if len(marks) < _CHARACTERS or len(tights) < 256:
        raise IndexError
    first = True
    deceives = odd = 0
    for cell in range(count):
        field = found[cell, 0]
        if field < 0:
            text[at_text] = folded[at_folded] = glued[at_glued] = tight[at_tight] = letters[at_letters] = ROW
            at_text += 1
            at_folded += 1
            at_glued += 1
            at_tight += 1
            at_letters += 1
            first = True
            found[cell, 6] = found[cell, 7] = at_tight
            continue
        if not first:
            text[at_text] = folded[at_folded] = 0
            at_text += 1
            at_folded += 1
        first = False
        at, end = found[cell, 1], found[cell, 2]
        if found[cell, 3] == NUMBER:
            shown = str(numbers[cell]).encode() + b"\n"
            source, at, end = shown, 0, len(shown) - 1
        elif found[cell, 3] == WORD:
            end = at
        # In no form does a text become longer, nor is a character or a byte beyond its table.
        size = end - at
        if end >= len(source) or at_text + size > len(text) or at_folded + size > len(folded):
            raise IndexError
        if at_glued + size > len(glued) or at_tight + size > len(tight) or at_letters + size > len(letters):
            raise IndexError
        found[cell, 4] = at_text
        found[cell, 6] = at_tight
        begin, begun_letters = at_folded, at_letters
        start = again = copied_to = at
        seen = byte = 0
        with cython.boundscheck(False):
            while at < end:
                if at >= again:
                    size = _plain(source, at, end)
                    again = at + size + 32
                    for place in range(size):
                        folded[at_folded + place] = source[at + place]
                    for place in range(at, at + size):
                        byte = tights[source[place]]
                        letters[at_letters] = byte
                        at_letters += byte != 0
                    at_folded += size
                    at += size
                stop = min(again, end)
                while at < stop:
                    byte = source[at]
                    if byte > 127 or byte == 92:
                        break
                    folded[at_folded] = byte
                    byte = tights[byte]
                    letters[at_letters] = byte
                    at_folded += 1
                    at_letters += byte != 0
                    at += 1
                if at == stop:
                    continue
                run = marks[source[at - 1]] & _MIXED if at > start else 0
                while at < end and (byte > 127 or byte == 92):
                    if byte > 127:
                        code = _decoded(source, at + 1, byte)
                        if code < 0:
                            return -1
                        at += 2 if code < 0x800 else 3 if code < 0x10000 else 4
                    else:
                        code = _escaped(source, at + 1, end)
                        if code < 0:
                            return -1
                        for place in range(at - copied_to):
                            text[at_text + place] = source[copied_to + place]
                        at_text = _encoded(code, text, at_text + at - copied_to)
                        at += 2 if source[at + 1] != 117 else 6 if code < 0x10000 else 12
                        copied_to = at
                    mark = marks[code]
                    run |= mark
                    folded[at_folded] = mark & 255
                    at_folded += 1
                    byte = mark >> 8 & 255
                    letters[at_letters] = byte
                    at_letters += byte != 0
                    byte = source[at]
                seen |= run
                deceives |= ((run | marks[source[at]]) & _MIXED == _MIXED) | (run & _ALONE != 0)
            for place in range(end - copied_to):
                text[at_text + place] = source[copied_to + place]
            at_text += end - copied_to
            size = at_folded - begin
            for place in range(size):
                glued[at_glued + place] = folded[begin + place]
            at_glued += size
            if not seen & _DIFFERS:
                for place in range(at_letters - begun_letters):
                    tight[at_tight + place] = letters[begun_letters + place]
                at_tight += at_letters - begun_letters
            else:
                for place in range(begin, at_folded):
                    byte = tights[folded[place]]
                    tight[at_tight] = byte
                    at_tight += byte != 0
        odd |= seen & _ODD
        if found[cell, 3] == NUMBER:
            source = data
        found[cell, 5] = at_text
        found[cell, 7] = at_tight
        if found[cell, 3] <= ESCAPED:
            numbers[cell] = at_folded - begin
            if not lengths[field, 0] <= at_folded - begin <= lengths[field, 1]:
                return -1
    sizes[0] = at_text
    sizes[1] = at_folded
    sizes[2] = at_glued
    sizes[3] = at_tight
    sizes[4] = at_letters
    return (DECEIVES if deceives else 0) | (ODD if odd else 0)


def marks_of(
    folds: npt.NDArray[np.uint8], letters: npt.NDArray[np.uint8], kinds: Bytes, tights: Bytes, odd: int
) -> npt.NDArray[np.uint32]:
    """Return the marks of each character.

    `folds` and `letters`: its byte in the folded plane, where those from `odd` on are, and among the letters; `kinds`:
    see `unicode`; `tights`: see `planes`.
    """
    marks = np.left_shift(np.frombuffer(kinds, dtype=np.uint8), _KIND, dtype=np.uint32)
    marks |= np.left_shift(letters, 8, dtype=np.uint32)
    marks |= folds
    marks[folds >= odd] |= np.uint32(_ODD)
    marks[letters != np.frombuffer(tights, dtype=np.uint8)[folds]] |= np.uint32(_DIFFERS)
    return marks


def likely(letters: Bytes, count: int, step: int, mix: int, shift: int, table: Bytes, by: int, out: Numbers) -> int:
    """Write which of `count` places, each a `step` after the one before, could begin one of some pieces of 16 letters.

    Return how many do. A piece is mixed to one number of 64 bits (as `contamination` does, with the same `mix` and
    `shift`), and could be one of them if there is a 1 in the `table` where the number leads, shifted `by` bits.
    """
    found = 0
    most = _MASK >> by
    if step < 1 or len(table) <= most >> 3 or count > len(out) or (count - 1) * step + 16 > len(letters):
        raise IndexError
    with cython.boundscheck(False):
        for place in range(count):
            one = _eight(letters, place * step) * mix & _MASK
            one = one ^ one >> shift
            one = (one ^ _eight(letters, place * step + 8)) * mix & _MASK
            one = (one ^ one >> shift) >> by
            out[found] = place
            found += table[one >> 3] >> (one & 7) & 1
    return found


def _eight(data: Bytes, at: int) -> int:
    """Return eight bytes as a number."""
    one = 0
    with cython.boundscheck(False):
        for place in range(8):
            byte = data[at + place]
            one |= byte << 8 * place
    return one


def begun(tight: Bytes, places: Numbers, least: int, digits: Numbers, begins: Bytes, out: Numbers) -> int:
    """Write which of some `places` (starts and ends) could begin one of some parts; return how many do.

    `digits`: what each byte counts; `begins`: whether a part begins with three of these numbers, as one in base 37. A
    part has `least` bytes at least.
    """
    count = 0
    for place in range(len(places)):
        start = places[place, 0]
        if places[place, 1] - start >= least:
            code = (digits[tight[start]] * 37 + digits[tight[start + 1]]) * 37 + digits[tight[start + 2]]
            if begins[code]:
                out[count] = place
                count += 1
    return count


def _plain(data: Bytes, at: int, end: int) -> int:
    """Return how many bytes from `at` on are ASCII and no backslash, in blocks of 32, which C sees at once."""
    start = at
    with cython.boundscheck(False):
        while at + 32 <= end:
            other = False
            for place in range(32):
                byte = data[at + place]
                other |= (byte > 127) | (byte == 92)
            if other:
                break
            at += 32
    return at - start


def _decoded(data: Bytes, at: int, first: int) -> int:
    """Return the character whose UTF-8 begins with `first` and goes on at `at`; -1 if it has not the one right form."""
    if at + 3 > len(data):
        return -1
    with cython.boundscheck(False):
        code = data[at] & 0x3F
        if data[at] & 0xC0 != 0x80 or first < 0xC2:
            return -1
        if first < 0xE0:
            return (first & 0x1F) << 6 | code
        code = code << 6 | (data[at + 1] & 0x3F)
        if data[at + 1] & 0xC0 != 0x80:
            return -1
        if first < 0xF0:
            code |= (first & 0x0F) << 12
            return -1 if code < 0x800 or 0xD800 <= code < 0xE000 else code
        code = (first & 0x07) << 18 | code << 6 | (data[at + 2] & 0x3F)
        return -1 if data[at + 2] & 0xC0 != 0x80 or first > 0xF4 or not 0x10000 <= code < 0x110000 else code


def _escaped(data: Bytes, at: int, end: int) -> int:
    """Return the character of the escape that goes on at `at`; -1 if it is none that a text should have."""
    byte = data[at]
    if byte == 34 or byte == 92 or byte == 47:
        return byte
    if byte == 117:
        code = _hex(data, at + 1, end)
        if 0xD800 <= code < 0xDC00 and data[at + 5] == 92 and data[at + 6] == 117:
            low = _hex(data, at + 7, end)
            return 0x10000 + (code - 0xD800 << 10 | low - 0xDC00) if 0xDC00 <= low < 0xE000 else -1
        if code < 8 or code == 11 or 14 <= code < 32 or 0xD800 <= code < 0xE000:
            return -1
        return code
    if byte == 98 or byte == 102:
        return 8 if byte == 98 else 12
    return 10 if byte == 110 else 9 if byte == 116 else 13 if byte == 114 else -1


def _hex(data: Bytes, at: int, end: int) -> int:
    code = 0
    if at + 4 > end:
        return -1
    for place in range(4):
        byte = data[at + place]
        if 48 <= byte <= 57:
            code = code << 4 | byte - 48
        elif 65 <= byte <= 70 or 97 <= byte <= 102:
            code = code << 4 | (byte & 0x0F) + 9
        else:
            return -1
    return code


def _encoded(code: int, out: Room, size: int) -> int:
    """Write a character as UTF-8; return where it ends."""
    if code < 0x80:
        out[size] = code
        return size + 1
    if code < 0x800:
        out[size] = 0xC0 | code >> 6
    else:
        if code < 0x10000:
            out[size] = 0xE0 | code >> 12
        else:
            out[size] = 0xF0 | code >> 18
            size += 1
            out[size] = 0x80 | (code >> 12 & 0x3F)
        size += 1
        out[size] = 0x80 | (code >> 6 & 0x3F)
    out[size + 1] = 0x80 | (code & 0x3F)
    return size + 2

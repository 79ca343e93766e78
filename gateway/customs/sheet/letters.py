"""The texts of a chunk as bytes that can be searched at once. Compiled; see `letters.pxd` for the types.

Each is written in one pass over the texts in several ways (see `sieve.planes`): as they are, folded to ASCII, the same
glued together, squeezed to letters and digits; and as letters alone, by which probes are compared.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import cython

Bytes: TypeAlias = "bytes | memoryview[int]"
Room: TypeAlias = "memoryview[int]"
Numbers: TypeAlias = Any
"""A memory view of numbers, in one dimension or two."""

ESCAPED: Final = 2
NUMBER: Final = 4
WORD: Final = 5
"""As in `lines`, whose constants C does not see from here."""
ALONE: Final = 1
MIXED: Final = 6
"""Of characters that deceive by themselves, and of two that do beside each other."""
ROW: Final = 30
"""The mark that ends a row; texts of a row are parted by 0."""
DECEIVES: Final = 1
ODD: Final = 2
_CHARACTERS: Final = 0x110000
_LETTER: Final = 128
"""The byte of a letter without an ASCII likeness in the folded plane; those above are odd."""


def planes(  # noqa: C901 - one loop over characters
    data: Bytes, source: Bytes, found: Numbers, count: int, numbers: Numbers,
    folds: Bytes, others: Bytes, kinds: Bytes, tights: Bytes, lengths: Numbers,
    text: Room, folded: Room, glued: Room, tight: Room, letters: Room, sizes: Numbers,
) -> int:  # fmt: skip
    """Write what `lines.cells` found in `data` as planes, and how long they are; return -1 if a text is unusual.

    Otherwise return `DECEIVES` where a character could, by itself or beside one of another script; and `ODD` where one
    is not seen, or stands for several.

    `folds` and `others`: the byte of each character in the folded plane and among the letters; `kinds`: see `unicode`;
    `tights`: the byte of a folded one in the squeezed plane; 0 where it is left out. `lengths`: the least and the most
    characters of a text of each field. Where a value lies in `text` and in `tight` is noted beside where it lies in
    `data`; the number of a text is how many characters it has. `source` is the data, too: what is read from.
    """
    at_text = at_folded = at_glued = at_tight = at_letters = 0
    if len(folds) < _CHARACTERS or len(others) < _CHARACTERS or len(kinds) < _CHARACTERS or len(tights) < 256:
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
        found[cell, 4] = at_text
        found[cell, 6] = at_tight
        at, end = found[cell, 1], found[cell, 2]
        if found[cell, 3] == NUMBER:
            shown = str(numbers[cell]).encode()
            source, at, end = shown, 0, len(shown)
        elif found[cell, 3] == WORD:
            end = at
        # In no form does a text become longer, nor is a character or a byte beyond its table.
        size = end - at
        if end > len(source) or at_text + size > len(text) or at_folded + size > len(folded):
            raise IndexError
        if at_glued + size > len(glued) or at_tight + size > len(tight) or at_letters + size > len(letters):
            raise IndexError
        chars = before = 0
        again = at
        with cython.boundscheck(False):
            while at < end:
                if at >= again:
                    run = _plain(source, at, end)
                    again = at + run + 32
                    if run:
                        for place in range(run):
                            text[at_text + place] = source[at + place]
                        for place in range(run):
                            folded[at_folded + place] = source[at + place]
                        for place in range(run):
                            glued[at_glued + place] = source[at + place]
                        size = at_tight
                        for place in range(run):
                            byte = tights[source[at + place]]
                            tight[at_tight] = byte
                            at_tight += byte != 0
                        size = at_tight - size
                        for place in range(size):
                            letters[at_letters + place] = tight[at_tight - size + place]
                        at_letters += size
                        at_text += run
                        at_folded += run
                        at_glued += run
                        chars += run
                        at += run
                        continue
                byte = source[at]
                at += 1
                chars += 1
                if byte < 128 and byte != 92:
                    text[at_text] = byte
                    at_text += 1
                    folded[at_folded] = glued[at_glued] = byte
                    at_folded += 1
                    at_glued += 1
                    byte = tights[byte]
                    tight[at_tight] = byte
                    letters[at_letters] = byte
                    at_tight += byte != 0
                    at_letters += byte != 0
                    continue
                if at_text and text[at_text - 1] < 128:
                    before = kinds[text[at_text - 1]]
                if byte == 92:
                    code = _escaped(source, at, end)
                    if code < 0:
                        return -1
                    at += 1 if source[at] != 117 else 5 if code < 0x10000 else 11
                    at_text = _encoded(code, text, at_text)
                else:
                    code = _decoded(source, at, byte)
                    if code < 0:
                        return -1
                    text[at_text] = byte
                    at_text += 1
                    last = at + 1 if code < 0x800 else at + 2 if code < 0x10000 else at + 3
                    while at < last:
                        text[at_text] = source[at]
                        at_text += 1
                        at += 1
                deceives |= kinds[code] & ALONE | (before | kinds[code] == MIXED)
                before = kinds[code]
                if at < end and source[at] < 128:
                    deceives |= before | kinds[source[at]] == MIXED
                byte = folds[code]
                odd |= byte > _LETTER
                folded[at_folded] = glued[at_glued] = byte
                at_folded += 1
                at_glued += 1
                byte = tights[byte]
                tight[at_tight] = byte
                at_tight += byte != 0
                byte = others[code]
                letters[at_letters] = byte
                at_letters += byte != 0
        if found[cell, 3] == NUMBER:
            source = data
        found[cell, 5] = at_text
        found[cell, 7] = at_tight
        if found[cell, 3] <= ESCAPED:
            numbers[cell] = chars
            if not lengths[field, 0] <= chars <= lengths[field, 1]:
                return -1
    sizes[0] = at_text
    sizes[1] = at_folded
    sizes[2] = at_glued
    sizes[3] = at_tight
    sizes[4] = at_letters
    return (DECEIVES if deceives else 0) | (ODD if odd else 0)


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
    if first < 0xC2 or first > 0xF4:
        return -1
    more = 1 if first < 0xE0 else 2 if first < 0xF0 else 3
    code = first & 0x3F >> more
    for place in range(at, at + more):
        if data[place] & 0xC0 != 0x80:
            return -1
        code = code << 6 | (data[place] & 0x3F)
    if (more == 2 and (code < 0x800 or 0xD800 <= code < 0xE000)) or (more == 3 and not 0x10000 <= code < 0x110000):
        return -1
    return code


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

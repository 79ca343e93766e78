"""The text of a chunk as bytes that can be searched at once: rows end in `ROW`, texts of a row in `TEXT`.

Everything is folded to ASCII: compatibility forms and look-alikes become the letter that a reader would take them for,
every other letter one byte that no rule contains. So a plane of any language is as cheap as one of English.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from operator import methodcaller
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.customs.ready import ready
from gateway.customs.scan.plane import LOOKALIKES, texts

ROW, TEXT = "\x1e", "\0"
OTHER, HIDDEN, MANY = 0x80, 0x81, 0x82
"""A letter without an ASCII likeness; a character that is not seen; one that stands for several."""
CHARACTERS = 0x110000
Plane: TypeAlias = "bytes | memoryview[int]"
"""Bytes, or a part of a room in which others are written later."""
ASCII = "ascii"
"""The name of the table of what they look like."""
_LOOKED_AT = (range(0x80, 0x3400), range(0xA000, 0xAC00), range(0xF900, 0x20000), range(0xE0000, 0xE1000))
"""Where letters stand that look like ASCII: not in ideographs and Hangul, nor where nothing or nobody's is."""
_READ_AS = {"\x9b": "\x1b", "\u0131": "i"}
"""A control of eight bits, and a letter that is the same as another where case does not matter."""
_LOWER = bytes(code + 32 if 65 <= code <= 90 else code for code in range(256))
_ALNUM = bytes(code for code in range(256) if 48 <= code <= 57 or 65 <= code <= 90 or 97 <= code <= 122)


_values = methodcaller("values")


@dataclass(frozen=True, slots=True)
class Planes:
    """The plane of some rows in four forms: as UTF-8, folded, and without the marks of texts folded and squeezed.

    `places`: where texts begin and end in the last; some may be empty. `deceives`: whether any character could;
    `odd`: whether any is `HIDDEN` or `MANY`.
    """

    text: Plane
    folded: Plane
    glued: Plane
    tight: Plane
    places: npt.NDArray[np.int32] = field(compare=False)
    deceives: bool = field(compare=False)
    odd: bool


def planes_of(plane: str) -> Planes:
    """Return the forms of a plane."""
    likeness, mark = folded(plane), TEXT.encode()
    apart = squeezed(unhidden(likeness), keep=(ROW + TEXT).encode())
    codes = np.frombuffer(apart, dtype=np.uint8)
    marks = np.flatnonzero(codes < ord("0"))
    sizes, rows = np.diff(marks, prepend=-1) - 1, codes[marks] == ord(ROW)
    stops = np.cumsum(sizes + rows) - rows
    return Planes(
        text=plane.encode("utf-8", "replace"),
        folded=likeness,
        glued=likeness.replace(mark, b""),
        tight=apart.replace(mark, b""),
        places=np.column_stack((stops - sizes, stops)).astype(np.int32),
        deceives=not plane.isascii(),
        odd=HIDDEN in likeness or MANY in likeness,
    )


def values_of(record: Mapping[str, object]) -> str:
    """Return the values of a record, `TEXT` between them."""
    return TEXT.join(text.text for text in texts(record) if not text.key)


def plane_of(records: Collection[Mapping[str, object]], *, flat: bool) -> str:
    """Return the plane of the values of records. `flat`: all of them are texts and numbers."""
    if not flat:
        return joined([values_of(record) for record in records])
    forms = {count: TEXT.join(["%s"] * count) + ROW for count in set(map(len, records))}
    form = "".join([forms[len(record)] for record in records])
    plane = form % tuple(chain.from_iterable(map(_values, records)))
    if plane.count(ROW) == len(records):
        return plane
    return joined([TEXT.join(map(str, record.values())) for record in records])


def pairs_of(record: Mapping[str, object]) -> str:
    """Return the keys and values of a record, `TEXT` between them."""
    return TEXT.join(text.text for text in texts(record))


def keys_of(record: Mapping[str, object]) -> str:
    """Return the keys of a record, at all depths, `TEXT` between them."""
    return TEXT.join(text.text for text in texts(record) if text.key)


def joined(rows: Sequence[str]) -> str:
    """Return the plane of rows. A row that has the mark of a row in it has it blanked."""
    whole = ROW.join(rows)
    if whole.count(ROW) != max(len(rows) - 1, 0):
        whole = ROW.join(row.replace(ROW, " ") for row in rows)
    return whole + ROW


def folded(plane: str) -> bytes:
    """Return a plane in ASCII, one byte a character."""
    if plane.isascii():
        return plane.encode()
    codes = np.frombuffer(plane.encode("utf-32-le", "replace"), dtype=np.uint32)
    return ascii_of().take(codes.astype(np.int64)).tobytes()  # as it would take any others, but at half the speed


def rows_with(plane: Plane, code: int) -> set[int]:
    """Return the rows of a plane in which a byte occurs."""
    return rows_at(plane, np.flatnonzero(np.frombuffer(plane, dtype=np.uint8) == code))


def unhidden(plane: Plane) -> bytes:
    """Return a folded plane without the characters that are not seen."""
    return bytes(plane).replace(bytes([HIDDEN]), b"")


def squeezed(plane: Plane, keep: bytes = ROW.encode()) -> bytes:
    """Return only the letters and digits of a folded plane, in lower case, and the marks to `keep`."""
    return bytes(plane).translate(_LOWER, _all_but(keep))


@cache
def _all_but(keep: bytes) -> bytes:
    return bytes(code for code in range(256) if code not in _ALNUM + keep)


def rows_at(plane: Plane, places: Sequence[int] | npt.NDArray[np.int64], mark: bytes = ROW.encode()) -> set[int]:
    """Return the rows, each ended by a mark, in which the (byte) places of a plane are."""
    if not len(places):
        return set()
    wanted = np.asarray(places, dtype=np.int64)
    return set(np.searchsorted(ends(plane, mark), wanted).tolist())


def only(plane: Plane, rows: Sequence[int], ends: npt.NDArray[np.int64]) -> bytes:
    """Return the plane of some rows of another, whose rows have these `ends`."""
    return b"".join(plane[ends[row - 1] + 1 if row else 0 : ends[row] + 1] for row in rows)


def ends(plane: Plane, mark: bytes = ROW.encode()) -> npt.NDArray[np.int64]:
    """Return where the rows of a plane end."""
    return np.flatnonzero(np.frombuffer(plane, dtype=np.uint8) == ord(mark))


@cache
def ascii_of() -> npt.NDArray[np.uint8]:
    """Return the ASCII byte of every code point."""
    return np.frombuffer(ready(ASCII, _table), dtype=np.uint8)


def _table() -> bytes:
    table = np.full(CHARACTERS, OTHER, dtype=np.uint8)
    table[:128] = np.arange(128, dtype=np.uint8)
    for code in chain.from_iterable(_LOOKED_AT):
        char = chr(code)
        category = unicodedata.category(char)
        if category in {"Cn", "Co", "Lo", "Cs"} and not unicodedata.decomposition(char):
            continue  # nothing of it looks like ASCII
        table[code] = _ascii(char, category)
    return table.tobytes()


def _ascii(char: str, category: str) -> int:
    if category == "Cf":
        return HIDDEN
    if char in _READ_AS or char.isspace():
        return ord(_READ_AS.get(char, " "))
    if category == "Nd":
        return ord("0") + unicodedata.decimal(char)
    plain = unicodedata.normalize("NFKC", char)
    likeness = plain.casefold().translate(LOOKALIKES)
    if len(likeness) == 1 and likeness.isascii() and not plain.isascii():
        return ord(likeness.upper() if char.isupper() else likeness)
    if plain.isascii() and len(plain) == 1:
        return ord(plain)
    return MANY if any(part.isascii() and part.isalnum() for part in (*plain, *likeness)) else OTHER

"""The text plane of a record: every key, string and number with its place, and the views in which they are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """One piece of text. For a key, `path` ends in the key itself."""

    path: Path
    text: str
    key: bool


def texts(value: object, path: Path = ()) -> Iterator[Text]:
    """Yield the texts of a record in order: a key before its value."""
    match value:
        case dict():
            for name, item in value.items():
                yield Text((*path, name), name, key=True)
                yield from texts(item, (*path, name))
        case list():
            for index, item in enumerate(value):
                yield from texts(item, (*path, index))
        case str():
            yield Text(path, value, key=False)
        case int() | float() if not isinstance(value, bool):
            yield Text(path, str(value), key=False)
        case _:
            pass


_ASCII: Final = {code: chr(code).lower() if chr(code).isalnum() else None for code in range(128)}
_NOT_ALNUM: Final = re.compile(r"[\W_]+")
# Letters that look like a Latin one: an agent can spell a secret with them, and a reader would not see it.
LOOKALIKES: Final = dict(
    zip(
        map(ord, "авсԁеёһніјкӏморԛгѕтѵԝху" + "αβεηικνορσςτυχωζγ"),  # Cyrillic and Greek, after case folding
        "abcdeehhijklmopqrstvwxy" + "abenikvopsstuxwzy",
        strict=True,
    )
)


def squeeze(text: str) -> str:
    """Return the letters and digits of `text` alone: folded in case, form and likeness, with nothing between them.

    Whitespace, zero-width characters and punctuation that split a secret disappear; so do the characters in which
    base64 and its URL-safe form differ.
    """
    if text.isascii():
        return text.translate(_ASCII)
    folded = unicodedata.normalize("NFKC", text).casefold().translate(LOOKALIKES)
    return _NOT_ALNUM.sub("", folded)


def folded(text: str) -> str:
    """Return `text` in compatibility form without characters that are not seen (zero-width, bidi, tags)."""
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFKC", text)
    return "".join(char for char in normal if unicodedata.category(char) != "Cf")

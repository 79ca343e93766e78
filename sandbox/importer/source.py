"""Source: takes a Markdown file apart into frontmatter and prompt. The frontmatter is read as hostile input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sandbox.language.findings import Finding, FindingsError, Place
from sandbox.language.source import MAX_BYTES, Document, parse

_FENCE = re.compile(rb"---[ \t]*\r?\n")
_CLOSE = re.compile(rb"^---[ \t]*\r?$", re.MULTILINE)
_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Parts:
    """A file: its frontmatter with places of the whole file, its text, and how many hidden characters were removed."""

    document: Document
    body: str
    hidden: int


def split(text: bytes, file: str, *, bare: bool = False) -> Parts:
    """Take a file apart. `bare`: a file without frontmatter is all text, as in an import.

    Raises `FindingsError`: C002 (no frontmatter, not UTF-8), C007 (not a mapping), C032 (too large), or as `parse`.
    """
    if len(text) > MAX_BYTES:
        raise FindingsError([_finding("CSM-C032", f"larger than {MAX_BYTES} bytes", file)])
    opened = _FENCE.match(text)
    closed = _CLOSE.search(text, opened.end()) if opened else None
    if opened is None or closed is None:
        if opened is None and bare:
            body, hidden = _body(text, file)
            return Parts(parse(b"{}", file), body, hidden)
        hint = "the file starts with a line of ---, YAML, and another line of ---"
        raise FindingsError([_finding("CSM-C002", "no frontmatter", file, hint)])
    # the line break in front keeps the line numbers those of the whole file
    document = parse(b"\n" + text[opened.end() : closed.start()], file)
    if document.data is None:
        document = parse(b"{}", file)
    if not isinstance(document.data, dict):
        raise FindingsError([_finding("CSM-C007", "the frontmatter is not a mapping", file)])
    body, hidden = _body(text[closed.end() :], file)
    return Parts(document, body, hidden)


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def words(value: Any) -> list[str]:
    """Return the words of a word or a list; what is neither is left out."""
    items = value if isinstance(value, list) else [value]
    return [str(item) for item in items if isinstance(item, str | int) and not isinstance(item, bool)]


def plain(value: Any) -> bool:
    """Tell whether a value is a word, or a list of words, without an expression."""
    items = value if isinstance(value, list) else [value]
    return len(words(value)) == len(items) and not any("${{" in word for word in words(value))


def slug(text: str, fallback: str = "imported") -> str:
    """Return a name as the workflow language wants it."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    name = name if re.match(r"[a-z]", name) else f"{fallback}-{name}".rstrip("-")
    return name[:40].rstrip("-")


def _body(text: bytes, file: str) -> tuple[str, int]:
    try:
        decoded = text.decode("utf-8").replace("\r\n", "\n").lstrip("\n")
    except UnicodeDecodeError as error:
        raise FindingsError([_finding("CSM-C002", f"not UTF-8: {error.reason}", file)]) from error
    shown, hidden = _HIDDEN.subn("", decoded)
    shown, control = _CONTROL.subn("", shown)
    return shown, hidden + control


def _finding(code: str, message: str, file: str, hint: str | None = None) -> Finding:
    return Finding(code=code, message=message, place=Place(file=file, line=1, column=1), path=(), hint=hint)

"""Patterns: regular expressions for schemas, in the subset that every engine runs in linear time."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"[\\.^$|?*+()\[\]{}]")


def glob(text: str) -> str:
    """Return a regular expression, in the subset that runs in linear time, for a glob."""
    out, rest = "", text[:200]
    while rest:
        if rest.startswith("**/"):
            out, rest = out + "(.*/)?", rest[3:]
        elif rest.startswith("**"):
            out, rest = out + ".*", rest[2:]
        elif rest[0] in "*?":
            out, rest = out + ("[^/]*" if rest[0] == "*" else "[^/]"), rest[1:]
        else:
            out, rest = out + literal(rest[0]), rest[1:]
    return out


def literal(text: str) -> str:
    """Return a regular expression for exactly this text."""
    return _SPECIAL.sub(lambda match: "\\" + match.group(), text)

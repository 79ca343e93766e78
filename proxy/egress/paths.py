"""Which paths a rule admits: prefixes that end where a segment ends, over paths with one reading. Pure.

Threat: a path that is judged as one thing and served as another (`/public/../admin`, `/public/%2e%2e/admin`,
`/public%2f..%2fadmin`, `/public/..;/admin`, `/public//admin`). So where a rule limits paths, a path that some server
would rewrite before it serves it is not admitted at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HIDDEN = re.compile(r"%(?:2e|2f|5c|3f|23|3b|25|0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)
"""Encoded `.` `/` backslash `?` `#` `;` `%`, and control characters: what changes the path once it is decoded."""


def ambiguity(target: str) -> str | None:
    """Return why the path of an origin-form target has more than one reading, or None when it has one."""
    path = target.partition("?")[0]
    if not path.startswith("/"):
        return "it does not begin with /"
    if "\\" in path:
        return "a backslash"
    if "//" in path:
        return "an empty segment"
    if _PERCENT.search(path):
        return "a percent sign without two digits"
    if hidden := _HIDDEN.search(path):
        return f"an encoded {hidden.group()}"
    if any(segment.partition(";")[0] in (".", "..") for segment in path.split("/")):
        return "a dot segment"
    return None


def within(target: str, prefixes: Sequence[str]) -> bool:
    """Whether the path of `target` is one of the prefixes, or lies below one. The query is no part of it."""
    path = target.partition("?")[0]
    return any(path == prefix or path.startswith(prefix.removesuffix("/") + "/") for prefix in prefixes)

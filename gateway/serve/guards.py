"""What a stage may say in an argument of a tool, beyond what the tool's schema admits. Pure.

Threats: a path that climbs out of its root, a text that a command line takes for an option, a URL that leads elsewhere
than a reader thinks. Every guard denies what it cannot read plainly. Paths are judged by their text alone: of links in
the server's own file system nothing is known here (under `/inputs` there are none, and nobody can make one).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from policies.hosts import NotAHostError, authority, matches
from policies.plan import Guard, ToolRule

_ENCODED = re.compile(r"%(2e|2f|5c|00)", re.IGNORECASE)
_URL = re.compile(r"(https?)://([^/?#]*)(?:[/?#].*)?", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


def outside(rule: ToolRule, arguments: Mapping[str, Any]) -> list[str]:
    """Return the arguments that are outside of their guards, each with what it may be; never a value."""
    return [
        f"/{guard.argument}: {why}"
        for guard in rule.guards
        if guard.argument in arguments
        for why in _broken(guard, arguments[guard.argument])
    ]


def _broken(guard: Guard, value: object) -> Iterator[str]:
    texts = value if isinstance(value, list) else [] if value is None else [value]
    plain = [text for text in texts if isinstance(text, str)]
    if len(plain) != len(texts):
        yield "a text, or a list of texts"
    if guard.below is not None and not all(is_below(text, guard.below) for text in plain):
        yield f"an absolute path below {guard.below}"
    if guard.no_dash and any(text.lstrip().startswith("-") or "\0" in text for text in plain):
        yield "no leading dash"
    if guard.hosts and not all(is_at(text, guard.hosts) for text in plain):
        yield f"a host of {', '.join(guard.hosts)}, or an http(s) URL there"


def is_below(text: str, root: str) -> bool:
    """Whether a text is an absolute path at or below `root`, to whoever reads it."""
    if not text.startswith("/") or not text.isprintable() or "\\" in text or _ENCODED.search(text):
        return False
    parts = [part for part in text.split("/") if part not in ("", ".")]
    wanted = root.strip("/").split("/")
    return ".." not in parts and parts[: len(wanted)] == wanted


def is_at(text: str, patterns: list[str]) -> bool:
    """Whether a text is the name of a host that one of the patterns admits, or a URL there at its scheme's port."""
    if not text.isprintable() or "\\" in text or " " in text:
        return False
    found = _URL.fullmatch(text)
    scheme, where = (found[1].lower(), found[2]) if found else ("https", text)
    try:
        host, port = authority(where, default=_PORTS[scheme])
    except NotAHostError:
        return False
    return port == _PORTS[scheme] and any(matches(host, pattern) for pattern in patterns)

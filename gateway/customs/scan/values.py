"""The run's own secret values, in every guise in which an agent could write them down.

A value of 8 characters or more is looked for in squeezed text (letters and digits alone, folded), plain, reversed, and
in base64 at all three alignments, base32, hex, percent-encoded, JSON-escaped and as decimal byte numbers. A shorter one
would match honest text that way; it is looked for exactly, as a whole token. An empty one is refused. What is
wrapped deeper is found in the layers that `layers.py` unwraps.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.customs.scan.plane import squeeze
from policies.errors import CasemateError

SHORTEST = 8
"""Characters from which a value is looked for inside longer text."""
WINDOW = 16
"""Characters of a long token that give it away: every leak of 31 of its characters in a row has such a window."""
PIECE = 3
"""Characters from which a field counts as a piece of a value."""
COVERED = 0.75
"""Share of a value that must be found in pieces, in whatever order, to count as the value."""

_TWICE = 18
"""Characters below which a value that is encoded twice can be shorter than the runs that are decoded."""

_TOKEN = re.compile(r"[A-Za-z0-9_\-+/=.]+")
_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """Strings that betray one secret: `squeezed` in squeezed text, `exact` anywhere, `word` as a whole token."""

    name: str
    squeezed: tuple[str, ...]
    exact: tuple[str, ...]
    token: re.Pattern[str] | None
    word: str | None = None
    plain: tuple[str, ...] = field(default=())


def needles(secrets: Mapping[str, str]) -> list[Needle]:
    """Return what to look for; raise CSM-R009 for an empty value, which could not be looked for at all."""
    return [_needle(name, value) for name, value in sorted(secrets.items())]


def _needle(name: str, value: str) -> Needle:
    if not value.strip():
        hint = "give the secret a value, or take it out of the workflow"
        raise CasemateError(
            "CSM-R009", f"secret {name!r} is empty and cannot be looked for", place="customs", hint=hint
        )
    squeezed: set[str] = set()
    exact: set[str] = set()
    plain: list[str] = []
    for part in _parts(value.strip()):
        squeezed.update(guise for guise in map(squeeze, guises(part)) if len(guise) >= SHORTEST)
        core = squeeze(part)
        if len(core) >= SHORTEST:
            plain.append(core)
            if len(part) < _TWICE:
                squeezed.update(_twice(part))
        elif len(part) >= SHORTEST:
            # Mostly punctuation: too little would be left of it.
            exact.add(part)
        if _TOKEN.fullmatch(part) and len(core) >= 2 * WINDOW:
            windows = (core[start : start + WINDOW] for start in range(0, len(core) - WINDOW + 1, WINDOW))
            squeezed.update(guise for window in windows for guise in (window, window[::-1]))
    token = word = None
    if len(value.strip()) < SHORTEST:
        word = value.strip()
        token = re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])")
    return Needle(
        word=word,
        name=name,
        squeezed=tuple(sorted(squeezed)),
        exact=tuple(sorted(exact)),
        token=token,
        plain=tuple(plain),
    )


def _parts(value: str) -> Iterator[str]:
    """Yield the value, and those parts of a composite value that are secret on their own."""
    yield value
    for chunk in value.split():
        if chunk != value and len(squeeze(chunk)) >= 20:
            yield chunk
    if (found := _PASSWORD.search(value)) and len(found[1]) >= SHORTEST:
        yield found[1]
    if value.startswith("{"):
        try:
            document = json.loads(value)
        except ValueError:
            return
        for leaf in document.values() if isinstance(document, dict) else ():
            # Shorter leaves of a key file are names and addresses, not secrets.
            if isinstance(leaf, str) and len(leaf) >= 32 and "://" not in leaf:
                yield leaf


def guises(value: str) -> Iterator[str]:
    yield value
    yield value[::-1]
    yield urllib.parse.quote(value, safe="")
    yield json.dumps(value)[1:-1]
    yield from _in_ascii(value.encode())
    if not value.isascii():  # what is ASCII is read as such, in whatever way it was encoded
        yield from _in_ascii(value.encode("utf-16-le"))
        yield from _in_ascii(value.encode("utf-16-be"))


def _in_ascii(data: bytes) -> Iterator[str]:
    yield data.hex()
    yield base64.b32encode(data).decode().rstrip("=")[: len(data) * 8 // 5]
    yield "".join(str(byte) for byte in data)
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + data).decode().rstrip("=")
        # The first and the last character also depend on what stands beside the value.
        yield text[(shift * 8 + 5) // 6 : (shift + len(data)) * 8 // 6]


def _twice(value: str) -> Iterator[str]:
    for once in (*guises(value), base64.b64encode(value[::-1].encode()).decode()):
        for twice in (once, *guises(once)):
            if len(word := squeeze(twice)) >= SHORTEST:
                yield word


def found_in(needle: Needle, text: str, squeezed: str) -> str | None:
    """Return what betrays the needle in `text` (whose squeezed form is given), or None."""
    for part in needle.squeezed:
        if part in squeezed:
            return part
    for part in needle.exact:
        if part in text or part[::-1] in text:
            return part
    if needle.token and (match := needle.token.search(text)):
        return match.group()
    return None


def pieces(needle: Needle, squeezed: Sequence[str]) -> list[int]:
    """Return the indexes of texts that are pieces of the value and together make it up; empty when they do not."""
    for value in needle.plain:
        covered: set[int] = set()
        used: list[int] = []
        for index, piece in enumerate(squeezed):
            if PIECE <= len(piece) < len(value) and (start := value.find(piece)) >= 0:
                covered.update(range(start, start + len(piece)))
                used.append(index)
        if len(used) > 1 and len(covered) >= COVERED * len(value):
            return used
    return []

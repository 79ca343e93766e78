"""Host names: one canonical form, and whether a pattern of a rule admits it. Pure.

Threat: a name that the policy reads one way and the resolver, the upstream or a human another way. So there is one
canonical form (lower case, A-labels, no trailing dot), and everything that is not plainly a name and a port is refused:
addresses in any notation, user information, percent signs, control characters.
"""

from __future__ import annotations

import re

import idna

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


class NotAHostError(ValueError):
    """The text is no name of a host; `address` says that it is an address, in whatever notation."""

    def __init__(self, reason: str, host: str, *, address: bool = False) -> None:
        self.reason, self.host, self.address = reason, host, address
        super().__init__(reason)


def authority(text: str, *, default: int | None) -> tuple[str, int]:
    """Return the canonical host and the port of `host:port`; without `default`, the port must be written."""
    if "@" in text:
        raise NotAHostError("user information in the target", text.rpartition("@")[2])
    if "[" in text or "]" in text or text.count(":") > 1:
        raise NotAHostError("IPv6 literal", text, address=True)
    name, colon, digits = text.partition(":")
    if colon:
        if not _PORT.fullmatch(digits) or int(digits) > 65535:
            raise NotAHostError("malformed port", name)
        return host_name(name), int(digits)
    if default is None:
        raise NotAHostError("no port", name)
    return host_name(name), default


def host_name(text: str) -> str:
    """Return the canonical form of a DNS name; raise `NotAHostError` for anything else, addresses above all."""
    name = text if text.isascii() else _to_ascii(text)
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # "1.2.3.4", "127.1", "0x7f.1", "2130706433", "0177.0.0.1": to some resolver each of them is an address
        raise NotAHostError("IP address in place of a name", text, address=True)
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise NotAHostError("not a host name", text)
    if any(label.startswith("xn--") for label in labels):
        _check_a_labels(name, text)
    return name


def matches(host: str, pattern: str) -> bool:
    """Whether a canonical host is the exact name, or one label below the suffix of `*.suffix`.

    Threat: suffix confusion. `*.example.com` admits neither `example.com`, `a.b.example.com` nor `notexample.com`.
    """
    if pattern.startswith("*."):
        label, dot, rest = host.partition(".")
        return bool(label and dot) and rest == pattern[2:]
    return host == pattern


def _to_ascii(text: str) -> str:
    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except (UnicodeError, ValueError, IndexError) as error:
        raise NotAHostError("not an internationalised host name", text) from error


def _check_a_labels(name: str, text: str) -> None:
    try:
        same = idna.encode(idna.decode(name)).decode("ascii") == name
    except (UnicodeError, ValueError, IndexError) as error:
        raise NotAHostError("not a valid A-label", text) from error
    if not same:
        raise NotAHostError("an A-label that is not canonical", text)

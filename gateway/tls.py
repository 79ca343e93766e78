"""TLS towards hosts outside: the system's authorities, and those that the plan trusts."""

from __future__ import annotations

import ssl
from collections.abc import Sequence


def context(trust: Sequence[str]) -> ssl.SSLContext:
    """Return a context that verifies hosts; `trust` are certificates as PEM."""
    made = ssl.create_default_context()
    if trust:
        made.load_verify_locations(cadata="".join(trust))
    return made

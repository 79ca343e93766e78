"""Rules that recognise a secret by its form: a versioned data file, shared by the compiler and by customs.

Patterns keep to the syntax that RE2 and `re` share, so that both read them alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

FILE = Path(__file__).resolve().parent / "rules" / "secrets.json"
MAX_TEXT = 1 << 20


class SecretRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: its id, what it recognises, its pattern, and texts that it must and must not match."""

    id: str
    description: str
    pattern: str
    positive: list[str]
    negative: list[str]


@cache
def secret_rules() -> tuple[SecretRule, ...]:
    """Return every rule, in the order of the file."""
    return tuple(msgspec.convert(json.loads(FILE.read_text())["rules"], list[SecretRule]))


@cache
def _compiled() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((rule.id, re.compile(rule.pattern)) for rule in secret_rules())


def find_secrets(text: str) -> Iterator[str]:
    """Yield the id of every rule that matches in a short text (a value of a workflow, not a row)."""
    for rule, pattern in _compiled():
        if pattern.search(text[:MAX_TEXT]):
            yield rule

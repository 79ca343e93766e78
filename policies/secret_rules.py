"""Rules that recognise a secret by its form: a versioned data file, shared by the compiler and by customs.

Patterns keep to the syntax that RE2 and `re` read alike. The rules are Casemate's own, under its licence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from policies.plan import Frozen

FILE = Path(__file__).resolve().parent / "rules" / "secrets.json"
MAX_TEXT = 1 << 20


class SecretRule(Frozen, frozen=True, kw_only=True):
    """One pattern; `id` names it in findings and verdicts, `about` says what it recognises.

    `names`: the pattern reads the name of a field beside its value, and one of these words is in that name.
    """

    id: str
    about: str
    pattern: str
    names: list[str] = msgspec.field(default_factory=list)


class SecretRules(Frozen, frozen=True, kw_only=True):
    """The rules; `version` changes with every change of a rule."""

    version: int
    rules: list[SecretRule]


@cache
def secret_rules() -> SecretRules:
    """Return every rule, in the order of the file."""
    return msgspec.json.decode(FILE.read_bytes(), type=SecretRules)


@cache
def _compiled() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((rule.id, re.compile(rule.pattern)) for rule in secret_rules().rules)


def find_secrets(text: str) -> Iterator[str]:
    """Yield the id of every rule that matches in a short text (a value of a workflow, not a row)."""
    for rule, pattern in _compiled():
        if pattern.search(text[:MAX_TEXT]):
            yield rule

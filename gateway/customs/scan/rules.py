"""Providers' patterns, run by RE2 as one set, in time linear in the text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import re2  # type: ignore[import-untyped]

from policies.secret_rules import SecretRules, secret_rules

_END = "\x00casemate-end\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One match of a rule: its span in the text."""

    rule: str
    start: int
    end: int


class RuleSet:
    """All rules, compiled once."""

    def __init__(self, document: SecretRules) -> None:
        options = re2.Options()
        options.max_mem = 64 * 1024 * 1024
        options.log_errors = False
        self.version = document.version
        self._rules = [(rule.id, re2.compile(rule.pattern, options)) for rule in document.rules]
        self._set = re2.Set.SearchSet(options)
        for rule in document.rules:
            self._set.Add(rule.pattern)
        self._sentinel = self._set.Add(_END + r"\z")
        self._set.Compile()

    def matching(self, text: str) -> list[int]:
        """Return the numbers of the rules that match somewhere in `text`.

        RE2 answers "nothing" also when it runs out of memory. So every text ends in a mark that must be found; when it
        is not, this raises `RuntimeError`, and the check that called rejects.
        """
        found = set(self._set.Match(text + _END) or ())
        if self._sentinel not in found:
            raise RuntimeError("the rules could not be run to the end of the text")
        return sorted(found - {self._sentinel})

    def hits(self, text: str) -> Iterator[Hit]:
        """Yield every match of every rule in `text`."""
        for number in self.matching(text):
            name, pattern = self._rules[number]
            for match in pattern.finditer(text):
                yield Hit(rule=name, start=match.start(), end=match.end())


@cache
def load() -> RuleSet:
    """Return the rules of the ground floor."""
    return RuleSet(secret_rules())

"""secrets: no provider's token and no secret of this run, in whatever guise, in a value or in a key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from gateway.customs.checks.base import Candidate
from gateway.customs.scan.plane import Path
from gateway.customs.scan.scanner import Finding, Scanner
from policies.canonical import pointer
from policies.writes import Reason


class Secrets:
    """Rejects (CSM-W005). A reason has the rule, a pointer, the length and an HMAC of what matched, never the value.

    The HMAC's key is made for the run and kept nowhere: equal marks mean equal secrets, and nothing else can be
    learned from one, by trying candidates either.
    """

    name = "secrets"

    def __init__(self, scanner: Scanner, mark_key: bytes) -> None:
        self._scanner, self._key = scanner, mark_key

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        findings = self._scanner.findings(candidate.record or {})
        bad_keys = frozenset(place.path for finding in findings for place in finding.places if place.key)
        for finding in findings:
            yield reason(self._key, finding.rule, finding.matched, _pointer(finding, bad_keys))


def reason(key: bytes, rule: str, matched: str, where: str) -> Reason:
    """Return the reason against what matched a rule."""
    mark = hmac.digest(key, matched.encode("utf-8", "replace"), hashlib.sha256).hex()[:16]
    excerpt = f"{rule}, {len(matched)} characters, hmac {mark}"
    return Reason(check=Secrets.name, code="CSM-W005", pointer=where, excerpt=excerpt)


def _pointer(finding: Finding, bad_keys: frozenset[Path]) -> str:
    """Return the pointer of the first place, without the text of any key that is itself a secret."""
    if not finding.places:
        return ""
    path = finding.places[0].path
    shown = ["[redacted key]" if path[: end + 1] in bad_keys else part for end, part in enumerate(path)]
    return pointer(shown)

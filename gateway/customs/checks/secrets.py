"""secrets: no provider's token and no secret of this run, in whatever guise, in a value or in a key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from gateway.customs.checks.base import Candidate
from gateway.customs.scan.glue import RowGlue, Spread
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
        self._scanner, self._key, self._glue = scanner, mark_key, RowGlue(scanner.needles)
        self._late: dict[int, Reason] = {}

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        if candidate.record is None:
            list(self._glue.feed({}))
            return
        findings = self._scanner.findings(candidate.record)
        bad_keys = frozenset(place.path for finding in findings for place in finding.places if place.key)
        for finding in findings:
            yield self._reason(finding.rule, finding.matched, _pointer(finding, bad_keys))
        for spread in self._glue.feed(candidate.record):
            reason = self._spread(spread)
            self._late.update(dict.fromkeys(spread.rows[:-1], reason))
            yield reason

    def late(self) -> Mapping[int, Reason]:
        """Return the reasons against rows that turned out to hold a part of a secret."""
        return self._late

    def _spread(self, spread: Spread) -> Reason:
        """Return the reason against every row over which a secret is spread. The pointer names no field: a field's
        name is the agent's text where the schema allows any."""
        return self._reason(f"run-secret:{spread.name} over {len(spread.rows)} rows", spread.matched, "")

    def _reason(self, rule: str, matched: str, where: str) -> Reason:
        mark = hmac.digest(self._key, matched.encode("utf-8", "replace"), hashlib.sha256).hex()[:16]
        excerpt = f"{rule}, {len(matched)} characters, hmac {mark}"
        return Reason(check=self.name, code="CSM-W005", pointer=where, excerpt=excerpt)


def _pointer(finding: Finding, bad_keys: frozenset[Path]) -> str:
    """Return the pointer of the first place, without the text of any key that is itself a secret."""
    if not finding.places:
        return ""
    path = finding.places[0].path
    shown = ["[redacted key]" if path[: end + 1] in bad_keys else part for end, part in enumerate(path)]
    return pointer(shown)

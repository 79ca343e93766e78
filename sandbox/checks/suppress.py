"""Suppressions: a person looked at a finding, says why it stands, and until when.

Warnings can be suppressed, and the two errors that guess at what a text means. What protects a boundary cannot.
"""

from __future__ import annotations

from datetime import date

from policies.canonical import pointer
from sandbox.checks.subject import Subject
from sandbox.language.findings import Finding, Severity

GUESSES = {"CSM-C008", "CSM-C034"}


def apply(subject: Subject, findings: list[Finding]) -> list[Finding]:
    """Return the findings that are left, and C044 for every suppression that is wrong, over, or for nothing."""
    left = list(findings)
    for index, entry in enumerate(subject.workflow.suppress):
        where = ("suppress", index)
        until = _date(entry.until)
        if until is None or until < subject.facts.today:
            message = f"the suppression of {entry.rule} ended on {entry.until}" if until else f"no date: {entry.until}"
            left.append(subject.finding("CSM-C044", message, *where, "until"))
            continue
        hit = [f for f in left if f.code == entry.rule and pointer(f.path) == entry.at]
        if not hit:
            message = f"{entry.rule} is not found at {entry.at}"
            left.append(subject.finding("CSM-C044", message, *where, hint="remove it", severity=Severity.WARNING))
        elif any(f.severity is Severity.ERROR and f.code not in GUESSES for f in hit):
            left.append(subject.finding("CSM-C044", f"{entry.rule} cannot be suppressed", *where, "rule"))
        else:
            left = [f for f in left if f not in hit]
    return left


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None

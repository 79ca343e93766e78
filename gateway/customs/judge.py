"""From a row to reasons, and from reasons to a verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from gateway.customs.checks.base import Candidate, Check
from policies.plan import Output
from policies.writes import Judgement, Reason

MAX_REASONS = 16
"""Reasons that are kept for one proposal."""
REDACTED: Final = "redacted"
"""The excerpt of a reason that objects no more, because what it objected to was taken out."""


def objections(candidate: Candidate, checks: Sequence[Check]) -> list[Reason]:
    """Return what the checks have against a row, at most `MAX_REASONS`; empty means no objection."""
    reasons: list[Reason] = []
    for check in checks:
        try:
            reasons.extend(check(candidate))
        except Exception as error:  # noqa: BLE001 - a check that fails must not let anything pass; the verdict is the event
            kind = type(error).__name__
            reasons.append(Reason(check=check.name, code="CSM-W009", pointer="", excerpt=f"the check failed: {kind}"))
    if any(reason.code == "CSM-W005" for reason in reasons):
        reasons = [reason if reason.code == "CSM-W005" else _without_text(reason) for reason in reasons]
    return reasons[:MAX_REASONS]


def _without_text(reason: Reason) -> Reason:
    """Return a reason of another check without its pointer: a key in it may be the secret."""
    return Reason(check=reason.check, code=reason.code, pointer="", excerpt="")


def fatal(reasons: Sequence[Reason]) -> bool:
    """Tell whether a row with these reasons is not written as it is."""
    return any(reason.excerpt != REDACTED for reason in reasons)


def rejecting(output: Output, reasons: Sequence[Reason]) -> bool:
    """Tell whether a row with these reasons is rejected, and not only held."""
    holds = {"approval", "history"} | {str(check) for check, action in output.findings.items() if action == "hold"}
    if output.git is not None and output.git.protected == "hold":
        holds.add("protected")
    return any(reason.check not in holds for reason in reasons if reason.excerpt != REDACTED)


def judgement(
    name: str, output: Output, reasons: Sequence[Reason], set_rejected: bool, *, waits: bool = False
) -> Judgement:
    """Return the verdict over one row. `set_rejected`: some row of this output was rejected; `waits`: all are held."""
    given = list(reasons)
    against = [reason for reason in given if reason.excerpt != REDACTED]
    if output.atomic == "batch" and set_rejected and not rejecting(output, against):
        why = "the output is written whole or not at all"
        against.append(Reason(check="batch", code="CSM-W008", pointer="", excerpt=why))
        given.append(against[-1])
    if not against and waits:
        against = [Reason(check="approval", code="CSM-W018", pointer="", excerpt="a person decides")]
        given += against
    rejects = rejecting(output, against)
    verdict: Literal["accept", "hold", "reject"] = "reject" if rejects else "hold" if against else "accept"
    return Judgement(id=name, output=output.name, verdict=verdict, reasons=given)

"""From a line to reasons, and from reasons to a verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.customs.checks.base import Candidate, Check
from policies.canonical import StrictJsonError, canonical, strict_loads
from policies.plan import Output
from policies.writes import Judgement, Reason

MAX_REASONS = 16
"""Reasons that are kept for one proposal."""


def record_of(line: bytes) -> dict[str, Any] | None:
    """Return the record of a buffer line, or None when the line is not the canonical form of one strict reading.

    The chain was read with a lenient parser. Threat: a duplicate key or a number of which that parser and the sink's
    reader make different values, so that what was checked is not what is applied.
    """
    try:
        proposal = strict_loads(line)
        if not isinstance(proposal, dict) or canonical(proposal) != line:
            return None
    except (StrictJsonError, ValueError, RecursionError):
        return None
    record = proposal.get("record")
    return record if isinstance(record, dict) else None


def objections(line: bytes, checks: Sequence[Check]) -> list[Reason]:
    """Return what the checks have against a line, at most `MAX_REASONS`; empty means no objection."""
    record = record_of(line)
    reasons: list[Reason] = []
    for check in checks:
        try:
            reasons.extend(check(Candidate(line=line, record=record, clean=not reasons)))
        except Exception as error:  # noqa: BLE001 - a check that fails must not let anything pass; the verdict is the event
            kind = type(error).__name__
            reasons.append(Reason(check=check.name, code="CSM-W009", pointer="", excerpt=f"the check failed: {kind}"))
    if any(reason.code == "CSM-W005" for reason in reasons):
        reasons = [reason if reason.code == "CSM-W005" else _without_text(reason) for reason in reasons]
    return reasons[:MAX_REASONS]


def _without_text(reason: Reason) -> Reason:
    """Return a reason of another check without its pointer: a key in it may be the secret."""
    return Reason(check=reason.check, code=reason.code, pointer="", excerpt="")


def judgement(name: str, output: Output, reasons: Sequence[Reason], set_rejected: bool) -> Judgement:
    """Return the verdict over one proposal. `set_rejected`: some proposal of this output was objected to."""
    held = list(reasons)
    if not held and output.atomic == "batch" and set_rejected:
        why = "the output is written whole or not at all"
        held = [Reason(check="batch", code="CSM-W008", pointer="", excerpt=why)]
    return Judgement(id=name, output=output.name, verdict="reject" if held else "accept", reasons=held)

"""Proposed writes on their way from the gateway's buffer to a verdict at customs.

The buffer of a stage is a file of canonical JSON lines, one `Proposal` each, chained by hash: `prev` is the digest of
the line before, without its newline (of nothing, for the first). The gateway announces each line by an event that has
its digest before it answers the agent, so that the event log vouches for the buffer.
"""

from __future__ import annotations

from typing import Any, Literal

from policies.canonical import digest
from policies.plan import Count, Digest, Frozen, Name

GENESIS = digest(b"")

RESERVED_TOOLS = ("noop", "report_incomplete", "write_status")
"""Tools of every write server; no output may take one of these names."""


class Proposal(Frozen, frozen=True, kw_only=True):
    """One buffered record. `id` is `<stage>-<seq>`; never edited once written."""

    seq: Count
    prev: Digest
    id: str
    stage: Name
    output: Name
    record: dict[str, Any]


class Reason(Frozen, frozen=True, kw_only=True):
    """Why a check objected. `excerpt` never contains the offending value of a secret."""

    check: str
    code: str
    pointer: str
    excerpt: str


class Judgement(Frozen, frozen=True, kw_only=True):
    """The verdict over one proposal, with every reason that was found."""

    id: str
    output: Name
    verdict: Literal["accept", "reject", "hold"]
    reasons: list[Reason]


class Written(Frozen, frozen=True, kw_only=True):
    """What customs produced for one output: the file under /out, for the orchestrator to put in place."""

    output: Name
    file: str
    path: str
    digest: Digest
    rows: Count
    size: Count


class Declaration(Frozen, frozen=True, kw_only=True):
    """The last word of customs, /out/declaration.json: counts, and the files to put in place."""

    plan: Digest
    accepted: dict[str, Count]
    rejected: dict[str, Count]
    written: list[Written]

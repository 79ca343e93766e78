"""Proposed writes on their way from the gateway's buffer to a verdict at customs.

The buffer of a cell is a file of canonical JSON lines, one `Proposal` each, chained by hash: `prev` is the digest of
the line before, without its newline (of nothing, for the first). The gateway announces each line by an event that has
its digest before it answers the agent, so that the event log vouches for the buffer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from policies.canonical import digest
from policies.cells import CELL
from policies.plan import Count, Digest, Distribution, Frozen, Name

GENESIS = digest(b"")

CUSTOMS_CORES = 4
"""Cores that customs works on at most: with each, it takes about 100 MB of its 1 GiB of memory."""

RESERVED_TOOLS = ("noop", "propose_file", "report_incomplete", "write_status")
"""Tools of every write server; no output may take one of these names."""


PROPOSAL_ID = CELL + r"-(0|[1-9][0-9]{0,8})"
"""What a field of `format: proposal-id` holds: the id of an earlier proposal, as the write server gave it."""

FILE_PATH = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,9}"
"""A path below /workspace at which a set may lie: plain names, none of them hidden."""


class SetFile(Frozen, frozen=True, kw_only=True):
    """A set of records as a file: JSON lines at `path` below /workspace, copied when the stage has ended."""

    path: str


class Proposal(Frozen, frozen=True, kw_only=True, omit_defaults=True):
    """One buffered record, or one `file` of them (then `record` is empty). `id` is `<cell>-<seq>`; never edited."""

    seq: Count
    prev: Digest
    id: str
    stage: Name
    shard: Count | None = None
    output: Name
    record: dict[str, Any]
    file: SetFile | None = None


def references(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the top-level fields of a record that name an earlier proposal: texts of `format: proposal-id`."""
    fields = schema.get("properties", {})
    return tuple(sorted(n for n, f in fields.items() if isinstance(f, Mapping) and f.get("format") == "proposal-id"))


def place_of(proposal: object) -> tuple[str, int] | None:
    """Return the cell and the number in a proposal's id; None for anything else."""
    if not isinstance(proposal, str) or not re.fullmatch(PROPOSAL_ID, proposal):
        return None
    cell, _, number = proposal.rpartition("-")
    return cell, int(number)


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
    held: list[Written] = msgspec.field(default_factory=list)
    """Rows that wait for a person, as canonical JSON lines; their path is where they would go."""
    values: dict[str, dict[str, Distribution]] = msgspec.field(default_factory=dict)
    """What the accepted rows are like, by output and field, where the plan asks for a history."""

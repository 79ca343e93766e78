"""Whether a record may enter the buffer: schema, then rows, then bytes. Pure.

Only these verdicts reach the agent at once. Everything else stays inside customs, so that it cannot probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.schema import Problem
from policies.plan import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What an output has taken up in this run, over all stages: rows and bytes of buffer lines."""

    rows: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why a record stays out: an error code, where (pointers and keywords, never values), and what to do instead."""

    code: str
    where: str
    hint: str


def admit(output: Output, problems: Sequence[Problem], used: Used, line_size: int) -> Denial | None:
    """Return None when a record whose buffer line has `line_size` bytes may be appended, else the denial."""
    if problems:
        where = ", ".join(f"{problem.pointer or '/'}: {problem.keyword}" for problem in problems)
        return Denial(code="CSM-G006", where=where, hint="correct the named fields and propose the record again")
    if used.rows >= output.per_run:
        return Denial(
            code="CSM-W002",
            where=f"{output.per_run} records a run",
            hint="stop proposing; what is buffered stays buffered",
        )
    if used.size + line_size > output.max_bytes:
        return Denial(
            code="CSM-G010",
            where=f"{output.max_bytes} bytes a run",
            hint="propose smaller records or stop; what is buffered stays buffered",
        )
    return None

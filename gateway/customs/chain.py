"""Is this the buffer that the event log vouches for? Reads it once, line by line.

Threat: whoever can reach the file between gateway and customs edits, drops, repeats, reorders or adds a line. The chain
ties every line to the one before, and the log gives the digest of the last; so all lines are there, in order, or none
is believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from policies.canonical import digest
from policies.cells import CELL, in_order, parted
from policies.errors import CasemateError
from policies.writes import GENESIS, Proposal, SetFile

MAX_LINE = 8 * 1024 * 1024
"""Bytes of one line: a body of the gateway's 1 MiB, grown by canonical numbers and escapes, fits."""

FACT = "buffer/"
_NAME = re.compile(CELL)


class _Line(Proposal, frozen=True, kw_only=True, omit_defaults=True):
    """A proposal whose record is left as it was written."""

    record: msgspec.Raw  # type: ignore[assignment]


_decoder = msgspec.json.Decoder(_Line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a buffer: the proposal's id and output, and the exact bytes of its record, or the file of records."""

    id: str
    output: str
    record: bytes
    file: SetFile | None


def expected(facts: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the expected last digest of every cell's buffer in `folder`, in order of their names.

    Raises CSM-W007 when a buffer has no fact, or a fact that promises lines has no buffer.
    """
    promised: dict[str, str] = {}
    for name, last in sorted(facts.items()):
        if name.startswith(FACT):
            stage = name.removeprefix(FACT)
            if not _NAME.fullmatch(stage):
                raise broken(stage[:40], "not the name of a cell")
            promised[stage] = last
    found = {path.name.removesuffix(".jsonl") for path in folder.glob("*.jsonl")} if folder.is_dir() else set()
    for stage in sorted(found - promised.keys()):
        raise broken(stage[:40], "the event log does not vouch for this buffer")
    for stage, last in promised.items():
        if stage not in found and last != GENESIS:
            raise broken(stage, "the buffer is missing")
    return {cell: promised[cell] for cell in in_order(promised.keys() & found)}


def rows(path: Path, stage: str, last: str) -> Iterator[Row]:
    """Yield the rows of a buffer; raise CSM-W007 at the first that does not follow, or at an end other than `last`."""
    prev, seq = GENESIS, 0
    if path.is_symlink() or not path.is_file():
        raise broken(stage, "not a regular file")
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE + 1):
            if not raw.endswith(b"\n"):
                raise broken(stage, f"line {seq} is cut off or over {MAX_LINE} bytes")
            line = raw[:-1]
            proposal = _decode(line, stage, seq)
            place = (proposal.seq, proposal.prev, proposal.id, (proposal.stage, proposal.shard))
            if place != (seq, prev, f"{stage}-{seq}", parted(stage)):
                raise broken(stage, f"line {seq} does not follow the line before")
            record = bytes(proposal.record)
            yield Row(id=proposal.id, output=proposal.output, record=record, file=proposal.file)
            prev, seq = digest(line), seq + 1
    if prev != last:
        raise broken(stage, "the last line is not the one that the event log has")


def broken(stage: str, why: str) -> CasemateError:
    """Return the refusal of a whole buffer."""
    hint = "the run's writes cannot be trusted; nothing was written"
    return CasemateError("CSM-W007", why, place=f"buffer of {stage}", hint=hint)


def _decode(line: bytes, stage: str, seq: int) -> _Line:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise broken(stage, f"line {seq} is not a proposal") from error

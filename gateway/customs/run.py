"""The order of customs. Nothing is written before every buffer has been verified; the declaration is written last.

1. verify - every line of every buffer, against the last digests that the event log has;
2. judge  - every proposal by its output's checks; what they object to goes to an unnamed file, not to memory;
3. apply  - verdicts, quarantine and the accepted rows; events of what was rejected;
4. declare - manifests, one summary event an output, then `declaration.json`, atomically.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from gateway.customs.chain import Row, broken, expected, rows
from gateway.customs.checks.base import Check, Hindsight
from gateway.customs.checks.registry import checks_for
from gateway.customs.columns import Columns
from gateway.customs.dataset import Dataset
from gateway.customs.judge import judgement, objections, record_of
from gateway.customs.scan.redact import redact
from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import Scanner
from gateway.customs.scan.values import needles
from policies.canonical import canonical, digest, digest_of
from policies.errors import CasemateError
from policies.events import EventWriter
from policies.plan import Output
from policies.slices import Birth, CustomsSlice
from policies.vocabulary import EventName, Verdict
from policies.writes import Declaration, Judgement, Reason, Written

MAX_EVENTS = 1_000
"""Rejected proposals that get an event each; the summary event of an output counts all."""

_reasons = msgspec.json.Decoder(list[Reason])


@dataclass(slots=True)
class _Tally:
    """What pass 2 learns about an output before pass 3 writes."""

    rejected: int = 0
    extra: bool = False
    late: Mapping[int, Reason] = field(default_factory=dict)
    seen: int = 0


@dataclass(slots=True)
class _Result:
    accepted: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    codes: dict[str, Counter[str]] = field(default_factory=dict)


def run(birth: Birth, part: CustomsSlice, root: Path, emit: EventWriter) -> None:
    """Judge and write; raise `CasemateError` when the buffers or the sink are not as they must be."""
    folder, out = root / "in", root / "out"
    outputs = {output.name: output for output in part.outputs}
    scanner = Scanner(load(), needles(birth.secrets))
    mark_key = secrets.token_bytes(32)
    checks = {name: checks_for(output, scanner, mark_key) for name, output in outputs.items()}
    if not out.is_dir() or any(out.iterdir()):
        raise CasemateError("CSM-W010", "the out directory is missing or not empty", place="customs")
    buffers = expected(birth.facts, folder)
    _verify(folder, buffers, outputs)
    with tempfile.TemporaryFile(dir=out) as spill:
        tallies = _judge(_all(folder, buffers), checks, outputs, spill)
        spill.seek(0)
        datasets = {name: Dataset(out, outputs[name], extra=tally.extra) for name, tally in tallies.items()}
        result = _apply(_all(folder, buffers), spill, tallies, outputs, datasets, scanner, out, emit)
    _declare(birth, outputs, datasets, result, out, emit)


def _all(folder: Path, buffers: Mapping[str, str]) -> Iterator[Row]:
    for stage, last in buffers.items():
        yield from rows(folder / f"{stage}.jsonl", stage, last)


def _verify(folder: Path, buffers: Mapping[str, str], outputs: Mapping[str, Output]) -> None:
    for row in _all(folder, buffers):
        if row.proposal.output not in outputs:
            raise broken(row.proposal.stage, "a proposal for an output that the plan does not have")
        if row.proposal.file is not None:
            raise CasemateError("CSM-W010", "files of records are not judged yet", place="customs")


def _judge(
    lines: Iterator[Row], checks: Mapping[str, list[Check]], outputs: Mapping[str, Output], spill: IO[bytes]
) -> dict[str, _Tally]:
    tallies = {name: _Tally() for name in outputs}
    columns = {name: Columns(output.schema) for name, output in outputs.items()}
    for row in lines:
        name = row.proposal.output
        reasons = objections(row.line, checks[name])
        tallies[name].rejected += bool(reasons)
        tallies[name].extra |= not reasons and bool(columns[name].unnamed(row.proposal.record))
        spill.write(msgspec.json.encode(reasons) + b"\n")
    for name, tally in tallies.items():
        for check in checks[name]:
            if isinstance(check, Hindsight):
                tally.late = check.late()
                tally.rejected += len(tally.late)
    return tallies


def _apply(
    lines: Iterator[Row],
    spill: IO[bytes],
    tallies: Mapping[str, _Tally],
    outputs: Mapping[str, Output],
    datasets: Mapping[str, Dataset],
    scanner: Scanner,
    out: Path,
    emit: EventWriter,
) -> _Result:
    result, told = _Result(codes={name: Counter() for name in outputs}), 0
    with (out / "verdicts.jsonl").open("xb") as verdicts, (out / "quarantine.jsonl").open("xb") as quarantine:
        for row in lines:
            proposal = row.proposal
            reasons, tally = _reasons.decode(spill.readline()), tallies[proposal.output]
            if late := tally.late.get(tally.seen):
                reasons.append(late)
            tally.seen += 1
            verdict = judgement(proposal.id, outputs[proposal.output], reasons, tally.rejected > 0)
            verdicts.write(canonical(msgspec.to_builtins(verdict)) + b"\n")
            record = record_of(row.line)
            if verdict.verdict == "accept" and record is not None:
                datasets[proposal.output].add(record)
                result.accepted[proposal.output] += 1
                continue
            result.rejected[proposal.output] += 1
            result.codes[proposal.output][verdict.reasons[0].code] += 1
            quarantine.write(_quarantined(row, verdict, scanner) + b"\n")
            if told < MAX_EVENTS:
                told += 1
                _tell(emit, proposal.stage, verdict)
    return result


def _quarantined(row: Row, verdict: Judgement, scanner: Scanner) -> bytes:
    """Return the line that is kept of a rejected proposal: itself, or what remains when its secrets are taken out."""
    record = record_of(row.line)
    if record is None:
        kept: dict[str, object] = {"[undecodable]": f"{len(row.line)} bytes, {digest(row.line)}"}
    else:
        findings = scanner.findings(record)
        if findings:
            kept = redact(record, findings, scanner)
        elif any(reason.code == "CSM-W005" for reason in verdict.reasons):
            kept = {"[redacted]": "whole record: a part of a secret"}
        else:
            return row.line
    return canonical({**msgspec.to_builtins(row.proposal), "record": kept})


def _tell(emit: EventWriter, stage: str, verdict: Judgement) -> None:
    first = verdict.reasons[0]
    emit(
        EventName.WRITE_JUDGED,
        stage=stage,
        verdict=Verdict.REJECT,
        rule=first.code,
        reason=first.excerpt or first.check,
        attrs={
            "casemate.output": verdict.output,
            "casemate.write.id": verdict.id,
            "casemate.write.pointer": first.pointer[:500],
            "casemate.check": first.check,
        },
    )


def _declare(
    birth: Birth,
    outputs: Mapping[str, Output],
    datasets: Mapping[str, Dataset],
    result: _Result,
    out: Path,
    emit: EventWriter,
) -> None:
    written: list[Written] = []
    for name, output in outputs.items():
        dataset = datasets[name]
        done = dataset.finish()
        if done:
            about = {"output": name, "plan": birth.seal.plan, "run": birth.run, "rows": dataset.rows}
            schema = {"schema": digest_of(output.schema), "file": dataset.name, "format": output.format}
            _place(out / f"{name}.manifest.json", canonical({**about, **schema, **done}))
            entry = {"output": name, "file": dataset.name, "path": output.path, "digest": done["sha256"]}
            written.append(Written(**entry, rows=dataset.rows, size=done["size"]))
        _summarise(emit, name, result, done["sha256"] if done else None)
    declaration = Declaration(
        plan=birth.seal.plan,
        accepted={name: result.accepted[name] for name in outputs},
        rejected={name: result.rejected[name] for name in outputs},
        written=written,
    )
    _place(out / "declaration.json", canonical(msgspec.to_builtins(declaration)))


def _summarise(emit: EventWriter, name: str, result: _Result, sha256: str | None) -> None:
    accepted, rejected = result.accepted[name], result.rejected[name]
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(result.codes[name].items()))
    emit(
        EventName.WRITE_JUDGED,
        verdict=Verdict.REJECT if rejected and not accepted else Verdict.ACCEPT,
        rule=next(iter(sorted(result.codes[name])), None),
        reason=codes or None,
        attrs={
            "casemate.output": name,
            "casemate.write.count": accepted + rejected,
            "casemate.write.accepted": accepted,
            "casemate.write.rejected": rejected,
            "casemate.digest": sha256,
        },
    )


def _place(path: Path, data: bytes) -> None:
    """Write a file so that under its name it is whole or absent; raise CSM-W010 when it cannot be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise CasemateError("CSM-W010", f"{error.strerror}", place=path.name) from error

"""Verdicts, quarantine and sinks: what is done with every row, and how often."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec
import orjson

from gateway.customs.dataset import Dataset, Held
from gateway.customs.judge import judgement
from gateway.customs.scan.redact import redact
from gateway.customs.scan.scanner import Scanner
from gateway.customs.settle import Settlement
from gateway.customs.spool import Spool, Spooled
from policies.canonical import canonical
from policies.errors import CasemateError
from policies.events import EventWriter
from policies.plan import Output
from policies.vocabulary import EventName, Verdict
from policies.writes import Judgement, Reason

APPROVED = "approved/"
MAX_EVENTS = 1_000
"""Rejected rows that get an event each; the summary event of an output counts all."""


@dataclass(slots=True)
class Count:
    """How many rows of an output got which verdict, and for which code."""

    accepted: int = 0
    rejected: int = 0
    held: int = 0
    codes: Counter[str] = field(default_factory=Counter)


class Ledger:
    """Takes the verdict over every row, and keeps what it leads to. A context: its files are open inside it."""

    def __init__(
        self, out: Path, outputs: Mapping[str, Output], scanner: Scanner, emit: EventWriter, facts: Mapping[str, str]
    ) -> None:
        """`facts` say, as `approved/<output>`, the digest of the rows that a person has seen and approved."""
        self._out, self._outputs, self._scanner, self._emit = out, outputs, scanner, emit
        self._approved = {n.removeprefix(APPROVED): d for n, d in facts.items() if n.startswith(APPROVED)}
        self._seen = {name: hashlib.sha256() for name in self._approved}
        self._stack, self._told = ExitStack(), 0
        self.counts = {name: Count() for name in outputs}
        self.datasets: dict[str, Dataset] = {}
        self.held: dict[str, Held] = {}

    def __enter__(self) -> Ledger:
        self._verdicts: IO[bytes] = self._stack.enter_context((self._out / "verdicts.jsonl").open("xb"))
        self._quarantine: IO[bytes] = self._stack.enter_context((self._out / "quarantine.jsonl").open("xb"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def apply(self, spool: Spool, settled: Mapping[str, Settlement]) -> None:
        """Judge every chunk of a spool in the light of its output's settlement."""
        for name, output in self._outputs.items():
            self.datasets[name] = Dataset(self._out, output, extra=name in spool.open)
            self.held[name] = Held(self._out, output)
        bad = {name for name, settlement in settled.items() if settlement.any} | spool.rejected
        done = {name for name in spool.whole if settled[name].clean and self.datasets[name].lines}
        for name in done:
            self.datasets[name].adopt(spool.path(name), settled[name].rows, spool.sha256(name))
            self.counts[name].accepted += settled[name].rows
        for chunk, rows, reasons in spool.read(self._outputs.keys() - done):
            self._chunk(chunk, rows, reasons, settled[chunk.output], chunk.output in bad)
        for name, seen in self._seen.items():
            if f"sha256:{seen.hexdigest()}" != self._approved[name]:
                why = "the rows that wait are not those that were approved"
                raise CasemateError("CSM-W018", why, place=f"output {name}")

    def _chunk(
        self,
        chunk: Spooled,
        rows: bytes,
        reasons: Mapping[int, list[Reason]],
        settlement: Settlement,
        set_rejected: bool,
    ) -> None:
        output = self._outputs[chunk.output]
        late = settlement.between(chunk.first, chunk.count)
        whole = output.atomic == "each" or not set_rejected
        singly = settlement.waits or not chunk.names.set
        if not reasons and not late and whole and not singly:
            self._accept(output, rows, chunk.count)
            return
        accepted = []
        for number, form in enumerate(rows.split(b"\n")[:-1]):
            found = list(reasons.get(number, ()))
            if chunk.first + number in late:
                found += settlement.reasons(chunk.first + number)
            verdict = judgement(chunk.names.of(number), output, found, set_rejected, waits=settlement.waits)
            if verdict.verdict != "accept" or found or not chunk.names.set:
                self._verdicts.write(canonical(msgspec.to_builtins(verdict)) + b"\n")
            match verdict.verdict:
                case "accept":
                    accepted.append(form)
                case "hold" if output.name in self._approved:
                    self._seen[output.name].update(form + b"\n")
                    accepted.append(form)
                case "hold":
                    self._hold(chunk, form, verdict)
                case _:
                    self._reject(chunk, form, verdict)
        self._accept(output, b"".join(form + b"\n" for form in accepted), len(accepted))

    def _accept(self, output: Output, rows: bytes, count: int) -> None:
        self.datasets[output.name].add(rows, count)
        self.counts[output.name].accepted += count

    def _hold(self, chunk: Spooled, form: bytes, verdict: Judgement) -> None:
        count = self.counts[chunk.output]
        count.held += 1
        count.codes[verdict.reasons[0].code] += 1
        self.held[chunk.output].add(form)

    def _reject(self, chunk: Spooled, form: bytes, verdict: Judgement) -> None:
        count = self.counts[chunk.output]
        count.rejected += 1
        count.codes[verdict.reasons[0].code] += 1
        self._quarantine.write(self._quarantined(chunk, form, verdict) + b"\n")
        if self._told < MAX_EVENTS:
            self._told += 1
            _tell(self._emit, chunk.stage, verdict)

    def _quarantined(self, chunk: Spooled, form: bytes, verdict: Judgement) -> bytes:
        """Return the line that is kept of a rejected row: itself, or what remains when its secrets are taken out."""
        record = orjson.loads(form) if form else None
        if record is None:
            kept: dict[str, object] = {"[undecodable]": "it has not one strict reading"}
        elif findings := self._scanner.findings(record):
            kept = redact(record, findings, self._scanner)
        elif any(reason.code == "CSM-W005" for reason in verdict.reasons):
            kept = {"[redacted]": "whole record: a part of a secret"}
        else:
            kept = record
        about = {"id": verdict.id, "stage": chunk.stage, "output": chunk.output, "record": kept}
        return orjson.dumps(about, option=orjson.OPT_SORT_KEYS)


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

"""The order of customs. Nothing is settled before everything that was proposed has been verified.

1. verify - every line of every buffer against the digests that the event log has, and every file while it is read;
2. examine - every row by its output's checks, over all cores; rows and reasons go to files, not to memory;
3. settle - what only all rows of an output together show;
4. apply - verdicts, quarantine, the accepted rows, and those that wait for a person; events of what was rejected;
5. declare - manifests, one summary event an output, then `declaration.json`, atomically.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from gateway.customs.bench import Bench, Found, Place
from gateway.customs.declare import declare
from gateway.customs.examine import examiner
from gateway.customs.history import tightened
from gateway.customs.intake import Chunk, Intake
from gateway.customs.ledger import Ledger
from gateway.customs.pool import crew
from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import Scanner
from gateway.customs.scan.values import needles
from gateway.customs.settle import Settlement
from gateway.customs.spool import Spool
from policies.canonical import digest
from policies.errors import CasemateError
from policies.events import EventWriter
from policies.plan import Output
from policies.probes import read_probes
from policies.slices import Birth, CustomsSlice
from policies.writes import CUSTOMS_CORES

PROBES = "probes"
SMALL = 4 << 20
"""Bytes up to which one process is faster than starting others."""
_BENCHES = 2
"""Chunks that one process has at a time: one that it works on, and others that wait for their turn."""


def run(birth: Birth, part: CustomsSlice, root: Path, emit: EventWriter) -> None:
    """Judge and write; raise `CasemateError` when what was proposed, or the folder, is not as it must be."""
    folder, out = root / "in", root / "out"
    outputs = {output.name: output for output in part.outputs}
    known, mark_key = needles(birth.secrets), secrets.token_bytes(32)
    if not out.is_dir() or any(out.iterdir()):
        raise CasemateError("CSM-W010", "the out directory is missing or not empty", place="customs")
    intake = Intake(folder, birth.facts, outputs)
    examiners = {
        name: examiner(tightened(output, birth.facts), known, mark_key, _probes(output, folder / PROBES))
        for name, output in outputs.items()
    }
    cores = 1 if intake.size <= SMALL else min(len(os.sched_getaffinity(0)), CUSTOMS_CORES)
    with Spool(out, outputs) as spool:
        settled = {name: Settlement(output, known, mark_key, out, birth.facts) for name, output in outputs.items()}
        mine, *others = ([Bench(examiners, spool, settled) for _ in range(_BENCHES)] for _ in range(cores))

        def take(bench: Bench, chunk: Chunk, found: Found) -> Place:
            intake.saw(chunk, bench.given(chunk))
            first = settled[chunk.output].add(chunk, found.examined)
            return Place(first, spool.add(chunk, found.examined, bench.made(found)))

        with crew(mine, others) as many:
            many(intake.chunks(), take)
        intake.verify()
        for settlement in settled.values():
            settlement.close()
        _resolve(spool, settled)
        ledger = Ledger(out, outputs, Scanner(load(), known), emit, birth.facts)
        with ledger:
            ledger.apply(spool, settled)
    declare(
        birth, outputs, ledger, {name: s.values.distributions() for name, s in settled.items() if s.values}, out, emit
    )


def _probes(output: Output, folder: Path) -> dict[str, str]:
    """Return the probes of an output by where they stand; raise CSM-W019 when a file is not as the plan has it."""
    probes: dict[str, str] = {}
    for item in output.probes:
        try:
            data = (folder / item.digest.removeprefix("sha256:")).read_bytes()
        except OSError:
            data = b""
        if digest(data) != item.digest:
            raise CasemateError("CSM-W019", f"the probes {item.path} are not those of the plan", place="customs")
        probes |= {f"{item.path}:{line}": text for line, text in read_probes(item.path, data)}
    return probes


def _resolve(spool: Spool, settled: Mapping[str, Settlement]) -> None:
    """Find the rows whose referents are not written. Costs a pass over the reasons, where a row refers to any."""
    if not any(settlement.refers for settlement in settled.values()):
        return
    written: set[str] = set()
    names: dict[str, dict[int, str]] = {name: {} for name in settled}
    for chunk, objected in spool.proposals():
        late = settled[chunk.output].between(chunk.first, chunk.count)
        for row, name in enumerate(chunk.names.ids):
            names[chunk.output][chunk.first + row] = name
            if row not in objected and chunk.first + row not in late:
                written.add(name)
    # each round rejects a row or is the last: who refers to a row that was rejected is rejected in the next
    while any(settlement.resolve(written, names[name]) for name, settlement in settled.items()):
        pass

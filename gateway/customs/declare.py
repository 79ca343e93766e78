"""The last word of customs: manifests, a summary event for each output, and the declaration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.customs.ledger import Count, Ledger
from policies.canonical import canonical, digest_of
from policies.errors import CasemateError
from policies.events import EventWriter
from policies.plan import Distribution, Output
from policies.slices import Birth
from policies.vocabulary import EventName, Verdict
from policies.writes import Declaration, Written


def declare(
    birth: Birth,
    outputs: Mapping[str, Output],
    ledger: Ledger,
    values: Mapping[str, dict[str, Distribution]],
    out: Path,
    emit: EventWriter,
) -> None:
    """Finish the files, tell of every output, and write `declaration.json` last."""
    written: list[Written] = []
    held: list[Written] = []
    for name, output in outputs.items():
        dataset = ledger.datasets[name]
        done = dataset.finish()
        if done:
            about = {"output": name, "plan": birth.seal.plan, "run": birth.run, "rows": dataset.rows}
            schema = {"schema": digest_of(output.schema), "file": dataset.name, "format": output.format}
            _place(out / f"{name}.manifest.json", canonical({**about, **schema, **done}))
            entry = {"output": name, "file": dataset.name, "path": output.path, "digest": done["sha256"]}
            written.append(Written(**entry, rows=dataset.rows, size=done["size"]))
        if (waiting := ledger.held[name].finish()) is not None:
            held.append(waiting)
        _summarise(emit, name, ledger.counts[name], done["sha256"] if done else None)
    declaration = Declaration(
        plan=birth.seal.plan,
        accepted={name: count.accepted for name, count in ledger.counts.items()},
        rejected={name: count.rejected for name, count in ledger.counts.items()},
        written=written,
        held=held,
        values=dict(values),
    )
    _place(out / "declaration.json", canonical(msgspec.to_builtins(declaration)))


def _summarise(emit: EventWriter, name: str, count: Count, sha256: str | None) -> None:
    codes = ", ".join(f"{code}: {number}" for code, number in sorted(count.codes.items()))
    emit(
        EventName.WRITE_JUDGED,
        verdict=Verdict.ACCEPT if count.accepted or not count.rejected + count.held else Verdict.REJECT,
        rule=next(iter(sorted(count.codes)), None),
        reason=codes or None,
        attrs={
            "casemate.output": name,
            "casemate.write.count": count.accepted + count.rejected + count.held,
            "casemate.write.accepted": count.accepted,
            "casemate.write.rejected": count.rejected,
            "casemate.write.held": count.held,
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

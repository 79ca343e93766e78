"""Files that customs judges by are read before a run is begun, and stay with it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from policies.canonical import digest
from policies.errors import CasemateError
from policies.plan import Plan, ProbeFile
from sandbox.baseline import policies_digest
from sandbox.cells.supplies import PROBES, keep_probes, kept_probes, read_probes
from sandbox.durable.runner import run_plan
from sandbox.records.store import Options, Store
from tests.plans import plan
from tests.stand_in import StandIn, images_of

CONTENT = b"A question that nobody is taught the answer to, for it is asked at the end.\n"
NAME = digest(CONTENT).removeprefix("sha256:")


def judged(root: Path) -> Plan:
    """A plan whose rows are judged by a file of probes, which lies twice in `root`."""
    base = plan()
    probes = []
    for name in ("evals.txt", "copy.txt"):
        (root / name).write_bytes(CONTENT)
        probes.append(ProbeFile(path=name, digest=digest(CONTENT)))
    output = msgspec.structs.replace(base.outputs[0], probes=probes)
    source = msgspec.structs.replace(base.source, policies=policies_digest())
    return images_of(msgspec.structs.replace(base, source=source, secrets=[], inputs=[], outputs=[output]))


def test_probes_that_are_others_than_those_compiled_leave_no_run_behind(tmp_path: Path) -> None:
    made, store = judged(tmp_path), Store(tmp_path / ".casemate")
    for name in ("evals.txt", "copy.txt"):
        (tmp_path / name).write_bytes(CONTENT.lower())
    (tmp_path / "engine").mkdir()
    engine = StandIn(tmp_path / "engine", lambda _cell: 0)
    with pytest.raises(CasemateError, match="not what was compiled"):
        run_plan(engine, made, store, lambda _event, _tally: None, Options(root=str(tmp_path)))  # type: ignore[arg-type]
    assert store.runs() == []
    assert engine.labelled() == []


def test_probes_stay_with_a_run_and_what_a_crash_left_out_is_added(tmp_path: Path) -> None:
    made, folder = judged(tmp_path), tmp_path / "run"
    (folder / PROBES).mkdir(parents=True)
    (folder / PROBES / f".{NAME}.part").write_bytes(CONTENT[:9])
    assert kept_probes(folder) == {}, "a part of a file is none"
    keep_probes(read_probes(made, tmp_path, folder), folder)
    for name in ("evals.txt", "copy.txt"):
        (tmp_path / name).unlink()
    assert read_probes(made, tmp_path, folder) == {}, "what it has is not read again"
    assert kept_probes(folder) == {f"{PROBES}/{NAME}": CONTENT}

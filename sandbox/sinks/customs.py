"""Customs judges what the agents proposed, and what it accepts is kept with the run, to be applied.

Customs starts when no agent, no gateway and no proxy of the run is left. It has no network. What it wrote is carried
out by copy, and verified against its own declaration.
"""

from __future__ import annotations

import shutil
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

from policies.cells import in_order
from policies.errors import CasemateError
from policies.plan import Plan, decode
from policies.slices import Birth
from policies.vocabulary import Component, ExitCode
from policies.writes import GENESIS, Declaration
from sandbox.archives import TooLargeError, keep_files, tar_stream, write_durably
from sandbox.cells import volumes
from sandbox.cells.driver import Driver
from sandbox.cells.sets import FOLDER
from sandbox.cells.supplies import kept_probes
from sandbox.engine.docker import Engine
from sandbox.sinks import applying
from sandbox.topology.layout import Topology

JUDGE_S = 3600
OUT = "out"
_FILE_BYTES = 1 << 40


def judge(
    driver: Driver,
    plan: Plan,
    birth: Birth,
    lay: Topology,
    buffers: dict[str, bytes],
    sets: Mapping[str, str],
    folder: Path,
) -> Declaration:
    """Let customs judge every buffered write. Raises `CasemateError` when it fails, or declares what it did not do.

    `sets`: digests of the files of records, by proposal, which lie below the run's `folder`.
    """
    heads = _heads(driver, buffers)
    facts = birth.facts | heads | {f"set/{name}": value for name, value in sets.items()}
    birth = Birth(run=birth.run, seal=birth.seal, slice=birth.slice, secrets=birth.secrets, facts=facts)
    wanted = {f"{cell}.jsonl": buffers[cell] for cell in buffers if f"buffer/{cell}" in heads}
    small = wanted | kept_probes(folder)
    volumes.carry(driver.engine, lay, {f"in/{path}": content for path, content in small.items()})
    if sets:
        taken = {f"in/{FOLDER}/{name}.jsonl": folder / FOLDER / f"{name}.jsonl" for name in sets}
        driver.engine.put(lay.carrier.name, tar_stream(taken))
    name = lay.customs.name
    driver.launch(lay.customs, Component.CUSTOMS, birth)
    driver.release(name)
    how = driver.await_end(name, time.monotonic() + JUDGE_S)
    if how is None or how.code != 0:
        driver.engine.kill(name)
        said = driver.engine.logs(name, stdout=False, tail=5).decode(errors="replace").strip()
        message = f"customs ended with {how.code if how else 'no verdict in time'}: {said[-300:]}"
        raise CasemateError("CSM-W019", message, exit_code=ExitCode.STAGE_FAILED)
    _keep(driver.engine, lay.carrier.name, plan, birth.seal.plan, folder)
    return judged(folder)


def _keep(engine: Engine, carrier: str, plan: Plan, seal: str, folder: Path) -> None:
    """Copy what customs wrote into the run's folder, after checking it against what customs declared."""
    try:
        with engine.reading(carrier, "/out") as archive:
            files = keep_files(archive, folder / OUT, _FILE_BYTES)
    except (TooLargeError, tarfile.TarError, OSError) as error:
        raise CasemateError("CSM-W019", f"what customs wrote cannot be taken: {type(error).__name__}") from error
    if "declaration.json" not in files:
        raise CasemateError("CSM-W019", "customs declared nothing", exit_code=ExitCode.STAGE_FAILED)
    said = files["declaration.json"].path.read_bytes()
    declared = decode(said.removesuffix(b"\n"), Declaration, code="CSM-W019", place="customs")
    if declared.plan != seal:
        raise CasemateError("CSM-W019", "customs judged another plan")
    write_durably(folder / "declaration.json", said)
    for name in ("verdicts.jsonl", "quarantine.jsonl"):
        if name in files:
            files[name].path.replace(folder / "quarantine" / name)
    applying.keep(folder, plan, declared.written, files)
    applying.keep_held(folder, declared.held, files)
    shutil.rmtree(folder / OUT)


def judged(folder: Path) -> Declaration:
    """Return what customs decided of a run's writes, as it is kept with the run."""
    data = (folder / "declaration.json").read_bytes()
    return decode(data.removesuffix(b"\n"), Declaration, code="CSM-W019", place="customs")


def _heads(driver: Driver, buffers: dict[str, bytes]) -> dict[str, str]:
    """Return what the event log vouches for: the digest of the last line of each cell's buffer."""
    heads = driver.account.heads
    cells = {*heads, *(cell for cell, content in buffers.items() if content)}
    return {f"buffer/{cell}": heads.get(cell, GENESIS) for cell in in_order(cells)}

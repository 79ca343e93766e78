"""Customs judges what the agents proposed, and what it accepts is kept with the run, to be applied.

Customs starts when no agent, no gateway and no proxy of the run is left. It has no network. What it wrote is carried
out by copy, and verified against its own declaration.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from policies.cells import in_order
from policies.errors import CasemateError
from policies.plan import Plan, decode
from policies.slices import Birth
from policies.vocabulary import Component, ExitCode
from policies.writes import GENESIS, Declaration
from sandbox import applying
from sandbox.archives import TooLargeError, keep_files, tar_of, write_durably
from sandbox.driver import Driver
from sandbox.engine import Engine
from sandbox.sets import FOLDER
from sandbox.specs import DOORS_GID, UIDS
from sandbox.supplies import kept_probes
from sandbox.topology import Topology

JUDGE_S = 3600
RECORDING = "recording"
OUT = "out"
_OUT_BYTES = 2 << 30
_FILE_BYTES = 1 << 40


def own_archive() -> bytes:
    """Return the archive that, unpacked at /, gives the run's volumes on disk to the processes that write them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, owner in (("buffer", "gateway"), ("in", "customs"), ("out", "customs"), ("recording", "llm")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o750, UIDS[owner], DOORS_GID
            archive.addfile(entry)
    return buffer.getvalue()


def take_buffer(engine: Engine, carrier: str, cell: str, folder: Path) -> None:
    """Copy the write buffer of a cell, to which nobody can add now, out of the gateway's volume."""
    archive = engine.get(carrier, f"/buffer/{cell}.jsonl", _OUT_BYTES)
    for content in read_tar(archive, "").values():
        write_durably(folder / "writes" / f"{cell}.jsonl", content)


def buffers_of(cells: Iterable[str], folder: Path) -> dict[str, bytes]:
    """Return the write buffers that a run has kept of some cells."""
    paths = {cell: folder / "writes" / f"{cell}.jsonl" for cell in cells}
    return {cell: path.read_bytes() for cell, path in paths.items() if path.exists()}


def take_recording(engine: Engine, carrier: str, folder: Path) -> None:
    """Copy what the llm proxy recorded out of its volume, but for a line that was cut short."""
    files = read_tar(engine.get(carrier, "/recording", _OUT_BYTES), "recording")
    (folder / RECORDING).mkdir(mode=0o700, exist_ok=True)
    for name, content in files.items():
        if whole := content[: content.rfind(b"\n") + 1]:
            write_durably(folder / RECORDING / PurePosixPath(name).name, whole)


def recorded(folder: Path) -> dict[str, bytes]:
    """Return the recording of a run so far, by file."""
    return {path.name: path.read_bytes() for path in sorted((folder / RECORDING).glob("*.jsonl"))}


def recorded_whole(folder: Path) -> dict[str, bytes]:
    """Return the recording of a run that is to be replayed, by file; raise CSM-R023 when there is none."""
    files = recorded(folder)
    if not files:
        hint = "record one: casemate run --record"
        raise CasemateError("CSM-R023", f"{folder.name} has no recording", hint=hint, exit_code=ExitCode.USAGE)
    return files


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
    driver.engine.put(lay.carrier.name, "/in", tar_of(wanted | kept_probes(folder)))
    taken = {f"{FOLDER}/{name}.jsonl": folder / FOLDER / f"{name}.jsonl" for name in sets}
    if taken:
        driver.engine.put_files(lay.carrier.name, "/in", taken)
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


def read_tar(archive: bytes, prefix: str) -> dict[str, bytes]:
    """Return the regular files of an archive of the folder `prefix`, by name."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for info in tar:
            if info.isreg():
                content = tar.extractfile(info)
                files[str(PurePosixPath(info.name).relative_to(prefix))] = content.read() if content else b""
    return files

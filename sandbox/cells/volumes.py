"""Volumes of a run: made ready for the processes that write them, and what they hold copied out, to be kept with it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.archives import Entry, tar_of, write_durably
from sandbox.engine.docker import Engine
from sandbox.topology.layout import Topology
from sandbox.topology.specs import DOORS_GID, UIDS

RECORDING = "recording"
_OUT_BYTES = 2 << 30


_OWNERS = {"buffer": "gateway", "in": "customs", "out": "customs", RECORDING: "llm"}
"""Who writes the volumes of a run that are on disk."""


def carry(engine: Engine, lay: Topology, files: Mapping[str, bytes | Entry] | None = None) -> None:
    """Make the volumes of a layout, and the carrier by which the engine reads and writes them; put `files` there."""
    for volume in lay.volumes:
        engine.create_volume(volume)
    engine.create(lay.carrier)
    own = {name: Entry(None, 0o750, UIDS[owner], DOORS_GID) for name, owner in _OWNERS.items()}
    engine.put(lay.carrier.name, tar_of({**own, **(files or {})}))


def to_read_again(recording: Mapping[str, bytes]) -> dict[str, Entry]:
    """Return a recording as files of a carrier."""
    return {f"{RECORDING}/{name}": Entry(content, 0o640, UIDS["llm"], DOORS_GID) for name, content in recording.items()}


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


def read_tar(archive: bytes, prefix: str) -> dict[str, bytes]:
    """Return the regular files of an archive of the folder `prefix`, by name."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for info in tar:
            if info.isreg():
                content = tar.extractfile(info)
                files[str(PurePosixPath(info.name).relative_to(prefix))] = content.read() if content else b""
    return files

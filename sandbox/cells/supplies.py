"""Supplies: what is put into a cell before anybody runs in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from policies.canonical import digest
from policies.cells import parted
from policies.errors import CasemateError
from policies.plan import Plan
from policies.vocabulary import ExitCode
from sandbox.archives import write_durably
from sandbox.files import MAX_INPUT, read_inside
from sandbox.topology.shards import part_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplies:
    """What is put into a cell: `inputs` for /inputs, `authorities` for /casemate, by file name; `secrets` by name.

    A secret goes to the one server in a container whose it is, and to nobody else. `part` is the digest of what a shard
    gets of the input that is spread.
    """

    inputs: Mapping[str, bytes]
    authorities: Mapping[str, bytes]
    secrets: Mapping[str, str]
    part: str | None = None


def inputs_of(plan: Plan, cell: str, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what a cell of a stage finds in /inputs, by file name: of what is spread over shards, a shard's part."""
    name, number = parted(cell)
    stage = next(stage for stage in plan.stages if stage.name == name)
    found = {}
    for item in plan.inputs:
        if item.name in stage.inputs:
            found[item.target] = contents[item.name]
            if stage.shards is not None and number is not None and item.name == stage.shards.over:
                found[item.target] = part_of(contents[item.name], item.path, stage.shards, number)
    return found


PROBES = "probes"


def read_probes(plan: Plan, root: Path, folder: Path | None = None) -> dict[str, bytes]:
    """Return the files of probes that a run lacks, by name; raise CSM-R013 when one is not what was compiled."""
    items = {item.digest.removeprefix("sha256:"): item for output in plan.outputs for item in output.probes}
    return {
        name: _as_compiled(root, item.path, item.digest)
        for name, item in items.items()
        if folder is None or not (folder / PROBES / name).exists()
    }


def keep_probes(files: Mapping[str, bytes], folder: Path) -> None:
    """Keep files of probes with a run, which is judged by them again when a person has decided."""
    for name, content in files.items():
        (folder / PROBES).mkdir(mode=0o700, exist_ok=True)
        write_durably(folder / PROBES / name, content)


def kept_probes(folder: Path) -> dict[str, bytes]:
    """Return the files of probes that a run has kept, by their place in what customs is given."""
    return {f"{PROBES}/{path.name}": path.read_bytes() for path in sorted((folder / PROBES).glob("[0-9a-f]*"))}


def read_inputs(plan: Plan, root: Path) -> dict[str, bytes]:
    """Return the content of every input by name; raise CSM-R013 when one is not what was compiled."""
    return {item.name: _as_compiled(root, item.path, item.digest) for item in plan.inputs}


def _as_compiled(root: Path, path: str, wanted: str) -> bytes:
    data = read_inside(root, path, MAX_INPUT)
    if digest(data) != wanted:
        message = f'"{path}" is not what was compiled'
        raise CasemateError("CSM-R013", message, hint="compile again", exit_code=ExitCode.REFUSED)
    return data

"""Sinks inside the project: the orchestrator itself puts a file in place, whole, and keeps the one that was there.

Placing twice leaves what placing once leaves. What was there before is kept with the run before anything is replaced.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from policies.canonical import canonical
from policies.errors import CasemateError
from policies.plan import Output
from policies.sinks import At, Batch, Moment, kept
from policies.vocabulary import ExitCode
from sandbox.archives import chunks_of, digest_of_file

TEXT = "text"
"""The field of a record that becomes the content of a `file`."""


def place_of(output: Output, run: str) -> str:
    """Return the path, in the project, at which an output of a run goes."""
    if output.target.get("partition") == "run":
        return f"{output.path}/run={run}/part.{output.format}"
    return output.path


class Placed:
    """One file of the project; a `dataset` has a manifest beside it."""

    tells, repeats = True, True

    def __init__(self, root: Path, path: str, kind: str, manifest: bytes | None, before: Path) -> None:
        """`before`: the folder of the run in which what was there is kept, under the name of the output."""
        self._root, self._path, self._kind, self._before = root, path, kind, before
        self._manifest = json.loads(manifest) if manifest is not None and kind == "dataset" else None

    def find(self, batch: Batch) -> str | None:
        """Return the receipt when the file is there, and its manifest says that it is this batch."""
        target = self._target()
        said = _read(_manifest(target))
        mine = said is not None and _key(said) == batch.key
        return self._receipt(target) if mine and _digest(target) == batch.digest else None

    def apply(self, batch: Batch, at: At) -> str:
        """Put the file in place, its manifest first."""
        target = self._target()
        self._keep(target)
        if self._manifest is not None:
            _replace(_manifest(target), [canonical({**self._manifest, "key": batch.key})])
        at(Moment.SENT)
        _replace(target, _texts(batch.rows) if self._kind == "file" else chunks_of(batch.rows))
        return self._receipt(target)

    def undo(self, _batch: Batch, receipt: str) -> None:
        """Put back what was there before, unless somebody else has written since."""
        target, said = self._target(), json.loads(receipt)
        there, record = _digest(target), json.loads((self._before / "before.json").read_bytes())
        if there not in (said["digest"], record["digest"]):
            raise kept(f"{self._path} has been changed since")
        for path, name in ((_manifest(target), "manifest"), (target, "file")):
            if (self._before / name).exists():
                _replace(path, chunks_of(self._before / name))
            elif path is not target or there is not None:
                path.unlink(missing_ok=True)

    def _receipt(self, target: Path) -> str:
        return canonical({"path": self._path, "digest": _digest(target)}).decode()

    def _keep(self, target: Path) -> None:
        """Keep what is there. Once that is done, it stays: on a second attempt our own file may be there."""
        if (self._before / "before.json").exists():
            return
        self._before.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, name in ((target, "file"), (_manifest(target), "manifest")):
            if path.exists():
                _replace(self._before / name, chunks_of(path), mode=0o600)
        _replace(self._before / "before.json", [canonical({"digest": _digest(target)})], mode=0o600)

    def _target(self) -> Path:
        """Return where the file goes; no part of the way may be a link that leads elsewhere."""
        target = self._root / self._path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(self._root.resolve()):
            raise CasemateError("CSM-W010", f"{self._path} leads out of the project", exit_code=ExitCode.REFUSED)
        return target


def _texts(rows: Path) -> Iterator[bytes]:
    with rows.open("rb") as file:
        for row in file:
            yield json.loads(row)[TEXT].encode() + b"\n"


def _manifest(target: Path) -> Path:
    return target.with_name(target.name + ".manifest.json")


def _key(manifest: bytes) -> Any:
    try:
        said = json.loads(manifest)
    except ValueError:
        return None
    return said.get("key") if isinstance(said, dict) else None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CasemateError("CSM-W010", f"{path.name} cannot be read: {error.strerror}") from error


def _digest(path: Path) -> str | None:
    try:
        return digest_of_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CasemateError("CSM-W010", f"{path.name} cannot be read: {error.strerror}") from error


def _replace(target: Path, content: Iterable[bytes], mode: int = 0o644) -> None:
    """Write a file so that under its name there is the old one or the new one, whatever happens."""
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.writelines(content)
            stream.flush()
            os.fsync(handle)
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        raise CasemateError("CSM-W010", f"{target.name} cannot be written: {error.strerror}") from error

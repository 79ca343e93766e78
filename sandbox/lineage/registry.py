"""The model registry: one reviewed file a model, under policies/models/. What is not there is unknown: refused.

An entry says which initial checkpoints a model goes back to (`init_roots`), because hidden traits pass between models
that share one. Names are worth nothing here: two families may share a checkpoint, and one family may have several.
Files are read when they are asked for: a workflow names two or three models, not all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from policies.errors import CasemateError
from policies.vocabulary import ExitCode

FOLDER = Path(__file__).resolve().parents[2] / "policies" / "models"
CLOSED = "-closed"
"""How the root of a vendor's closed models ends: one for all of them, unless the vendor proves otherwise."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is there, is several times as fast


class Evidence(StrEnum):
    """How well an entry's roots are known. E0 counts as unknown."""

    UNKNOWN = "E0"
    STATED = "E1"  # the vendor or a third party says so, and nobody else can look; or it is assumed, on the safe side
    PUBLISHED = "E2"  # weights are public and their card or paper names where they come from
    TESTED = "E3"  # the weights' digest was compared, and an independence test was run


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a model. `local`: a trusted image named after it serves it. `max_output_tokens`: of one call.

    `init_roots`: the checkpoints that its weights were first drawn as; a merge has those of all its parts, what is
    quantised or pruned keeps its own. `distilled_from`: models whose outputs it learned from. `rolling`: the name moves
    from one snapshot to the next. `date`: when the entry was written.
    """

    id: str
    vendor: str
    relation: Literal["pretrain", "finetune", "adapter", "quantized", "merge", "pruned"]
    init_roots: list[str]
    evidence: Evidence
    source: str
    date: date
    local: bool
    max_output_tokens: int
    aliases: list[str] = []
    distilled_from: list[str] = []
    rolling: bool = False


class Registry(Mapping[str, ModelEntry]):
    """Every entry by model id, read at the first look. A file is named after its model."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {path.name.removesuffix(".yaml"): path for path in sorted(folder.glob("*.yaml"))}
        self._entries: dict[str, ModelEntry] = {}
        self._names: dict[str, str] | None = None

    def __getitem__(self, key: str) -> ModelEntry:
        if key not in self._entries:
            self._entries[key] = _read(self._files[key])
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def resolve(self, name: str) -> ModelEntry | None:
        """Return the entry of a model by its id or one of its aliases; upper and lower case are the same."""
        if name in self._files:
            return self[name]
        if self._names is None:
            self._names = {
                alias.casefold(): entry.id for entry in self.values() for alias in (entry.id, *entry.aliases)
            }
        known = self._names.get(name.casefold())
        return self[known] if known else None


@cache
def registry() -> Registry:
    """Return the registry that ships with Casemate."""
    return Registry()


def resolve(name: str) -> ModelEntry | None:
    """Return the entry of a model by its id or one of its aliases."""
    return registry().resolve(name)


def problems(entries: Mapping[str, ModelEntry]) -> Iterator[str]:
    """Yield what is wrong between entries: names used twice, roots and teachers that nobody knows, cycles."""
    owner: dict[str, str] = {}
    for entry in entries.values():
        for name in (entry.id, *entry.aliases):
            if owner.setdefault(name.casefold(), entry.id) != entry.id or entry.aliases.count(name) > 1:
                yield f'{entry.id}: "{name}" is a name of {owner[name.casefold()]} too'
        if not entry.init_roots and entry.evidence is not Evidence.UNKNOWN:
            yield f"{entry.id}: no root, but evidence {entry.evidence.value}"
        for root in entry.init_roots:
            if not root.endswith(CLOSED) and (root not in entries or root not in entries[root].init_roots):
                yield f'{entry.id}: root "{root}" is no model that starts from itself'
        for teacher in entry.distilled_from:
            if teacher not in entries:
                yield f'{entry.id}: teacher "{teacher}" is not in the registry'
    for name in entries:
        if name in _teachers(entries, name):
            yield f"{name}: learned from itself in a circle"


def _teachers(entries: Mapping[str, ModelEntry], name: str) -> set[str]:
    found: set[str] = set()
    ahead = list(entries[name].distilled_from)
    while ahead:
        teacher = ahead.pop()
        if teacher in entries and teacher not in found:
            found.add(teacher)
            ahead.extend(entries[teacher].distilled_from)
    return found


def _read(path: Path) -> ModelEntry:
    try:
        entry = msgspec.convert(yaml.load(path.read_text(), Loader=_LOADER), ModelEntry)  # noqa: S506 - both are safe
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        message = f"{path.name}: {error}"
        raise CasemateError("CSM-L011", message, place=str(path), exit_code=ExitCode.FINDINGS) from error
    if f"{entry.id}.yaml" != path.name:
        message = f'{path.name} describes "{entry.id}"'
        raise CasemateError("CSM-L011", message, place=str(path), exit_code=ExitCode.FINDINGS)
    return entry

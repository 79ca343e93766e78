"""The model registry: one reviewed file a model, under policies/models/. What is not there is unknown: refused."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
import yaml

FOLDER = Path(__file__).resolve().parent.parent / "policies" / "models"


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a model. `local`: a trusted image named after it serves it. `max_output_tokens`: of one call."""

    id: str
    vendor: str
    relation: str
    init_roots: list[str]
    local: bool
    max_output_tokens: int


@cache
def registry() -> Mapping[str, ModelEntry]:
    """Return every entry by model id."""
    entries = (msgspec.convert(yaml.safe_load(path.read_text()), ModelEntry) for path in sorted(FOLDER.glob("*.yaml")))
    return {entry.id: entry for entry in entries}

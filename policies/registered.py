"""What a record of a sink `mlflow` says: `source`, perhaps `run_id` and `description`, and everything else as tags.

A source is a place that whoever loads the model reads from. An agent that could name any place would have others load
what it likes, so the plan names a folder, and what a record says must be plain and lie below it.
"""

from __future__ import annotations

import re
from typing import Any

OWN = ("source", "run_id", "description")
"""The fields that are no tags."""
TAG = r"[A-Za-z_][A-Za-z0-9_-]{0,99}"
RESERVED = ("casemate", "mlflow")
"""Tags that begin so are not an agent's to set."""
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""Of a registered model, and of an alias."""
ROOT = r"[a-z][a-z0-9+-]{1,19}:(?://[A-Za-z0-9.:_-]*)?/?[A-Za-z0-9._=/-]*"
_PART = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9._=-]*")


def is_below(source: str, root: str) -> bool:
    """Tell whether a source is `root` itself or plainly below it."""
    if source == root:
        return True
    rest = source.removeprefix(root.rstrip("/") + "/")
    return rest != source and all(_PART.fullmatch(part) for part in rest.split("/"))


def record_problem(schema: dict[str, Any]) -> str | None:
    """Return why records of a schema cannot be versions of a model, or None."""
    fields: dict[str, Any] = schema.get("properties", {})
    for name in OWN:
        if name in fields and fields[name].get("type") != "string":
            return f'"{name}" must be a string'
    if "source" not in fields or "source" not in schema.get("required", []):
        return 'a version is made of its "source": the schema must require it, as a string'
    bad = [name for name in fields if name not in OWN and (not re.fullmatch(TAG, name) or name.startswith(RESERVED))]
    return f'"{bad[0][:60]}" is no name of a tag' if bad else None

"""Files of decisions that people commit beside a workflow: read strictly, written so that a diff can be reviewed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from policies.canonical import StrictJsonError, strict_loads
from policies.errors import CasemateError

MAX_BYTES = 16 << 20
T = TypeVar("T")


def read_committed(path: Path, kind: type[T], hint: str) -> T | None:
    """Return what a file holds, or None where there is none; raise CSM-C061 for one that cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CasemateError("CSM-C061", f"{path.name}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise CasemateError("CSM-C061", f"{path.name} is over {MAX_BYTES} bytes", hint=hint)
    try:
        return msgspec.convert(strict_loads(data), kind, strict=True)
    except (StrictJsonError, msgspec.ValidationError) as error:
        raise CasemateError("CSM-C061", f"{path.name}: {error}", hint=hint) from error


def write_committed(path: Path, document: Any) -> None:
    """Write a file of decisions."""
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n")

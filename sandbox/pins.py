"""Pins: tools of MCP servers as a person approved them, in a file that is committed beside the workflow.

`casemate mcp audit` asks a server what it offers, in its cell, and `--approve` writes the whole definition down. From
then on the plan holds it, arguments are judged by it, and at run time a tool that differs is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from policies.canonical import StrictJsonError, strict_loads
from policies.errors import CasemateError
from policies.plan import Pin

NAME = "casemate.mcp.json"
MAX_BYTES = 16 << 20


def read_pins(root: Path) -> dict[str, tuple[Pin, ...]]:
    """Return the pins of a project by server; raise CSM-C061 for a file that cannot be read."""
    try:
        data = (root / NAME).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CasemateError("CSM-C061", f"{NAME}: {error.strerror}") from error
    hint = "write it with `casemate mcp audit --approve`"
    if len(data) > MAX_BYTES:
        raise CasemateError("CSM-C061", f"{NAME} is over {MAX_BYTES} bytes", hint=hint)
    try:
        pins = msgspec.convert(strict_loads(data), dict[str, list[Pin]], strict=True)
    except (StrictJsonError, msgspec.ValidationError) as error:
        raise CasemateError("CSM-C061", f"{NAME}: {error}", hint=hint) from error
    return {server: tuple(sorted(found, key=lambda pin: pin.name)) for server, found in pins.items()}


def write_pins(root: Path, pins: Mapping[str, tuple[Pin, ...]]) -> None:
    """Write the pins of a project, readable in a diff."""
    document = {server: [msgspec.to_builtins(pin) for pin in found] for server, found in sorted(pins.items()) if found}
    (root / NAME).write_text(json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n")

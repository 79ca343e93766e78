"""Pins: tools of MCP servers as a person approved them, in a file that is committed beside the workflow.

`casemate mcp audit` asks a server what it offers, in its cell, and `--approve` writes the whole definition down. From
then on the plan holds it, arguments are judged by it, and at run time a tool that differs is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from policies.plan import Pin
from sandbox.records.committed import read_committed, write_committed

NAME = "casemate.mcp.json"


def read_pins(root: Path) -> dict[str, tuple[Pin, ...]]:
    """Return the pins of a project by server; raise CSM-C061 for a file that cannot be read."""
    pins = read_committed(root / NAME, dict[str, list[Pin]], "write it with `casemate mcp audit --approve`") or {}
    return {server: tuple(sorted(found, key=lambda pin: pin.name)) for server, found in pins.items()}


def write_pins(root: Path, pins: Mapping[str, tuple[Pin, ...]]) -> None:
    """Write the pins of a project."""
    document = {server: [msgspec.to_builtins(pin) for pin in found] for server, found in sorted(pins.items()) if found}
    write_committed(root / NAME, document)

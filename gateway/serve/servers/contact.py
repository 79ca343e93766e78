"""Contact with every server of a slice, for a person who decides what of it is used: each lists its tools.

Nothing is called. What a server says is written to a file of its own, beside which nobody reads it but that person.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.serve.servers.peer import ServerFailed
from gateway.serve.servers.session import Session, opener
from policies.slices import GatewaySlice


async def contact(part: GatewaySlice, root: Path, secrets: Mapping[str, str]) -> None:
    """Write what each server offers to /buffer/<server>.json: `tools`, or why it `failed`."""
    known = list(secrets.values())
    declared = {server.name: server for server in part.servers}
    for stage in part.stages:
        for name in sorted(stage.tools):
            reach = opener(declared[name], stage.stage, root, secrets, part.trust, known.append)
            session = Session(declared[name], reach)
            said: dict[str, Any]
            try:
                said = {"tools": await session.tools()}
            except ServerFailed as failed:
                said = {"failed": failed.reason}
            finally:
                await session.close()
            data = msgspec.json.encode(said)
            if any(secret.encode() in data for secret in known):
                data = msgspec.json.encode({"failed": "a definition of a tool holds a secret"})
            (root / "buffer" / f"{name}.json").write_bytes(data)

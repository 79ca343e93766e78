"""Contact with an MCP server before anything runs: in the cell that it will have, over its standard streams.

What it says is only shown and written down; a person decides. Nothing is called but `initialize` and `tools/list`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

from policies.canonical import StrictJsonError, strict_loads
from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.engine import Attached, Engine
from sandbox.specs import ContainerSpec

MAX_TOOLS = 500
MAX_PAGES = 20
MAX_LINE = 8 << 20
SECONDS = 60.0
REVISION = "2025-11-25"


def list_tools(engine: Engine, spec: ContainerSpec) -> list[dict[str, Any]]:
    """Return the definitions of a server's tools, as it gives them. Raises CSM-G014."""
    engine.create(spec)
    guard = threading.Timer(SECONDS, engine.kill, args=(spec.name,))
    try:
        streams = engine.attach(spec.name, stdin=True)
        engine.start(spec.name)
        guard.start()
        return _converse(streams)
    except OSError as error:
        raise _failed("it ended, or did not answer in time") from error
    finally:
        guard.cancel()
        engine.remove("container", spec.name)


def _converse(streams: Attached) -> list[dict[str, Any]]:
    lines = _lines(streams)
    client = {"name": "casemate-audit", "version": "0.1.0"}
    params = {"protocolVersion": REVISION, "capabilities": {}, "clientInfo": client}
    _ask(streams, lines, 1, "initialize", params)
    streams.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
    tools: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    for number in range(2, 2 + MAX_PAGES):
        page = _ask(streams, lines, number, "tools/list", cursor)
        found = page.get("tools")
        if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
            raise _failed("it does not list its tools")
        tools += found
        if len(tools) > MAX_TOOLS:
            raise _failed(f"it has over {MAX_TOOLS} tools")
        if page.get("nextCursor") is None:
            return tools
        cursor = {"cursor": page["nextCursor"]}
    raise _failed(f"it has over {MAX_PAGES} pages of tools")


def _ask(streams: Attached, lines: Iterator[bytes], number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    streams.write(json.dumps(request).encode() + b"\n")
    for line in lines:
        try:
            value = strict_loads(line)
        except StrictJsonError as error:
            raise _failed("it said something that is not one JSON document") from error
        if isinstance(value, dict) and value.get("id") == number and "method" not in value:
            result = value.get("result")
            if not isinstance(result, dict):
                raise _failed(f"it answered {method} with an error")
            return result
    raise _failed("it ended before it answered")


def _lines(streams: Attached) -> Iterator[bytes]:
    pending = b""
    for stream, data in streams.chunks():
        if stream != 1:
            continue
        *whole, pending = (pending + data).split(b"\n")
        if len(pending) > MAX_LINE:
            raise _failed(f"it said a line over {MAX_LINE} bytes")
        yield from whole


def _failed(reason: str) -> CasemateError:
    return CasemateError("CSM-G014", f"the MCP server cannot be used: {reason}", exit_code=ExitCode.STAGE_FAILED)

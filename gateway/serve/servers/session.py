"""One server of one stage: opened when it is first needed, asked for its tools, opened anew after a failure, sometimes.

open       initialize, in a revision that we know; then every page of tools/list, with limits
call       one request, with a time limit; at most `MAX_PARALLEL` at once
failure    the connection is dropped; the next call opens another one, `MAX_OPENED` in all
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.serve.servers.http import HttpPeer
from gateway.serve.servers.peer import Answer, Peer, ServerFailed
from gateway.serve.servers.stdio import StdioPeer
from gateway.serve.types import HANDSHAKE_VERSIONS
from policies.plan import Tool
from policies.slices import tool_door

MAX_PAGES = 20
MAX_TOOLS = 500
MAX_OPENED = 4
MAX_PARALLEL = 8
OPEN_SECONDS = 30.0
CALL_SECONDS = 120.0
_CLIENT = {"name": "casemate-gateway", "title": "Casemate gateway", "version": "0.1.0"}

Open = Callable[[], Awaitable[Peer]]


def opener(server: Tool, stage: str, root: Path, secrets: Mapping[str, str], trust: Sequence[str]) -> Open:
    """Return how a server is reached: the socket of its container's bridge, or its tunnel."""

    async def stdio() -> Peer:
        return await StdioPeer.open(root / "tools" / stage / server.name / "stdio.sock")

    async def remote() -> Peer:
        context = ssl.create_default_context()
        if trust:
            context.load_verify_locations(cadata="".join(trust))
        token = secrets[server.secret] if server.secret is not None else None
        return HttpPeer(server.url or "", root / "doors" / tool_door(server.name) / "up.sock", context, token)

    return stdio if server.url is None else remote


class Session:
    """What the desk of a stage asks. Every method raises `ServerFailed`."""

    def __init__(self, server: Tool, open_peer: Open) -> None:
        self._server, self._open_peer = server, open_peer
        self._peer: Peer | None = None
        self._tools: list[dict[str, Any]] = []
        self._opened = 0
        self._lock, self._slots = asyncio.Lock(), asyncio.Semaphore(MAX_PARALLEL)

    async def tools(self) -> list[dict[str, Any]]:
        """Return the definitions of the server's tools, as it gave them when it was opened."""
        await self._ready()
        return self._tools

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Call a tool."""
        async with self._slots:
            peer = await self._ready()
            try:
                params = {"name": name, "arguments": dict(arguments)}
                return await peer.request("tools/call", params, CALL_SECONDS)
            except ServerFailed:
                await self._drop(peer)
                raise

    async def _ready(self) -> Peer:
        async with self._lock:
            if self._peer is not None:
                return self._peer
            if self._opened >= MAX_OPENED:
                raise ServerFailed(f"it has failed {MAX_OPENED} times, and is not tried again")
            self._opened += 1
            peer = await self._open_peer()
            try:
                await self._greet(peer)
                self._tools = await _list(peer)
            except ServerFailed:
                await peer.close()
                raise
            self._peer = peer
            return peer

    async def _greet(self, peer: Peer) -> None:
        params = {"protocolVersion": HANDSHAKE_VERSIONS[-1], "capabilities": {}, "clientInfo": _CLIENT}
        answer = await peer.request("initialize", params, OPEN_SECONDS)
        version = (answer.result or {}).get("protocolVersion")
        if not isinstance(version, str) or version not in HANDSHAKE_VERSIONS:
            raise ServerFailed("it speaks no revision that is known here")
        if isinstance(peer, HttpPeer):
            peer.speak(version)
        await peer.notify("notifications/initialized")

    async def _drop(self, peer: Peer) -> None:
        async with self._lock:
            if self._peer is peer:
                self._peer = None
                await peer.close()


async def _list(peer: Peer) -> list[dict[str, Any]]:
    """Return every page of tools/list."""
    tools: list[dict[str, Any]] = []
    seen: set[str] = set()
    params: dict[str, Any] = {}
    for _ in range(MAX_PAGES):
        answer = await peer.request("tools/list", params, OPEN_SECONDS)
        page = (answer.result or {}).get("tools")
        if not isinstance(page, list) or not all(isinstance(tool, dict) for tool in page):
            raise ServerFailed("it does not list its tools")
        tools += page
        cursor = (answer.result or {}).get("nextCursor")
        if len(tools) > MAX_TOOLS:
            raise ServerFailed(f"it has over {MAX_TOOLS} tools")
        if cursor is None:
            return tools
        if not isinstance(cursor, str) or cursor in seen:
            raise ServerFailed("its pages go round in a circle")
        seen.add(cursor)
        params = {"cursor": cursor}
    raise ServerFailed(f"it has over {MAX_PAGES} pages of tools")

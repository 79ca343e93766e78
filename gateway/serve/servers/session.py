"""One server of one stage: opened when it is first needed, asked for its tools, opened anew after a failure, sometimes.

open       initialize, in a revision that we know, or do without; then every page of tools/list, with limits
call       one request, with a time limit; at most `Patience.parallel` at once
time-out   the call alone is cancelled; `Patience.hung` of them with no answer between are a failure
failure    the connection is dropped; the next call opens another one, `Patience.opened` in all
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.serve.servers.http import HttpPeer
from gateway.serve.servers.login import login, tunnel
from gateway.serve.servers.peer import CLIENT, Answer, Note, Peer, ServerFailed, TimedOut
from gateway.serve.servers.stdio import StdioPeer
from gateway.serve.types import (
    HANDSHAKE_VERSIONS,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
    UNSUPPORTED_VERSION,
)
from gateway.tls import context
from policies.plan import Tool

MAX_PAGES = 20
MAX_TOOLS = 500
_NO_HANDSHAKE = frozenset({METHOD_NOT_FOUND, INVALID_REQUEST, INVALID_PARAMS, UNSUPPORTED_VERSION})

Open = Callable[[], Awaitable[Peer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a server may take to open (handshake and all pages of its tools) and to answer a call, in seconds; how
    often it is opened, how many calls it gets at once, and how many may time out in a row before it counts as hung."""

    open_s: float = 60.0
    call_s: float = 120.0
    opened: int = 4
    parallel: int = 8
    hung: int = 3


def opener(
    server: Tool,
    stage: str,
    root: Path,
    secrets: Mapping[str, str],
    trust: Sequence[str],
    learn: Callable[[str], None] = lambda _secret: None,
) -> Open:
    """Return how a server is reached: the socket of its container's bridge, or its tunnel.

    `learn` is told of secrets that come up on the way.
    """

    async def stdio() -> Peer:
        return await StdioPeer.open(root / "tools" / stage / server.name / "stdio.sock")

    async def remote() -> Peer:
        tls = context(trust)
        return HttpPeer(server.url or "", tunnel(server, root), tls, login(server, root, tls, secrets, learn))

    return stdio if server.url is None else remote


class Session:
    """What the desk of a stage asks. Every method raises `ServerFailed`."""

    def __init__(self, server: Tool, open_peer: Open, patience: Patience = Patience()) -> None:
        self._server, self._open_peer, self._patience = server, open_peer, patience
        self._peer: Peer | None = None
        self._tools: list[dict[str, Any]] = []
        self._opened, self._silent, self._logs = 0, 0, False
        self._level: str | None = None
        self._lock, self._slots = asyncio.Lock(), asyncio.Semaphore(patience.parallel)

    async def tools(self) -> list[dict[str, Any]]:
        """Return the definitions of the server's tools; the same list object until they were listed anew."""
        await self._ready()
        return self._tools

    async def call(
        self, name: str, arguments: Mapping[str, Any], tools: list[dict[str, Any]], note: Note | None = None
    ) -> Answer:
        """Call a tool of the server that had `tools`, and of no other: a definition is judged before it is used.

        `note` hears what the server says of itself meanwhile.
        """
        return await self._ask("tools/call", {"name": name, "arguments": dict(arguments)}, note, tools)

    async def ask(self, method: str, params: dict[str, Any]) -> Answer:
        """Ask for something that has no definition: a resource, a prompt."""
        return await self._ask(method, params)

    async def listed(self, method: str, key: str) -> list[dict[str, Any]]:
        """Return every page of a list of something that has no definition."""
        async with self._slots:
            peer = await self._ready()
            try:
                return await _pages(peer, method, key, self._patience.open_s)
            except Exception:
                await self._drop(peer)
                raise

    async def level(self, level: str) -> None:
        """Say how much of its log is wanted, now and whenever the server is opened anew, if it has one."""
        self._level = level
        peer = await self._ready()
        try:
            await self._set_level(peer)
        except Exception:
            await self._drop(peer)
            raise

    async def _ask(
        self,
        method: str,
        params: dict[str, Any],
        note: Note | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> Answer:
        async with self._slots:
            peer = await self._ready()
            if tools is not None and self._tools is not tools:
                raise ServerFailed("it was started anew, and may have other tools")
            try:
                answer = await peer.request(method, params, self._patience.call_s, note)
            except TimedOut:
                self._silent += 1
                if self._silent >= self._patience.hung:
                    await self._drop(peer)
                raise
            except Exception:
                await self._drop(peer)
                raise
            self._silent = 0
            return answer

    async def _set_level(self, peer: Peer) -> None:
        if self._level is not None and self._logs:
            await peer.request("logging/setLevel", {"level": self._level}, self._patience.open_s)

    async def close(self) -> None:
        """End the connection, if there is one."""
        if self._peer is not None:
            await self._drop(self._peer)

    async def _ready(self) -> Peer:
        async with self._lock:
            peer = self._peer
            if peer is not None and not peer.stale:
                return peer
            self._peer = None
            if peer is None:
                if self._opened >= self._patience.opened:
                    raise ServerFailed(f"it has failed {self._opened} times, and is not tried again")
                self._opened, self._silent = self._opened + 1, 0
                peer = await self._open_peer()
                await self._meet(peer, greet=True)
            else:
                await self._meet(peer, greet=False)
            self._peer = peer
            return peer

    async def _meet(self, peer: Peer, *, greet: bool) -> None:
        """Greet a server, and list its tools; whatever happens, one that was not met is closed."""
        try:
            async with asyncio.timeout(self._patience.open_s):
                if greet:
                    await self._greet(peer)
                peer.stale = False
                self._tools = await _pages(peer, "tools/list", "tools", self._patience.open_s)
        except BaseException as error:
            await peer.close()
            if isinstance(error, TimeoutError):
                raise ServerFailed(f"it was not ready within {self._patience.open_s:.0f} seconds") from error
            raise

    async def _greet(self, peer: Peer) -> None:
        params = {"protocolVersion": HANDSHAKE_VERSIONS[-1], "capabilities": {}, "clientInfo": CLIENT}
        answer = await peer.request("initialize", params, self._patience.open_s)
        if answer.result is None and answer.code in _NO_HANDSHAKE:
            peer.speak(MODERN_VERSIONS[-1])  # if it does not speak that either, it will not list its tools
            return
        version = (answer.result or {}).get("protocolVersion")
        if not isinstance(version, str) or version not in HANDSHAKE_VERSIONS:
            raise ServerFailed("it speaks no revision that is known here")
        peer.speak(version)
        await peer.notify("notifications/initialized")
        offered = (answer.result or {}).get("capabilities")
        self._logs = isinstance(offered, dict) and isinstance(offered.get("logging"), dict)
        await self._set_level(peer)

    async def _drop(self, peer: Peer) -> None:
        async with self._lock:
            if self._peer is peer:
                self._peer = None
            await peer.close()


async def _pages(peer: Peer, method: str, key: str, seconds: float) -> list[dict[str, Any]]:
    """Return every page of a list."""
    items: list[dict[str, Any]] = []
    seen: set[str] = set()
    params: dict[str, Any] = {}
    for _ in range(MAX_PAGES):
        answer = await peer.request(method, params, seconds)
        page = (answer.result or {}).get(key)
        if not isinstance(page, list) or not all(isinstance(item, dict) for item in page):
            raise ServerFailed(f"it does not list its {key}")
        items += page
        cursor = (answer.result or {}).get("nextCursor")
        if len(items) > MAX_TOOLS:
            raise ServerFailed(f"it has over {MAX_TOOLS} {key}")
        if cursor is None:
            return items
        if not isinstance(cursor, str) or cursor in seen:
            raise ServerFailed("its pages go round in a circle")
        seen.add(cursor)
        params = {"cursor": cursor}
    raise ServerFailed(f"it has over {MAX_PAGES} pages of {key}")

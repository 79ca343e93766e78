"""The answer to one request as a stream of events. It begins with the first thing that is said before the answer.

An answer that comes at once is plain JSON. A call that takes long is kept alive by comments, so that nobody between
takes the connection for dead. What is said faster than the client reads is coalesced, and never waits in memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.serve.notes import Tell
from gateway.serve.types import Reply

Event = MutableMapping[str, Any]
Send = Callable[[Event], Awaitable[None]]

KEEP_SECONDS = 10.0
"""How long a stream is silent."""
MAX_WAITING = 64
"""Events that wait for the client to read; further ones take the place of the oldest."""
_PAUSE = 0.02
"""Between two writes: what comes meanwhile is written together, and of progress only the last."""
_STALLED = 30.0
"""How long a client may leave a stream unread."""
_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


class Stream:
    """What goes to one client, over its one request: an answer, or a stream of events with the answer at its end."""

    def __init__(self, send: Send, keep: float = KEEP_SECONDS) -> None:
        self._send, self._keep = send, keep
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._latest: bytes | None = None
        self._wake = asyncio.Event()
        self._over = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> Tell:
        """Let there be a stream, from when something is said or nothing was for a while; return what says it."""
        self._timer = asyncio.get_running_loop().call_later(self._keep, self._begin)
        return self._tell

    async def end(self, reply: Reply) -> None:
        """Say the answer, and end."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is None:
            await self._send({"type": "http.response.start", "status": reply.status, "headers": _headers(reply)})
            await self._send({"type": "http.response.body", "body": reply.body})
            return
        self._over = True
        self._wake.set()
        await self._task
        await self._out(_event(reply.body) if reply.body else b"", more=False)

    def _tell(self, message: bytes, latest: bool) -> None:
        """Say something before the answer; `latest`: in place of what was said so before, and is not out yet."""
        if latest:
            self._latest = message
        else:
            self._waiting.append(message)
        self._begin()
        self._wake.set()

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self._out(b": working\n\n")
        while not self._over:
            try:
                async with asyncio.timeout(self._keep):
                    await self._wake.wait()
            except TimeoutError:
                await self._out(b": working\n\n")
                continue
            self._wake.clear()
            await self._flush()
            if not self._over:
                await asyncio.sleep(_PAUSE)
        await self._flush()

    async def _flush(self) -> None:
        messages = [*self._waiting, *([self._latest] if self._latest is not None else [])]
        self._waiting.clear()
        self._latest = None
        if messages:
            await self._out(b"".join(map(_event, messages)))

    async def _out(self, data: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(_STALLED):
            await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _event(message: bytes) -> bytes:
    """Frame one message: JSON as we encode it has no line end in it."""
    return b"event: message\ndata: " + message + b"\n\n"


def _headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    headers = [(b"cache-control", b"no-store"), (b"content-length", b"%d" % len(reply.body))]
    if reply.body:
        headers.append((b"content-type", b"application/json"))
    if reply.close:
        headers.append((b"connection", b"close"))
    if reply.allow:
        headers.append((b"allow", reply.allow.encode()))
    return headers

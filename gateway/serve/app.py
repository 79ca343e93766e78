"""The HTTP edge of one stage: an ASGI application in front of its desks.

No framework: there is one kind of request, the desks read strictly themselves, and routing, parsing and error pages of
a framework cost as much again as everything else that a call does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any

import structlog

from gateway.serve.buffer import BufferBrokenError
from gateway.serve.desk import Desk
from gateway.serve.envelope import MAX_BODY, WRITES, check_head, refuse, route, too_large
from gateway.serve.stream import Event, Send, Stream
from gateway.serve.tooldesk import ToolDesk
from gateway.serve.types import Head, Refusal, RefusedError, Reply
from gateway.start import told
from policies.events import EventLogError

BODY_SECONDS = 30.0
"""How long a body may take to arrive."""

_log = structlog.get_logger()

Fatal = Callable[[BaseException], None]
Receive = Callable[[], Awaitable[Event]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class _GoneError(Exception):
    """The client has gone before its request was whole."""


def build(desk: Desk, authorities: frozenset[str], fatal: Fatal, tools: Mapping[str, ToolDesk] | None = None) -> App:
    """Return the application of one stage: its write server, and its tool servers by name.

    `fatal` is told when the event log or the buffer is broken; the process must end.
    """
    servers: dict[str, Desk | ToolDesk] = {route(WRITES): desk}
    servers |= {route(name): server for name, server in (tools or {}).items()}
    # One message of a stage at a time: desks work without yielding, so a stage that floods takes one turn of the
    # event loop for each turn of the others.
    turn = asyncio.Lock()

    async def serve(scope: Event, receive: Receive, send: Send) -> None:
        stream = Stream(send)
        await stream.end(await answer(scope, receive, stream))

    async def answer(scope: Event, receive: Receive, stream: Stream) -> Reply:
        try:
            target, head, body = await _read(scope, receive, authorities, servers)
            server = servers[target]
            if isinstance(server, ToolDesk):
                return await server.answer(head, body, stream.open() if head.streams else None)
            async with turn:
                return server.answer(head, body)
        except RefusedError as refused:
            return _refused(refused.refusal)
        except (EventLogError, BufferBrokenError) as error:
            return _ended(error)
        except _GoneError:
            return Reply(status=400)
        except Exception as error:  # noqa: BLE001 - whatever fails at this edge denies the request, with an event
            _log.error("door failed", **told(error))
            hint = "try again once; then report_incomplete"
            return _refused(Refusal(code="CSM-G019", denied="request", hint=hint, status=500))

    def _refused(refusal: Refusal) -> Reply:
        try:
            return desk.refused(refusal)
        except EventLogError as error:
            return _ended(error)

    def _ended(error: BaseException) -> Reply:
        fatal(error)
        return Reply(status=503, close=True)

    return serve


async def _read(
    scope: Event, receive: Receive, authorities: frozenset[str], routes: Collection[str]
) -> tuple[str, Head, bytes]:
    """Return target, head and body of a request, or refuse it."""
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    target = f"{path}?{query}" if query else path
    try:
        head = check_head(scope["method"], target, scope["headers"], authorities, routes)
    except RefusedError as refused:
        if refused.refusal.status != 413:
            # An agent that is still sending would meet a closed connection instead of the reason.
            await _body(receive)
        raise
    return target, head, await _body(receive)


async def _body(receive: Receive) -> bytes:
    """Return the body, or refuse it as soon as it is too large or too slow."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _GoneError
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > MAX_BODY:
                    too_large()
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        refuse("CSM-G001", "body", "send the body at once", 408)

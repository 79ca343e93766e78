"""The HTTP edge of one stage: FastAPI in front of its desks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.serve.buffer import BufferBrokenError
from gateway.serve.desk import Desk
from gateway.serve.envelope import MAX_BODY, WRITES, check_head, refuse, route, too_large
from gateway.serve.stream import Stream
from gateway.serve.tooldesk import ToolDesk
from gateway.serve.types import Head, Refusal, RefusedError, Reply
from gateway.start import told
from policies.events import EventLogError

BODY_SECONDS = 30.0
"""How long a body may take to arrive."""

_log = structlog.get_logger()

Fatal = Callable[[BaseException], None]


class Door:
    """Everything that one stage meets: its write server, and its tool servers by name.

    `fatal` is told when the event log or the buffer is broken; the process must end.
    """

    def __init__(
        self, desk: Desk, authorities: frozenset[str], fatal: Fatal, tools: Mapping[str, ToolDesk] | None = None
    ) -> None:
        self._desk, self._authorities, self._fatal = desk, authorities, fatal
        self.servers: dict[str, Desk | ToolDesk] = {route(WRITES): desk}
        self.servers |= {route(name): server for name, server in (tools or {}).items()}
        # One message of a stage at a time: desks work without yielding, so a stage that floods takes one turn of the
        # event loop for each turn of the others.
        self._turn = asyncio.Lock()

    async def answer(self, request: Request, stream: Stream) -> Reply:
        """Return the answer to a request. Raises nothing: whatever fails here denies the request, with an event."""
        try:
            target, head, body = await _read(request, self._authorities, self.servers)
            server = self.servers[target]
            if isinstance(server, ToolDesk):
                return await server.answer(head, body, stream.open() if head.streams else None)
            async with self._turn:
                return server.answer(head, body)
        except RefusedError as refused:
            return self._refused(refused.refusal)
        except (EventLogError, BufferBrokenError) as error:
            return self._ended(error)
        except ClientDisconnect:
            return Reply(status=400)
        except Exception as error:  # noqa: BLE001 - told to the log, and to the agent as a refusal
            _log.error("door failed", **told(error))
            hint = "try again once; then report_incomplete"
            return self._refused(Refusal(code="CSM-G019", denied="request", hint=hint, status=500))

    def _refused(self, refusal: Refusal) -> Reply:
        try:
            return self._desk.refused(refusal)
        except EventLogError as error:
            return self._ended(error)

    def _ended(self, error: BaseException) -> Reply:
        self._fatal(error)
        return Reply(status=503, close=True)


class _Answer(Response):
    """The answer to a request, of which the client may hear before it is there: see `Stream`."""

    def __init__(self, door: Door, request: Request) -> None:
        super().__init__()
        self._door, self._request = door, request

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        stream = Stream(send)
        await stream.end(await self._door.answer(self._request, stream))


def build(door: Door) -> FastAPI:
    """Return the application of one stage."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    async def serve(request: Request) -> Response:
        return _Answer(door, request)

    async def elsewhere(request: Request, _error: Exception) -> Response:
        return await serve(request)

    for path in door.servers:
        # Without FastAPI's reading of parameters and bodies: desks read strictly, and it costs more than they do.
        app.add_route(path, serve, methods=["POST"])
    # Every other path and method comes here, and `check_head` says why not.
    app.add_exception_handler(HTTPException, elsewhere)
    return app


async def _read(request: Request, authorities: frozenset[str], routes: Collection[str]) -> tuple[str, Head, bytes]:
    """Return target, head and body of a request, or refuse it."""
    path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")
    target = f"{path}?{query}" if query else path
    try:
        head = check_head(request.method, target, request.headers.raw, authorities, routes)
    except RefusedError as refused:
        if refused.refusal.status != 413:
            # An agent that is still sending would meet a closed connection instead of the reason.
            await _body(request)
        raise
    return target, head, await _body(request)


async def _body(request: Request) -> bytes:
    """Return the body, or refuse it as soon as it is too large or too slow."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_BODY:
                    too_large()
                chunks.append(chunk)
    except TimeoutError:
        refuse("CSM-G001", "body", "send the body at once", 408)
    return b"".join(chunks)

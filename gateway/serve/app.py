"""The HTTP edge of one stage: FastAPI in front of its desk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.serve.buffer import BufferBrokenError
from gateway.serve.desk import Desk
from gateway.serve.envelope import MAX_BODY, WRITES, check_head, refuse, route, too_large
from gateway.serve.tooldesk import ToolDesk
from gateway.serve.types import Head, Refusal, RefusedError, Reply
from gateway.start import told
from policies.events import EventLogError

BODY_SECONDS = 30.0
"""How long a body may take to arrive."""

_log = structlog.get_logger()

Fatal = Callable[[BaseException], None]


def build(
    desk: Desk, authorities: frozenset[str], fatal: Fatal, tools: Mapping[str, ToolDesk] | None = None
) -> FastAPI:
    """Return the app of one stage: its write server, and its tool servers by name.

    `fatal` is told when the event log or the buffer is broken; the process must end.
    """
    servers: dict[str, Desk | ToolDesk] = {route(WRITES): desk}
    servers |= {route(name): server for name, server in (tools or {}).items()}
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    # One message of a stage at a time: desks work without yielding, so a stage that floods takes one turn of the
    # event loop for each turn of the others.
    turn = asyncio.Lock()

    async def serve(request: Request) -> Response:
        try:
            target, head, body = await _read(request, authorities, servers)
            server = servers[target]
            if isinstance(server, ToolDesk):
                return _response(await server.answer(head, body))
            async with turn:
                return _response(server.answer(head, body))
        except RefusedError as refused:
            return _refused(refused.refusal)
        except (EventLogError, BufferBrokenError) as error:
            return _ended(error)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # noqa: BLE001 - whatever fails at this edge denies the request, with an event
            _log.error("door failed", **told(error))
            hint = "try again once; then report_incomplete"
            return _refused(Refusal(code="CSM-G019", denied="request", hint=hint, status=500))

    def _refused(refusal: Refusal) -> Response:
        try:
            return _response(desk.refused(refusal))
        except EventLogError as error:
            return _ended(error)

    def _ended(error: BaseException) -> Response:
        fatal(error)
        return Response(status_code=503, headers={"connection": "close"})

    async def elsewhere(request: Request, _error: Exception) -> Response:
        return await serve(request)

    for path in servers:
        # Without FastAPI's reading of parameters and bodies: desks read strictly, and it costs more than they do.
        app.add_route(path, serve, methods=["POST"])
    # Every other path and method comes here, and `check_head` says why not.
    app.add_exception_handler(HTTPException, elsewhere)
    return app


async def _read(request: Request, authorities: frozenset[str], routes: Collection[str]) -> tuple[str, Head, bytes]:
    """Return target, head and body of a request, or refuse it."""
    path = request.scope["raw_path"].decode("latin-1")
    query = request.scope["query_string"].decode("latin-1")
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


def _response(reply: Reply) -> Response:
    headers = {"cache-control": "no-store"}
    if reply.close:
        headers["connection"] = "close"
    if reply.allow:
        headers["allow"] = reply.allow
    media = "application/json" if reply.body else None
    return Response(content=reply.body, status_code=reply.status, headers=headers, media_type=media)

"""A stage's LLM door: who may connect, which routes there are, and that whatever goes wrong is a denial.

The routes are an allow list: providers have others (files, batches, fine-tuning, administration) behind the same key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from policies.events import Attribute, EventLogError, clean
from policies.vocabulary import EventName, Verdict
from proxy.llm.denials import shape
from proxy.llm.formats.base import Format
from proxy.llm.formats.table import ROUTES, Asked, find
from proxy.llm.models import listing
from proxy.llm.types import Refused
from proxy.start import Events

MAX_BODY = 4 * 1024 * 1024
"""Bytes of a request body."""

MAX_CONNECTIONS = 256
HEAD_SECONDS = 10.0
BODY_SECONDS = 60.0
IDLE_SECONDS = 75.0
ALLOWED: Final = [*(f"POST {path}" for path in ROUTES), "GET /v1/models", "GET /v1beta/models", "HEAD /", "GET /"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[web.BaseRequest, Asked], Awaitable[web.StreamResponse]]
Protocol = web.RequestHandler

_log = structlog.get_logger()


class _Handler(web.RequestHandler):
    """One connection; what aiohttp cannot parse is denied in the one shape, too, and nothing of it is logged."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP."""
        del exc, message
        refused = Refused("CSM-P021", "malformed HTTP", status=status, hint="send well-formed HTTP/1.1")
        if request.writer.output_size > 0:
            raise ConnectionAbortedError("an answer had begun")
        self.tell(refused)
        return _closing(refused)

    tell: Callable[[Refused], None]


class LimitedServer(web.Server):
    """An aiohttp server that bounds connections, and how long one may exist without asking anything.

    `refused` is told what never becomes a request.
    """

    def __init__(
        self,
        handler: Handler,
        refused: Callable[[Refused], None],
        limit: int = MAX_CONNECTIONS,
        head_seconds: float = HEAD_SECONDS,
    ) -> None:
        super().__init__(handler, handler_cancellation=True)  # a client that hangs up ends its call upstream, too
        self._limit, self._head_seconds, self._refused = limit, head_seconds, refused
        self._timers: dict[object, asyncio.TimerHandle] = {}

    def __call__(self) -> Protocol:
        """Return the protocol of a new connection."""
        handler = _Handler(self, loop=asyncio.get_running_loop(), auto_decompress=False, lingering_time=2.0)
        handler.tell = self._refused
        return handler

    def connection_made(self, handler: Protocol, transport: asyncio.Transport) -> None:
        """Take a connection, or drop it when there are too many; start the clock of its first request."""
        super().connection_made(handler, transport)
        if len(self.connections) > self._limit:
            handler.force_close()
            self._refused(Refused("CSM-P011", f"over {self._limit} connections at this door"))
        else:
            self.arm(handler, self._head_seconds)

    def connection_lost(self, handler: Protocol, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self.disarm(handler)
        super().connection_lost(handler, exc)

    def arm(self, handler: Protocol, seconds: float) -> None:
        """Close the connection unless a whole request head arrives within `seconds`."""
        self.disarm(handler)
        self._timers[handler] = asyncio.get_running_loop().call_later(seconds, handler.force_close)

    def disarm(self, handler: object) -> None:
        """A request has begun, or the connection is gone."""
        if (timer := self._timers.pop(handler, None)) is not None:
            timer.cancel()


def answer(refused: Refused, form: Format | None) -> web.Response:
    """Return a refusal as the clients of the format read it."""
    response = web.json_response(shape(refused, form), status=refused.status)
    if refused.retry_after is not None:
        response.headers["Retry-After"] = refused.retry_after
    return response


class Door:
    """Routes of one stage. `serve` serves a call; `aliases` are what the stage may name."""

    def __init__(self, stage: str, aliases: list[str], serve: Serve, events: Events) -> None:
        self._stage, self._aliases, self._serve, self._events = stage, aliases, serve, events
        self.server = LimitedServer(self.handle, self._tell)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request. This is the only handler there is, so there is none without a guard."""
        self.server.disarm(request.protocol)
        try:
            return await self._route(request)
        except Refused as refused:
            return self._deny(request, refused)
        except EventLogError:
            _log.error("event log broken")
            return _closing(Refused("CSM-P019", "the event log is broken", status=500), _form(request))
        except ConnectionError:
            raise  # the agent hung up; what it cost has been settled
        except Exception as error:  # noqa: BLE001 - an internal failure at a door is a denial
            _log.error("door failed", exc_info=error)
            return self._deny(request, Refused("CSM-P019", type(error).__name__, hint="denied", status=500))
        finally:
            if request.transport is not None:
                self.server.arm(request.protocol, IDLE_SECONDS)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        # The path as it was sent: an absolute URL, `//host` or an encoded slash equals no route. A query is ignored.
        path, _, _ = request.raw_path.partition("?")
        asked = find(path)
        match request.method, path:
            case "POST", _ if asked is not None:
                return await self._serve(request, asked)
            case "GET", "/v1/models" | "/v1beta/models":
                return web.json_response(listing(self._aliases, path, request.headers))
            case (("GET" | "HEAD"), "/"):
                return web.Response()
            case _:
                hint = "this door serves calls of models, and its list of them"
                raise Refused("CSM-P020", f"{request.method} {clean(path, 200)}", allowed=ALLOWED, hint=hint)

    def _tell(self, refused: Refused, request: web.BaseRequest | None = None) -> None:
        attrs: dict[str, Attribute] = {"http.response.status_code": refused.status}
        if request is not None:
            attrs["http.request.method"] = clean(request.method, 20)
            attrs["url.path"] = clean(request.raw_path.partition("?")[0], 200)
        self._events(
            EventName.LLM_DECIDED,
            stage=self._stage,
            verdict=Verdict.DENY,
            rule=refused.code,
            reason=refused.reason,
            attrs=attrs,
        )

    def _deny(self, request: web.BaseRequest, refused: Refused) -> web.Response:
        try:
            self._tell(refused, request)
        except EventLogError:
            _log.error("event log broken")
            refused = Refused("CSM-P019", "the event log is broken", status=500)
        if request.writer.output_size > 0:
            # a second answer in the middle of the first could be read as anything
            request.protocol.force_close()
            raise ConnectionAbortedError("an answer had begun")
        form = _form(request)
        return answer(refused, form) if request.content.is_eof() else _closing(refused, form)


def _form(request: web.BaseRequest) -> Format | None:
    asked = find(request.raw_path.partition("?")[0])
    return asked.form if asked is not None else None


def _closing(refused: Refused, form: Format | None = None) -> web.Response:
    response = answer(refused, form)
    response.force_close()
    return response


async def read_body(request: web.BaseRequest) -> bytes:
    """Return the body; raise `Refused` (P021, P024) when it is encoded, slow, or too large, without reading on."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("CSM-P021", "an encoded body", status=400, hint="send the body without Content-Encoding")
    too_large = Refused("CSM-P024", f"over {MAX_BODY} bytes", status=413, hint=f"send at most {MAX_BODY} bytes")
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.content.iter_any():
                data += part
                if len(data) > MAX_BODY:
                    raise too_large
    except TimeoutError as error:
        raise Refused("CSM-P021", "the body took too long", status=408, hint="send the body at once") from error
    except (web.RequestPayloadError, ValueError) as error:
        raise Refused("CSM-P021", "the body is badly framed", status=400, hint="send a well-formed body") from error
    return bytes(data)

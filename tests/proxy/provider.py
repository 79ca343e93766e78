"""A provider of chat completions, OpenAI-compatible, on a Unix socket: says what the test wants, and remembers."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


@dataclass
class Provider:
    """What was asked of the provider; `answer` is how it answers."""

    answer: Callable[[Provider, web.BaseRequest], Awaitable[web.StreamResponse]]
    requests: list[web.BaseRequest] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    model: str = "tiny-model"
    usage: tuple[int, int] | None = (7, 3)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


def completion(provider: Provider, text: str = "hello") -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": "c1", "object": "chat.completion", "created": 1, "model": provider.model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
    }  # fmt: skip
    if provider.usage:
        given, made = provider.usage
        body["usage"] = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    return body


def chunk(provider: Provider, delta: dict[str, Any] | None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": provider.model, "choices": choices}
    return b"data: " + json.dumps({**body, **more}).encode() + b"\n\n"


async def stream(request: web.BaseRequest, *chunks: bytes) -> web.StreamResponse:
    out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await out.prepare(request)
    for data in chunks:
        await out.write(data)
    await out.write_eof()
    return out


def usage_chunk(provider: Provider) -> bytes:
    given, made = provider.usage or (0, 0)
    usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    return chunk(provider, None, usage=usage)


async def polite(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
    """Answers as asked, streamed or whole."""
    if not provider.bodies[-1].get("stream"):
        return web.json_response(completion(provider))
    texts = [chunk(provider, {"role": "assistant", "content": ""}), *(chunk(provider, {"content": t}) for t in "abc")]
    ends = [usage_chunk(provider)] if provider.usage else []
    return await stream(request, *texts, *ends, b"data: [DONE]\n\n")


async def stalling(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
    """Streams two words, then thinks until it is released, or until its client hangs up."""
    out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await out.prepare(request)
    await out.write(chunk(provider, {"content": "two "}) + chunk(provider, {"content": "words"}))
    try:
        await provider.release.wait()
    except asyncio.CancelledError:
        provider.hung_up.set()
        raise
    return out


def saying(status: int, body: bytes, **headers: str) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A provider that always says the same."""

    async def answer(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return answer


@asynccontextmanager
async def provider_at(
    path: Path,
    answer: Callable[..., Awaitable[web.StreamResponse]] = polite,
    tls: ssl.SSLContext | None = None,
    **more: Any,
) -> AsyncIterator[Provider]:
    """Serve on a Unix socket."""
    provider = Provider(answer, **more)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        provider.requests.append(request)
        provider.bodies.append(json.loads(await request.read()))
        return await provider.answer(provider, request)

    server = web.Server(handle, handler_cancellation=True)
    listener = await asyncio.get_running_loop().create_unix_server(server, str(path), ssl=tls)
    try:
        yield provider
    finally:
        listener.close()
        provider.release.set()
        await server.shutdown(1)

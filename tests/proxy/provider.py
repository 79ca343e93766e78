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
        await server.shutdown(0.05)


def event(kind: str, **fields: Any) -> bytes:
    """A named event, as Messages and Responses stream them."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def message(provider: Provider, text: str = "abc") -> dict[str, Any]:
    given, made = provider.usage or (0, 0)
    usage = {"input_tokens": given, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 2,
             "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 0},
             "output_tokens": made}  # fmt: skip
    body = {"id": "m1", "type": "message", "role": "assistant", "model": provider.model, "stop_reason": "end_turn",
            "content": [{"type": "text", "text": text}]}  # fmt: skip
    return {**body, "usage": usage} if provider.usage else body


def message_events(provider: Provider) -> list[bytes]:
    start = {**message(provider), "content": []}
    if provider.usage:
        start["usage"] = {**start["usage"], "output_tokens": 1}
    return [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("ping"),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": t}) for t in "abc"),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"},
              usage={"output_tokens": (provider.usage or (0, 0))[1]} if provider.usage else {}),
        event("message_stop"),
    ]  # fmt: skip


async def anthropic(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
    """Speaks Anthropic Messages."""
    if request.path == "/v1/messages/count_tokens":
        return web.json_response({"input_tokens": 12})
    assert request.path == "/v1/messages"
    if not provider.bodies[-1].get("stream"):
        return web.json_response(message(provider))
    return await stream(request, *message_events(provider))


def answered(provider: Provider, status: str = "completed", text: str = "abc") -> dict[str, Any]:
    output = [{"type": "message", "id": "o1", "role": "assistant", "status": "completed",
               "content": [{"type": "output_text", "text": text, "annotations": []}]}]  # fmt: skip
    body: dict[str, Any] = {
        "id": "r1", "object": "response", "created_at": 1, "model": provider.model, "status": status,
        "output": output if status == "completed" else [], "tools": [], "tool_choice": "auto",
        "parallel_tool_calls": True, "error": None,
    }  # fmt: skip
    if provider.usage and status == "completed":
        given, made = provider.usage
        body["usage"] = {
            "input_tokens": given, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": given + made,
        }  # fmt: skip
    return body


def response_events(provider: Provider) -> list[bytes]:
    place = {"item_id": "o1", "output_index": 0, "content_index": 0}
    return [
        event("response.created", sequence_number=0, response=answered(provider, "in_progress")),
        *(event("response.output_text.delta", sequence_number=n, delta=t, logprobs=[], **place)
          for n, t in enumerate("abc", 1)),
        event("response.output_text.done", sequence_number=4, text="abc", logprobs=[], **place),
        event("response.completed", sequence_number=5, response=answered(provider)),
    ]  # fmt: skip


async def responding(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
    """Speaks OpenAI Responses."""
    assert request.path == "/v1/responses"
    if not provider.bodies[-1].get("stream"):
        return web.json_response(answered(provider))
    return await stream(request, *response_events(provider))


def generated(provider: Provider, text: str = "abc", *, ends: bool = True, thoughts: int = 2) -> dict[str, Any]:
    """What Gemini answers: cached tokens are inside the prompt's, thoughts beside the candidates'."""
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}
    body: dict[str, Any] = {"candidates": [candidate], "modelVersion": provider.model, "responseId": "g1"}
    if ends:
        candidate["finishReason"] = "STOP"
    if provider.usage:
        given, made = provider.usage
        body["usageMetadata"] = {
            "promptTokenCount": given, "cachedContentTokenCount": 2, "candidatesTokenCount": made,
            "thoughtsTokenCount": thoughts, "totalTokenCount": given + made + thoughts,
        }  # fmt: skip
    return body


def generated_events(provider: Provider) -> list[bytes]:
    """Gemini's events have no name, end their lines with CR and LF, and no event says that it is the last."""
    events = [generated(provider, text, ends=text == "c") for text in "abc"]
    return [b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in events]


async def gemini(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
    """Speaks Gemini's generateContent."""
    if request.path.endswith(":countTokens"):
        return web.json_response({"totalTokens": 12})
    if request.path.endswith(":streamGenerateContent"):
        return await stream(request, *generated_events(provider))
    assert request.path.endswith(":generateContent")
    return web.json_response(generated(provider))

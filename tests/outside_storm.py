"""A provider and a web host that behave as told: at once, busy, or one byte a second; and a sink without limits.

Standard library only: it is copied into a container. Whatever arrives is told, one line of JSON each: at 443 (TLS) and
80 what was asked, with the key that came, and at 8080, which takes everything and refuses nothing, how many bytes.

The model decides the behaviour: what config.json names under `busy` answers 429, what it names under `dribble` streams
a byte a second, any other answers at once. So does the path of a GET: /slow gives a byte a second.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

CONFIG = json.loads(Path("/srv/config.json").read_bytes())
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
WORDS = "data: " + json.dumps({
    "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": CONFIG["dribble"],
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "drip "}, "finish_reason": None}],
}) + "\n\n"  # fmt: skip
Json = dict[str, Any]


def tell(**fields: Any) -> None:
    """Say what arrived."""
    print(json.dumps(fields), flush=True)


def answer(status: str, body: bytes, more: str = "") -> bytes:
    """Return a whole response."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def completion(body: Json) -> bytes:
    """Return an answer to a chat completion, whole or as events, with its usage."""
    head = {"id": "c1", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": "calm"}, "finish_reason": "stop"}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": USAGE}
        return answer("200 OK", json.dumps(whole).encode())
    delta = {"index": 0, "delta": {"role": "assistant", "content": "calm"}, "finish_reason": "stop"}
    chunks: list[Json] = [{**head, "object": "chat.completion.chunk", "choices": [delta]}]
    chunks.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
    data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return f"{STREAM}{len(data):x}\r\n{data}\r\n0\r\n\r\n".encode()


STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def dribble(writer: asyncio.StreamWriter, text: str) -> None:
    """Send a byte a second, for as long as somebody listens. The first of events come at once, to be counted."""
    writer.write(text.encode())
    number = 0
    while not writer.is_closing():
        byte = WORDS[number % len(WORDS)]
        writer.write(f"1\r\n{byte}\r\n".encode())
        await writer.drain()
        await asyncio.sleep(1)
        number += 1


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request after the other."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n")[0].split(" ", 2)
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:])}
        left, kept = int(fields.get("content-length") or 0), b""
        size = left
        try:
            while left:
                part = await reader.read(min(left, 1 << 16))
                if not part:
                    break
                left -= len(part)
                kept = (kept + part)[: 1 << 16]
        finally:
            try:
                body = json.loads(kept)
            except ValueError:
                body = {}
            model = body.get("model") if isinstance(body, dict) else None
            key = fields.get("authorization") or fields.get("x-api-key")
            tell(
                method=method,
                path=target,
                host=fields.get("host"),
                model=model,
                key=key,
                body=size - left,
                headers=fields,
            )
        if left:
            return
        if model == CONFIG["busy"]:
            writer.write(answer("429 Too Many Requests", b'{"error": {"message": "busy"}}'))
        elif model == CONFIG["dribble"]:
            end = WORDS.replace("drip", "first")
            await dribble(writer, f"{STREAM}{len(end):x}\r\n{end}\r\n")
        elif target == "/slow":
            await dribble(writer, STREAM)
        elif model is not None and target.endswith("/chat/completions"):
            writer.write(completion(body))
        else:
            writer.write(answer("200 OK", b'{"ok": true}'))
        await writer.drain()


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take whatever comes, answer nothing, and tell how much it was."""
    size = 0
    try:
        while part := await reader.read(1 << 16):
            size += len(part)
    finally:
        tell(swallowed=size)


def serving(serve: Any) -> Any:
    """Return a callback that ends quietly with its connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    return handle


async def main() -> None:
    """Serve on all three ports."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/srv/server.pem")
    everywhere = "0.0.0.0"
    await asyncio.start_server(serving(converse), everywhere, 443, ssl=context, backlog=1024)
    await asyncio.start_server(serving(converse), everywhere, 80, backlog=1024)
    await asyncio.start_server(serving(swallow), everywhere, 8080, backlog=4096)
    tell(ready=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

"""An upstream for benchmarks, over TLS or plain: a chat completion as JSON or as 50 chunks, and bodies of any size."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys

MODEL = "gpt-4o-mini"
TEXT = "Nothing is as practical as a good measurement. " * 4
_HEAD = {"id": "c1", "created": 1, "model": MODEL}
_USAGE = {"prompt_tokens": 60, "completion_tokens": 50, "total_tokens": 110}
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
WHOLE = json.dumps({**_HEAD, "object": "chat.completion", "choices": [_CHOICE], "usage": _USAGE}).encode()
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(WHOLE), WHOLE)
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = 50


def _framed(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def _chunk(**fields: object) -> bytes:
    return _framed(json.dumps({**_HEAD, "object": "chat.completion.chunk", **fields}).encode())


_DELTA = _chunk(choices=[{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
_LAST = _chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
_END = _chunk(choices=[], usage=_USAGE) + _framed(b"[DONE]") + b"0\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests until the other side has had enough."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in head else 0
            body = await reader.readexactly(size)
            if head.startswith(b"get /size/"):
                await _sized(writer, int(head.split(b"/size/")[1].split()[0]))
            elif b'"stream":true' in body or b'"stream": true' in body:
                writer.write(SSE)
                for _ in range(CHUNKS - 1):
                    writer.write(_DELTA)
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write(_LAST + _END)
            else:
                writer.write(JSON)
            await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        writer.close()


async def _sized(writer: asyncio.StreamWriter, size: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size)
    part = b"x" * 65536
    while size > 0:
        writer.write(part[:size])
        size -= len(part)
        await writer.drain()


async def main(address: str, certificate: str) -> None:
    """Listen on 443, with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(serve, address, 443, ssl=context, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A remote MCP server over streamable HTTP, TLS and a Unix socket, that does what it is told to."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.gateway.hostile import LISTS, TOKEN, TOOLS

HOST = "mcp.example"
URL = f"https://{HOST}/mcp"


@dataclass
class Remote:
    """What arrived: the head of each request, and how much of the answers was taken."""

    mode: str
    heads: list[bytes] = field(default_factory=list)
    sent: int = 0


def head(status: str, kind: str, *more: str, length: int | None = None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {kind}", size, *more, "", ""]).encode()


def plain(body: bytes, *more: str, kind: str = "application/json", status: str = "200 OK") -> bytes:
    return head(status, kind, *more, length=len(body)) + body


@cache
def bomb() -> bytes:
    """A small gzip document that becomes large: 256 MiB."""
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def events(*messages: bytes) -> bytes:
    body = b"".join(b": hello\r\nevent: message\r\ndata: " + message + b"\r\n\r\n" for message in messages)
    return head("200 OK", "text/event-stream; charset=utf-8") + chunk(body) + chunk(b"")


def result(number: Any, value: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": value}).encode()


def text(value: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}]}


NOTE = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'
ASK = b'{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}'
ANSWERS: dict[str, Callable[[int], bytes]] = {
    "json": lambda n: plain(result(n, text("hello"))),
    "stream": lambda n: events(NOTE, ASK, result(n + 1, text("not yours")), result(n, text("hello"))),
    "split": lambda n: head("200 OK", "text/event-stream") + b"".join(
        chunk(bytes([byte]))
        for byte in b"data: " + result(n, text("hello")).replace(b', "', b',\r\ndata:"') + b"\r\n\r\n"
    ) + chunk(b""),
    "redirect": lambda _: plain(b"", "Location: https://evil.example/mcp", status="307 Temporary Redirect"),
    "redirect-here": lambda _: plain(b"", "Location: /elsewhere", status="308 Permanent Redirect"),
    "encoded": lambda n: plain(gzip.compress(result(n, text("hello"))), "Content-Encoding: gzip"),
    "html": lambda _: plain(b"<h1>hello</h1>", kind="text/html"),
    "no-kind": lambda n: plain(result(n, text("hello")), kind=""),
    "junk": lambda _: plain(b"{"),
    "batch": lambda n: plain(b"[" + result(n, text("hello")) + b"]"),
    "other-id": lambda n: plain(result(n + 1, text("hello"))),
    "string-id": lambda n: plain(result(str(n), text("hello"))),
    "other-ids": lambda n: events(result(n + 1, text("a")), result(0, text("b")), result(str(n), text("c"))),
    "empty": lambda _: plain(b"", status="202 Accepted"),
    "unauthorised": lambda _: plain(b"", f'WWW-Authenticate: Bearer realm="{TOKEN}"', status="401 Unauthorized"),
    "error-page": lambda _: plain(TOKEN.encode(), status="500 Oops"),
    "echo": lambda n: plain(result(n, text(f"you said {TOKEN}"))),
    "session-long": lambda n: plain(result(n, text("hello")), "Mcp-Session-Id: " + "s" * 300),
    "session-empty": lambda n: plain(result(n, text("hello")), "Mcp-Session-Id: "),
    "session-latin": lambda n: plain(result(n, text("hello")), "Mcp-Session-Id: caf\u00e9"),
    "session-bare-cr": lambda n: plain(result(n, text("hello")), "Mcp-Session-Id: a\rX-Injected: b"),
    "cookie": lambda n: plain(result(n, text("hello")), "Set-Cookie: track=1; Path=/"),
    "not-http": lambda _: b"SSH-2.0-x\r\n\r\n",
    "lies-about-length": lambda n: plain(result(n, text("hello"))).replace(b"Content-Length: ", b"Content-Length: 9"),
    "huge-head": lambda n: plain(result(n, text("hello")), "X-Fill: " + "x" * 2_000_000),
}  # fmt: skip


async def endless(remote: Remote, writer: asyncio.StreamWriter, first: bytes, part: bytes, pause: float = 0) -> None:
    """Send without end, and count what is taken."""
    writer.write(first)
    while True:
        writer.write(part)
        await writer.drain()
        remote.sent += len(part)
        await asyncio.sleep(pause)


STREAM = head("200 OK", "text/event-stream")
ENDLESS: dict[str, tuple[bytes, bytes, float]] = {
    "endless-events": (STREAM, chunk(b"data: " + NOTE + b"\n\n"), 0),
    "endless-comments": (STREAM, chunk(b": ping\n\n" * 100), 0),
    "endless-line": (STREAM, chunk(b"data: " + b"x" * 65536), 0),
    "endless-data": (STREAM, chunk(b"data: x\n" * 8192), 0),
    "drip": (STREAM, chunk(b":\n"), 0.1),
    "drip-json": (head("200 OK", "application/json"), chunk(b" "), 0.1),
    "endless-json": (head("200 OK", "application/json"), chunk(b" " * 65536), 0),
    "endless-head": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000, 0),
    "endless-continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0),
    "nothing": (b"", b"", 0.1),
}


async def serve(remote: Remote, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer honestly until the call, or the notification where the mode says so."""
    while True:
        lines = await reader.readuntil(b"\r\n\r\n")
        remote.heads.append(lines)
        length = int(lines.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        message = json.loads(await reader.readexactly(length))
        number = message.get("id")
        match message["method"]:
            case "initialize":
                about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "remote", "version": "1"}}
                value = {"protocolVersion": "2025-11-25", **about}
                writer.write(plain(result(number, value), "Mcp-Session-Id: session-1", "Set-Cookie: a=b; Path=/"))
            case "notifications/initialized" if remote.mode == "endless-notified":
                await endless(remote, writer, head("200 OK", "text/plain"), chunk(b"x" * 65536))
            case "notifications/initialized" if remote.mode == "bomb-notified":
                writer.write(plain(bomb(), "Content-Encoding: gzip"))
            case "tools/list":
                writer.write(plain(result(number, {"tools": LISTS.get(remote.mode, TOOLS)})))
            case "tools/call" if remote.mode in ENDLESS:
                await endless(remote, writer, *ENDLESS[remote.mode])
            case "tools/call":
                writer.write(ANSWERS.get(remote.mode, ANSWERS["json"])(number))
            case _:
                writer.write(plain(b"", status="202 Accepted"))
        await writer.drain()


@asynccontextmanager
async def remote(mode: str, path: Path, tls: ssl.SSLContext) -> AsyncIterator[Remote]:
    """A server that does `mode`, at a Unix socket."""
    server = Remote(mode)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(server, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.transport.abort()

    path.unlink(missing_ok=True)
    listener = await asyncio.start_unix_server(handle, path, ssl=tls)
    try:
        yield server
    finally:
        listener.close()
        listener.close_clients()

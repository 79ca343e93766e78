"""Cuts the bytes of a keep-alive connection into heads and bodies, each read strictly, and writes heads anew.

Threat: what two readers frame differently (request smuggling). So nothing goes on as it came: heads are rebuilt from
what was judged, bodies are taken out of their framing, and what has no single reading ends the connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

from proxy.egress.head import split_head
from proxy.egress.relay import CHUNK, Source
from proxy.egress.types import EgressRequest, Head, Refused

HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 60.0

_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")
_HOP = frozenset({"host", "connection", "keep-alive", "te", "trailer", "upgrade", "http2-settings"})
_FRAMING = frozenset({"content-length", "transfer-encoding"})


async def read_head(source: Source, *, wait: float = HEAD_SECONDS, slow: float = HEAD_SECONDS) -> bytes | None:
    """Return the next head; None when none begins within `wait` seconds; raise `Refused` for a bad or slow one."""
    buffer = b""
    try:
        async with asyncio.timeout(wait) as patience:
            while (end := split_head(buffer)) is None:
                part = await source.read(CHUNK)
                if not part:
                    if buffer:
                        raise Refused("CSM-P001", "the connection ended inside a request head")
                    return None
                if not buffer:
                    patience.reschedule(asyncio.get_running_loop().time() + slow)
                buffer += part
    except TimeoutError as error:
        if not buffer:
            return None
        raise Refused("CSM-P002", f"request head took over {slow:.0f} seconds") from error
    source.put_back(buffer[end:])
    return buffer[:end]


def onward(head: Head, request: EgressRequest) -> list[tuple[bytes, bytes]]:
    """Return the headers that go on: the judged place in Host, and none that is for this proxy or this connection."""
    default = 443 if request.scheme == "https" else 80
    where = request.host if request.port == default else f"{request.host}:{request.port}"
    own = _HOP | tokens(head, "connection")
    kept = [(k, v) for k, v in head.headers if k in _FRAMING or (k not in own and not k.startswith("proxy-"))]
    return [(k.encode("ascii"), v.encode("latin-1")) for k, v in (("host", where), *kept)]


def tokens(head: Head, name: str) -> set[str]:
    """Return the tokens of a header, in lower case."""
    return {token.strip().lower() for token in (head.get(name) or "").split(",")}


def has_body(head: Head) -> bool:
    """Whether a request has a body."""
    return head.get("transfer-encoding") is not None or head.get("content-length") not in (None, "0")


async def body(source: Source, head: Head) -> AsyncGenerator[bytes]:
    """Yield the body of a request in parts of at most `CHUNK`, without its framing; raise `Refused` (P001)."""
    if head.get("transfer-encoding") is not None:
        while size := await _chunk_size(source):
            async for part in _exactly(source, size):
                yield part
            await _line_end(source)
        await _line_end(source)  # trailers could smuggle headers: there are none
        return
    async for part in _exactly(source, int(head.get("content-length") or 0)):
        yield part


async def _exactly(source: Source, size: int) -> AsyncGenerator[bytes]:
    while size:
        part = await source.read(min(size, CHUNK))
        if not part:
            raise Refused("CSM-P001", "the connection ended inside a request body")
        size -= len(part)
        yield part


async def _line(source: Source, limit: int) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        part = await source.read(1)
        if not part or len(line) > limit or (part == b"\n" and line[-1:] != b"\r"):
            raise Refused("CSM-P001", "malformed chunk")
        line += part
    return line[:-2]


async def _chunk_size(source: Source) -> int:
    line = await _line(source, 16)
    if not _CHUNK_SIZE.fullmatch(line):
        raise Refused("CSM-P001", "malformed chunk")
    return int(line, 16)


async def _line_end(source: Source) -> None:
    if await _line(source, 2):
        raise Refused("CSM-P001", "malformed chunk")

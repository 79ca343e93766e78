"""Cuts the bytes of a keep-alive connection into requests, each with a head that was parsed strictly.

mitmproxy forwards folded lines and bare line feeds and takes heads of any size. So it never reads from a cell: it
reads from here, where each head was taken apart, judged and written anew, and each body was counted. The next
request is not read before the last one is answered, so that nothing piles up.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable

from proxy.egress.head import parse_head, split_head
from proxy.egress.normalise import normalise
from proxy.egress.relay import CHUNK, Source, Traffic
from proxy.egress.types import EgressRequest, Head, Refused

HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 60.0

_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")
_HOP = frozenset({"host", "connection", "keep-alive", "te", "trailer", "upgrade", "http2-settings"})


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


def render(head: Head, request: EgressRequest) -> bytes:
    """Return the head as it goes on: the judged target, the same in Host, and no header that is for this proxy."""
    where = request.host if request.port == 80 else f"{request.host}:{request.port}"
    lines = [f"{head.method} http://{where}{request.path} {head.version}", f"host: {where}"]
    lines += [f"{name}: {text}" for name, text in head.headers if name not in _HOP and not name.startswith("proxy-")]
    if "close" in (head.get("connection") or "").lower():
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Requests:
    """A reader for mitmproxy: the first request, whose head was read already, then the following ones.

    `announce` is told of each request before its first byte is handed out, and None once it was read and answered;
    `refused` is told why the stream ended.
    """

    def __init__(
        self,
        source: Source,
        first: tuple[Head, EgressRequest],
        announce: Callable[[EgressRequest | None], None],
        refused: Callable[[Refused], None],
        traffic: Traffic,
    ) -> None:
        self._source, self._announce, self._refused, self._traffic = source, announce, refused, traffic
        self._answered = asyncio.Event()
        self._bytes = self._generate(first)

    async def read(self, _size: int = -1) -> bytes:
        """Return the next bytes; empty at the end. They are at most `CHUNK` long, or one head."""
        data = await anext(self._bytes, b"")
        self._traffic.sent += len(data)
        return data

    def answered(self) -> None:
        """Say that the last request got its whole response."""
        self._answered.set()

    async def _generate(self, first: tuple[Head, EgressRequest]) -> AsyncGenerator[bytes]:
        head, request = first
        try:
            while True:
                self._announce(request)
                yield render(head, request)
                async for part in _body(self._source, head):
                    yield part
                await self._answered.wait()
                self._answered.clear()
                self._announce(None)
                data = await read_head(self._source, wait=KEEP_ALIVE_SECONDS)
                if data is None:
                    return
                head = parse_head(data)
                request = _plain(head)
        except Refused as refused:
            self._refused(refused)


def _plain(head: Head) -> EgressRequest:
    request = normalise(head)
    if request.scheme != "http":
        raise Refused("CSM-P010", "a tunnel wants a connection of its own", host=request.host)
    return request


async def _body(source: Source, head: Head) -> AsyncGenerator[bytes]:
    if head.get("transfer-encoding") is not None:
        while size := await _chunk_size(source):
            yield b"%x\r\n" % size
            async for part in _exactly(source, size):
                yield part
            await _line_end(source)
            yield b"\r\n"
        await _line_end(source)  # trailers could smuggle headers: there are none
        yield b"0\r\n\r\n"
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

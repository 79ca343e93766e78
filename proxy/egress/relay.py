"""Moves bytes between two connections that have been judged already: backpressure, half-close, an idle limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.egress.types import Refused

IDLE_SECONDS = 15 * 60.0
CHUNK = 64 * 1024


@dataclass(slots=True)
class Traffic:
    """Bytes that went out of the cell (`sent`) and came into it (`received`)."""

    sent: int = 0
    received: int = 0


class Reader(Protocol):
    """Where bytes of a cell come from: its connection, or what was decrypted of it."""

    async def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    """Where bytes for a cell go."""

    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool: ...


class Source:
    """A reader that can be looked into: bytes that were read too far are put back."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._kept = reader, b""

    async def read(self, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        if self._kept:
            part, self._kept = self._kept[:size], self._kept[size:]
            return part
        return await self._reader.read(size)

    def put_back(self, data: bytes) -> None:
        """Make `data` what the next read returns first."""
        self._kept = data + self._kept


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever state it is in."""
    writer.close()
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        async with asyncio.timeout(5):
            await writer.wait_closed()


def _unbounded(_size: int) -> None:
    """Let everything move."""


async def relay(
    inner: Source,
    inner_writer: asyncio.StreamWriter,
    outer: asyncio.StreamReader,
    outer_writer: asyncio.StreamWriter,
    traffic: Traffic,
    idle: float = IDLE_SECONDS,
    take: Callable[[int], None] = _unbounded,
) -> None:
    """Copy both ways until both sides have ended, one has broken, or nothing has moved for `idle` seconds.

    `take` is told how many bytes are about to move, and raises `Refused` when they must not.
    """
    loop = asyncio.get_running_loop()
    last = loop.time()

    async def out() -> None:
        nonlocal last
        while data := await inner.read():
            take(len(data))
            outer_writer.write(data)
            traffic.sent += len(data)
            await outer_writer.drain()
            last = loop.time()
        outer_writer.write_eof()

    async def back() -> None:
        nonlocal last
        while data := await outer.read(CHUNK):
            take(len(data))
            inner_writer.write(data)
            traffic.received += len(data)
            await inner_writer.drain()
            last = loop.time()
        inner_writer.write_eof()

    tasks = {asyncio.create_task(out()), asyncio.create_task(back())}
    try:
        while pending := {task for task in tasks if not task.done()}:
            left = last + idle - loop.time()
            if left <= 0:
                raise Refused("CSM-P002", f"nothing moved for {idle:.0f} seconds")
            done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            failures = [task.exception() for task in done]
            for failure in failures:
                if isinstance(failure, Refused):
                    raise failure
            if any(failures):
                break  # one side is broken: the other has nobody to talk to
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

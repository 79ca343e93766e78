"""Moves bytes between two connections that have been judged already: backpressure, half-close, an idle limit."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from proxy.egress.splice import Way
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

    async def rest(self, transport: asyncio.Transport) -> bytes:
        """Return what was read already, without waiting for more; from now on nothing is read here."""
        reader = cast("asyncio.StreamReader", self._reader)
        transport.pause_reading()
        reader.feed_eof()  # of the buffer, not of the connection
        data, self._kept = self._kept + await reader.read(-1), b""
        transport.pause_reading()  # a reader whose buffer was full has just asked for more
        return data


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
    """Move bytes both ways until both sides have ended, one has broken, or nothing has moved for `idle` seconds.

    `take` is told how many bytes are about to move, and raises `Refused` when they must not. What the streams have
    read already goes first; from then on the kernel moves the rest, and the streams are only good to be closed.
    """
    wires, ways = list[socket.socket](), list[Way]()
    try:
        try:
            async with asyncio.timeout(idle):
                early, wire = await _hand_on(inner, inner_writer, outer_writer, take)
                wires.append(wire)
                traffic.sent += early
                early, wire = await _hand_on(Source(outer), outer_writer, inner_writer, take)
                wires.append(wire)
                traffic.received += early
        except TimeoutError as error:
            raise _idle(idle) from error
        ways = [Way(wires[0], wires[1], take), Way(wires[1], wires[0], take)]
        await _both(ways, idle)
    except OSError:
        pass  # one side is broken: the other has nobody to talk to
    finally:
        for way in ways:
            way.close()
        for wire in wires:
            wire.close()
        if ways:
            traffic.sent += ways[0].moved
            traffic.received += ways[1].moved


async def _hand_on(
    source: Source, own: asyncio.StreamWriter, other: asyncio.StreamWriter, take: Callable[[int], None]
) -> tuple[int, socket.socket]:
    """Pass on what a side's streams have read already; return how much that was, and the side's socket."""
    data = await source.rest(cast("asyncio.Transport", own.transport))
    other.transport.set_write_buffer_limits(0)
    if data:
        take(len(data))
        other.write(data)
    await other.drain()  # with a limit of nothing: until nothing is left
    return len(data), own.get_extra_info("socket").dup()


def _idle(seconds: float) -> Refused:
    return Refused("CSM-P002", f"nothing moved for {seconds:.0f} seconds")


async def _both(ways: Sequence[Way], idle: float) -> None:
    """Wait for the end of both ways. Raises what ended one of them, or `Refused` when nothing moves."""
    clock = asyncio.get_running_loop().time
    while pending := {way.done for way in ways if not way.done.done()}:
        left = max(way.last for way in ways) + idle - clock()
        if left <= 0:
            raise _idle(idle)
        done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for way in done:
            way.result()

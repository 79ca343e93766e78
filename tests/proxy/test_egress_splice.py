"""Tunnels whose bytes the kernel moves: ends, cuts, peers that stop, vanish or are slow, and what is left of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.egress.relay import Source, Traffic, relay
from proxy.egress.splice import PIPE, PIPES, Pipes
from proxy.egress.types import Refused
from tests.proxy.kit import run

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Tunnel:
    """A relay between a client (a Unix socket, as a cell's) and a server (TCP), and what it made of them."""

    client: Streams
    server: Streams
    traffic: Traffic = field(default_factory=Traffic)
    task: asyncio.Task[None] | None = None

    async def ended(self) -> BaseException | None:
        assert self.task is not None
        (found,) = await asyncio.gather(self.task, return_exceptions=True)
        return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def tunnel(
    root: Path, *, early: bytes = b"", idle: float = 20, quota: int | None = None
) -> AsyncIterator[Tunnel]:
    """`early` is what the client said before the relay took over; `quota` is in bytes of both ways."""
    arrived: asyncio.Queue[Streams] = asyncio.Queue()
    listener = await asyncio.start_unix_server(lambda r, w: arrived.put_nowait((r, w)), root / "t.sock")
    outside: asyncio.Queue[Streams] = asyncio.Queue()
    origin = await asyncio.start_server(lambda r, w: outside.put_nowait((r, w)), "127.0.0.1", 0)
    client = await asyncio.open_unix_connection(root / "t.sock")
    inner = await arrived.get()
    outer = await asyncio.open_connection(*origin.sockets[0].getsockname()[:2])
    it = Tunnel(client, await outside.get())
    left = quota

    def take(size: int) -> None:
        nonlocal left
        if left is not None:
            if size > left:
                raise Refused("CSM-P012", "no more")
            left -= size

    if early:
        client[1].write(early)  # more of it than the relay's streams take is still on its way
        await asyncio.sleep(0.05)
    it.task = asyncio.create_task(relay(Source(inner[0]), inner[1], *outer, it.traffic, idle, take))
    try:
        yield it
    finally:
        it.task.cancel()
        await asyncio.gather(it.task, return_exceptions=True)
        for _, writer in (inner, outer, it.client, it.server):
            writer.close()
        for server in (listener, origin):
            server.close()


async def pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    for at in range(0, len(data), 100_000):
        writer.write(data[at : at + 100_000])
        await writer.drain()
    writer.write_eof()


@pytest.mark.parametrize("size", [0, 1, 100_000, 20_000_000])
@pytest.mark.parametrize("early", [b"", b"hello", b"x" * 500_000])
def test_every_byte_arrives_both_ways_at_once_and_ends_arrive_too(root: Path, size: int, early: bytes) -> None:
    up, down = os.urandom(size), os.urandom(size)

    async def scenario() -> None:
        async with tunnel(root, early=early) as it:
            _, _, got_up, got_down = await asyncio.gather(
                pour(it.client[1], up), pour(it.server[1], down), it.server[0].read(-1), it.client[0].read(-1)
            )
            assert await it.ended() is None
        assert hashlib.sha256(got_up).digest() == hashlib.sha256(early + up).digest()
        assert hashlib.sha256(got_down).digest() == hashlib.sha256(down).digest()
        assert (it.traffic.sent, it.traffic.received) == (len(early) + size, size)

    run(scenario())


def test_who_has_ended_one_way_still_hears_the_other(root: Path) -> None:
    async def scenario() -> None:
        async with tunnel(root) as it:
            it.client[1].write(b"question")
            it.client[1].write_eof()
            assert await it.server[0].read(-1) == b"question"
            await asyncio.sleep(0.05)
            assert it.task is not None
            assert not it.task.done()
            await pour(it.server[1], b"a long answer" * 50_000)
            assert await it.client[0].read(-1) == b"a long answer" * 50_000
            assert await it.ended() is None

    run(scenario())


@pytest.mark.parametrize("early", [b"", b"x" * 60_000])
def test_a_quota_cuts_before_the_bytes_that_are_too_many(root: Path, early: bytes) -> None:
    limit = 3_000_000

    async def scenario() -> None:
        async with tunnel(root, early=early, quota=limit) as it:

            async def flood() -> None:
                with suppress(OSError):
                    await pour(it.client[1], b"x" * 10_000_000)

            flooding = asyncio.create_task(flood())
            got = b""
            reading = asyncio.create_task(it.server[0].read(-1))
            refused = await it.ended()
            assert isinstance(refused, Refused)
            assert refused.code == "CSM-P012"
            moved = it.traffic.sent
            assert limit - PIPE <= moved <= limit
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
        got = await reading
        assert len(got) == moved

    run(scenario())


def test_a_quota_that_is_spent_early_lets_nothing_through(root: Path) -> None:
    async def scenario() -> None:
        async with tunnel(root, early=b"x" * 1000, quota=999) as it:
            assert isinstance(await it.ended(), Refused)
            assert (it.traffic.sent, it.traffic.received) == (0, 0)
        assert await it.server[0].read(-1) == b""

    run(scenario())


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_peer_that_stops_reading_holds_back_the_other_and_little_waits(root: Path, way: str) -> None:
    async def scenario() -> None:
        async with tunnel(root) as it:
            (_, talks), (listens, deaf) = (it.client, it.server) if way == "up" else (it.server, it.client)
            deaf.transport.pause_reading()  # type: ignore[attr-defined]
            sent = 0

            async def flood() -> None:
                nonlocal sent
                for _ in range(2000):
                    talks.write(b"x" * 100_000)
                    await talks.drain()
                    sent += 100_000

            before = memory()
            flooding = asyncio.create_task(flood())
            await asyncio.sleep(1)
            stuck = sent
            await asyncio.sleep(0.5)
            assert sent == stuck < 30_000_000  # what sockets and one pipe hold, and not a byte more
            assert memory() - before < 4 << 20
            deaf.transport.resume_reading()  # type: ignore[attr-defined]
            got = 0
            while got < 200_000_000:
                got += len(await listens.read(1 << 20))
            await flooding

    run(scenario(), seconds=60)


def memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("stuck", [False, True])
def test_a_peer_that_vanishes_ends_the_tunnel(root: Path, who: str, stuck: bool) -> None:
    """`stuck`: it had stopped reading before, so that bytes for it wait in the pipe."""

    async def scenario() -> None:
        async with tunnel(root) as it:
            gone, other = (it.client[1], it.server[1]) if who == "client" else (it.server[1], it.client[1])
            if stuck:
                gone.transport.pause_reading()  # type: ignore[attr-defined]
                other.write(b"x" * 20_000_000)
                await asyncio.sleep(0.3)
            wire = gone.get_extra_info("socket")
            if who == "server":
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.transport.abort()
            other.write(b"still there?")
            async with asyncio.timeout(5):
                if who == "client" and not stuck:
                    other.write_eof()
                assert await it.ended() is None

    before = descriptors()
    run(scenario())
    assert descriptors() <= before + 2 * 8  # the pipes that are kept for the next


def test_nothing_is_left_of_many_tunnels_but_a_few_empty_pipes(root: Path) -> None:
    async def scenario() -> None:
        for _ in range(30):
            async with tunnel(root) as it:
                it.server[1].transport.pause_reading()  # type: ignore[attr-defined]
                it.client[1].write(b"x" * 20_000_000)
                await asyncio.sleep(0.02)

    run(scenario())
    before = descriptors()
    run(scenario())
    assert descriptors() <= before + 2


def test_a_tunnel_that_only_listens_is_alive_while_bytes_come(root: Path) -> None:
    async def scenario() -> None:
        async with tunnel(root, idle=0.5) as it:
            for _ in range(6):
                it.server[1].write(b"x")
                await asyncio.sleep(0.2)
            assert await it.client[0].read(6) == b"xxxxxx"
            refused = await it.ended()
            assert isinstance(refused, Refused)
            assert refused.code == "CSM-P002"

    run(scenario())


def test_a_pipe_with_bytes_in_it_is_given_to_nobody() -> None:
    pipes = Pipes()
    one = pipes.take()
    os.write(one[1], b"of somebody")
    pipes.give(one, empty=False)
    other = pipes.take()
    with pytest.raises(BlockingIOError):
        os.read(other[0], 100)
    pipes.give(other, empty=True)
    assert pipes.take() == other
    pipes.give(other, empty=False)
    assert PIPES is not pipes

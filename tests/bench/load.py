"""Load for benchmarks: raw asyncio clients, and what the processes under load spent meanwhile."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a client reaches the upstream: `address` or the socket `unix`, by CONNECT to `connect` if there is one, in
    TLS with `context`."""

    address: tuple[str, int] = ("", 0)
    unix: Path | None = None
    connect: str | None = None
    context: ssl.SSLContext | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """CPU µs a request, of each process group; latencies in ms; requests a second."""

    cpu_us: float
    p50_ms: float
    p99_ms: float
    rate: float


def tree(pids: Iterable[int]) -> set[int]:
    """Return the processes and all their descendants."""
    found, parents = set(pids), {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds that processes and their descendants have used."""
    total = 0
    for pid in tree(pids):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory_mb(pids: Iterable[int]) -> float:
    """Return the memory of processes and their descendants in MB; what they share is counted once (PSS)."""
    total = 0
    for pid in tree(pids):
        try:
            lines, key = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines(), "Pss:"
        except OSError:  # of another user: what is shared is counted, too
            lines, key = Path(f"/proc/{pid}/status").read_text().splitlines(), "VmRSS:"
        total += sum(int(line.split()[1]) for line in lines if line.startswith(key))
    return total / 1000


async def open_way(way: Way) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the upstream, whatever stands between."""
    if way.unix is not None:
        return await asyncio.open_unix_connection(way.unix)
    reader, writer = await asyncio.open_connection(*way.address)
    if way.connect is not None:
        writer.write(f"CONNECT {way.connect} HTTP/1.1\r\nHost: {way.connect}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(head.decode("latin-1"))
    if way.context is not None:
        await writer.start_tls(way.context, server_hostname=way.name)
    return reader, writer


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> list[float]:
    """Make one request; return the times (s) at which parts of the answer came."""
    began = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head[:20]:
        raise RuntimeError((head + await reader.read(2000)).decode("latin-1"))
    low = head.lower()
    if b"content-length:" in low:
        left = int(low.split(b"content-length:")[1].split(b"\r\n")[0])
        while left:
            part = await reader.read(min(left, 1 << 16))
            if not part:
                raise RuntimeError("the answer broke off")
            left -= len(part)
        return [time.perf_counter() - began]
    times = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
        times.append(time.perf_counter() - began)
    await reader.readexactly(2)
    return times


async def _client(way: Way, request: bytes, count: int, times: list[float]) -> None:
    reader, writer = await open_way(way)
    times.extend([(await exchange(reader, writer, request))[-1] for _ in range(count)])
    writer.close()


async def _stranger(way: Way, request: bytes, count: int, times: list[float]) -> None:
    for _ in range(count):
        began = time.perf_counter()
        await _client(way, request, 1, [])
        times.append(time.perf_counter() - began)


async def _many(way: Way, request: bytes, connections: int, count: int, times: list[float], *, kept: bool) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task((_client if kept else _stranger)(way, request, count, times))


def measure(
    way: Way, request: bytes, connections: int, total: int, pids: Iterable[int], *, kept: bool = True
) -> Measured:
    """Make `total` requests over so many connections at a time, after some that warm up.

    Unless connections are `kept`, each request has one of its own, and its time is that of the whole.
    """
    pids = list(pids)
    asyncio.run(_many(way, request, min(connections, 8), 5, [], kept=kept))
    times: list[float] = []
    before, began = cpu_s(pids), time.perf_counter()
    asyncio.run(_many(way, request, connections, max(1, total // connections), times, kept=kept))
    elapsed, spent = time.perf_counter() - began, cpu_s(pids) - before
    times.sort()
    return Measured(
        cpu_us=spent / len(times) * 1e6,
        p50_ms=times[len(times) // 2] * 1e3,
        p99_ms=times[int(len(times) * 0.99)] * 1e3,
        rate=len(times) / elapsed,
    )

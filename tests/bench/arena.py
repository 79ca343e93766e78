"""Runs inside the bench image: every contestant in turn, under the same load, against the same upstream over TLS.

What is measured is the CPU of a contestant's own processes, whatever they are: ours are the relay, the llm proxy and
the firewall together, with every check on.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path

import msgspec

from tests.authority import Authority
from tests.bench.contestants import (
    LLM,
    ROOT,
    WEB,
    Contestant,
    client_context,
    listens,
    litellm,
    mitmdump,
    nginx,
    ours,
    own_address,
    running,
    squid,
)
from tests.bench.load import Measured, Way, cpu_s, exchange, measure, memory_mb, open_way
from tests.bench.upstream import TEXT


def chat(*, stream: bool) -> bytes:
    body = msgspec.json.encode({
        "model": "teacher", "max_tokens": 256, "messages": [{"role": "user", "content": TEXT}],
        **({"stream": True} if stream else {}),
    })  # fmt: skip
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {LLM}\r\nAuthorization: Bearer sk-client\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def get(size: int) -> bytes:
    return f"GET /size/{size} HTTP/1.1\r\nHost: {WEB}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()


def show(title: str, rows: list[list[str]], head: list[str]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


LOAD = ["", "requests", "CPU µs a request", "p50 ms", "p99 ms", "requests/s", "memory MB"]


def row(who: Contestant, label: str, request: bytes, connections: int, total: int, *, kept: bool = True) -> list[str]:
    m: Measured = measure(who.way, request, connections, total, who.pids, kept=kept)
    numbers = [f"{m.cpu_us:,.0f}", f"{m.p50_ms:.2f}", f"{m.p99_ms:.2f}", f"{m.rate:,.0f}", f"{memory_mb(who.pids):.0f}"]
    return [who.name, f"{label}, {connections} connections", *numbers]


def llm_doors(ip: str, bare: Contestant, connections: list[int]) -> None:
    rows: list[list[str]] = []
    starts: list[list[str]] = []

    def compete(who: Contestant, scale: float = 1) -> None:
        for kind, stream, total in (("JSON", False, 3000), ("SSE, 50 chunks", True, 600)):
            request, count = chat(stream=stream), int(total * scale)
            rows.extend(row(who, kind, request, many, max(count, many)) for many in connections)

    compete(bare)
    for start in (nginx, litellm):
        with start(ip) as who:
            compete(who, 0.2 if start is litellm else 1)
            starts.append([who.name, f"{who.start_s:.2f}", f"{who.start_cpu:.2f}"])
    with ours(inspect=False) as doors:
        compete(doors["llm"])
        rows.append(row(doors["llm only"], "JSON", chat(stream=False), 32, 3000))
        starts += [
            [doors[n].name, f"{doors[n].start_s:.2f}", f"{doors[n].start_cpu:.2f}"] for n in ("llm only", "firewall")
        ]
    show("LLM door", rows, LOAD)
    show("Start-up", starts, ["", "seconds", "CPU seconds"])


def egress_doors(ip: str, bare: Contestant, connections: list[int]) -> None:
    rows = [row(bare, "GET", get(200), many, 3000) for many in connections]
    with mitmdump(ip) as who:
        rows += [row(who, "GET", get(200), many, max(600, many)) for many in connections]
        rows.append(row(who, "GET, a new connection each", get(200), 8, 200, kept=False))
    with ours(inspect=True) as doors:
        rows += [row(doors["egress"], "GET", get(200), many, 3000) for many in connections]
        rows.append(row(doors["firewall"], "GET", get(200), 32, 3000))
        rows.append(row(doors["firewall"], "GET, a new connection each", get(200), 8, 800, kept=False))
        body = peak(doors["firewall"], get(100_000_000))
    with squid(ip) as who:
        rows.append(row(who, "GET", get(200), 32, 3000))
        streams = [stream(who)]
    with ours(inspect=False) as doors:
        rows.append(row(doors["firewall"], "GET", get(200), 32, 3000))
        streams += [stream(doors["firewall"]), stream(doors["egress"])]
        idle = asyncio.run(idle_tunnels(doors["firewall"], 100))
    show("Egress door", rows, LOAD)
    show("A tunnelled stream of 1 GB", streams, ["", "CPU ms a 100 MB", "MB/s"])
    show(
        "Memory of the firewall",
        [["100 idle tunnels", f"{idle:.0f} MB"], ["a body of 100 MB adds", f"{body:.1f} MB"]],
        ["", ""],
    )


def stream(who: Contestant, size: int = 1_000_000_000) -> list[str]:
    before, began = cpu_s(who.pids), time.perf_counter()
    asyncio.run(_once(who.way, get(size)))
    elapsed, spent = time.perf_counter() - began, cpu_s(who.pids) - before
    return [who.name, f"{spent * 1000 * 100e6 / size:,.0f}", f"{size / 1e6 / elapsed:,.0f}"]


async def _once(way: Way, request: bytes) -> None:
    reader, writer = await open_way(way)
    await exchange(reader, writer, request)
    writer.close()


async def idle_tunnels(who: Contestant, count: int) -> float:
    """Return the memory of a process that holds so many tunnels open."""
    opened = [await open_way(who.way) for _ in range(count)]
    for reader, writer in opened:
        await exchange(reader, writer, get(10))
    found = memory_mb(who.pids)
    for _, writer in opened:
        writer.close()
    return found


def peak(who: Contestant, request: bytes) -> float:
    """Return by how many MB a request raises the peak of a process's memory."""
    (pid,) = who.pids
    asyncio.run(_once(who.way, get(1000)))
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is what it has now
    before = _peak_mb(pid)
    asyncio.run(_once(who.way, request))
    return _peak_mb(pid) - before


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1000


def main() -> None:
    """Print the tables as Markdown. Arguments: `llm` or `egress` alone, and numbers of connections."""
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    ip, authority = own_address(), Authority()
    (ROOT / "ca.pem").write_bytes(authority.pem)
    (ROOT / "server.pem").write_bytes(authority.server([LLM, WEB]))
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"{ip} {LLM} {WEB}\n")
    words = sys.argv[1:]
    connections = [int(word) for word in words if word.isdigit()] or [1, 32, 256]
    upstream = [sys.executable, "-m", "tests.bench.upstream", ip, str(ROOT / "server.pem")]
    with running(upstream, listens(443, ip)) as (pid, _, _):
        bare = Contestant("bare upstream", Way(address=(ip, 443), context=client_context(), name=LLM), [pid])
        if "egress" not in words:
            llm_doors(ip, bare, connections)
        if "llm" not in words:
            egress_doors(ip, bare, connections)


if __name__ == "__main__":
    main()

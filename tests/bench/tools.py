"""`python -m tests.bench.tools`: what a call of an MCP tool costs through the gateway, and through two other proxies.

Nothing else should run meanwhile. What is measured is the CPU of what stands between client and server: of the gateway
with its bridge, or of the proxy; the server's own is in a row of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from policies.plan import Pin, Plan, Tool
from policies.vocabulary import Component
from tests.bench.load import Measured, Way, cpu_s, measure, memory_mb, tree
from tests.gateway.hostile import TOOLS
from tests.gateway.kit import AUTHORITY, birth, make_output, make_plan

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "tests/gateway/hostile.py"
CALLS, CONNECTIONS = 3000, (1, 16)
PLAIN = "/mcp"
"""The path of a proxy that has one server."""
PROXY = """
import sys
from fastmcp.client.transports import StdioTransport
from fastmcp.server import create_proxy
create_proxy(StdioTransport(sys.executable, ["-S", *sys.argv[1:3]])).run(
    transport="http", host="127.0.0.1", port=8005, path="/mcp/fixture", stateless_http=True, json_response=True,
    show_banner=False, log_level="critical")
"""


def request(path: str = "/mcp/fixture") -> bytes:
    """One call, as a client of the handshake era sends it."""
    params = {"name": "look", "arguments": {"q": "how much is it"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {AUTHORITY}\r\nContent-Type: application/json\r\n"
    accept = "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n"
    return f"{head}{accept}Content-Length: {len(body)}\r\n\r\n".encode() + body


def plan(tools: Sequence[dict[str, Any]], **more: dict[str, list[str]]) -> Plan:
    """One stage with the tools of the server; `more` are its resources and prompts."""
    pins = [Pin(name=tool["name"], reads=True, definition=tool) for tool in tools]
    tool = Tool(name="fixture", image="i", url=None, secret=None, egress=[], pins=pins)
    made = make_plan(make_output(), stages={"draft": ["samples"]})
    stages = [msgspec.structs.replace(made.stages[0], tools={"fixture": [pin.name for pin in pins]}, **more)]
    return msgspec.structs.replace(made, stages=stages, tools=[tool])


@contextmanager
def process(command: list[str], **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process; it is killed after."""
    ours_first = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": ours_first, **dict(more.pop("env", {}))}  # type: ignore[call-overload]
    with subprocess.Popen(command, cwd=ROOT, env=environment, **more) as running:  # type: ignore[call-overload]
        try:
            yield running
        finally:
            running.kill()


def ours(root: Path) -> AbstractContextManager[tuple[Way, list[int], int]]:
    """The gateway before the server."""
    return gateway(root, [sys.executable, "-S", str(SERVER), "honest"], plan(TOOLS))


@contextmanager
def gateway(root: Path, command: list[str], made: Plan) -> Iterator[tuple[Way, list[int], int]]:
    """The gateway, a bridge and a server; yield the way, what stands between, and the server."""
    for folder in ("doors/draft", "buffer", "tools/draft/fixture", "bridge"):
        (root / folder).mkdir(parents=True)
    (root / "bridge/tools").symlink_to(root / "tools/draft/fixture")
    with ExitStack() as stack:
        (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
        server = stack.enter_context(process(command, stdin=in_read, stdout=out_write))
        command = [sys.executable, "-m", "gateway", "bridge", "--root", str(root / "bridge")]
        bridge = stack.enter_context(process(command, stdin=out_read, stdout=in_write, stderr=subprocess.DEVNULL))
        for end in (in_read, in_write, out_read, out_write):
            os.close(end)
        events = stack.enter_context((root / "events.jsonl").open("wb"))
        command = [sys.executable, "-m", "gateway", "serve", "--root", str(root)]
        serve = stack.enter_context(process(command, stdin=subprocess.PIPE, stdout=events))
        assert serve.stdin is not None
        serve.stdin.write(birth(made, Component.GATEWAY))
        serve.stdin.close()
        while b"component.ready" not in (root / "events.jsonl").read_bytes():
            assert serve.poll() is None
            time.sleep(0.01)
        yield Way(unix=root / "doors/draft/mcp.sock"), [serve.pid, bridge.pid], server.pid


def fastmcp(_: Path) -> AbstractContextManager[tuple[Way, list[int], int]]:
    """The proxy of fastmcp, which starts the server itself, without sessions and without streams: its fastest."""
    return beside("fastmcp", ["-c", PROXY, str(SERVER), "honest"], request())


def mcp_proxy(_: Path) -> AbstractContextManager[tuple[Way, list[int], int]]:
    """mcp-proxy, which starts the server itself, without sessions."""
    words = ["--port", "8005", "--stateless", "--", sys.executable, "-S", str(SERVER), "honest"]
    return beside("mcp-proxy", ["-m", "mcp_proxy", *words], request(PLAIN))


@contextmanager
def beside(name: str, words: list[str], call: bytes) -> Iterator[tuple[Way, list[int], int]]:
    """Another proxy, with libraries of its own."""
    variable = name.upper().replace("-", "_")
    python = os.environ.get(f"{variable}_PYTHON", sys.executable)
    env = {"PYTHONPATH": os.environ.get(f"{variable}_PATH", f"/opt/beside/{name}"), "HOME": "/tmp"}
    with process([python, *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as proxy:
        way = Way(address=("127.0.0.1", 8005))
        deadline = time.monotonic() + 60
        while True:
            try:
                measure(way, call, 1, 1, [])
                break
            except (OSError, RuntimeError, asyncio.IncompleteReadError, ExceptionGroup):
                assert proxy.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        (server,) = tree([proxy.pid]) - {proxy.pid}
        yield way, [proxy.pid], server


async def direct(connections: int, total: int) -> tuple[float, float]:
    """The official client over standard streams, with nothing between; return calls a second and µs of its own CPU."""
    mcp, stdio = importlib.import_module("mcp"), importlib.import_module("mcp.client.stdio")
    server = mcp.StdioServerParameters(command=sys.executable, args=["-S", str(SERVER), "honest"])
    async with stdio.stdio_client(server) as (reader, writer), mcp.ClientSession(reader, writer) as session:
        await session.initialize()

        async def some() -> None:
            for _ in range(total // connections):
                await session.call_tool("look", {"q": "how much is it"})

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(some() for _ in range(connections)))
        return total / (time.perf_counter() - began), (time.process_time() - cpu) / total * 1e6


def compete() -> None:
    """Measure, and print a table."""
    print("| | calls at once | CPU µs a call | the server's own µs | p50 ms | p99 ms | calls/s | memory MB |")
    print("|---|---|---|---|---|---|---|---|")
    for many in CONNECTIONS:
        rate, cpu = asyncio.run(direct(many, CALLS))
        print(f"| `mcp` client over stdio, its own CPU | {many} | {cpu:,.0f} | | | | {rate:,.0f} | |", flush=True)
    contestants = (
        ("ours, gateway + bridge", ours, CALLS, request()),
        ("fastmcp proxy", fastmcp, CALLS // 3, request()),
        ("mcp-proxy", mcp_proxy, CALLS // 3, request(PLAIN)),
    )
    for name, start, calls, call in contestants:
        for many in CONNECTIONS:
            with tempfile.TemporaryDirectory(prefix="csm-") as folder, start(Path(folder)) as (way, pids, server):
                before = cpu_s([server])
                m: Measured = measure(way, call, many, calls, pids)
                served = (cpu_s([server]) - before) / calls * 1e6
                own = m.cpu_us - (served if server in tree(pids) else 0)
                numbers = [f"{own:,.0f}", f"{served:,.0f}", f"{m.p50_ms:.2f}", f"{m.p99_ms:.2f}", f"{m.rate:,.0f}"]
                print(f"| {name} | {many} | {' | '.join(numbers)} | {memory_mb(pids):.0f} |", flush=True)


def main() -> int:
    """Build the image and compete in it; with `inside`, compete here."""
    if sys.argv[1:] == ["inside"]:
        compete()
        return 0
    from sandbox.engine.host import connect
    from sandbox.engine.images import BENCH, build_all
    from tests.rooms import checkout

    build_all(connect(), lambda text: print(f"· {text}", flush=True), (BENCH,))
    script = "set -e; mkdir /tmp/src; tar -x -C /tmp/src; cd /tmp/src; exec python3 -m tests.bench.tools inside"
    command = ["docker", "run", "--rm", "-i", BENCH.name, "sh", "-c", script]
    return subprocess.run(command, input=checkout(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

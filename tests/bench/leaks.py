"""`python -m tests.bench.leaks`: what is left of servers that were started anew, and of sessions that were dropped.

Containers are counted in the engine, the rest in /proc: of this process, which starts servers, and of a gateway.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

RESTARTS, SERVERS, SESSIONS = 100, 4, 1000


@dataclass(frozen=True)
class Census:
    """What a process has, and what the engine has of it."""

    memory_mb: float
    tasks: int
    sockets: int
    files: int
    containers: int = 0
    volumes: int = 0


def census(pid: int, containers: int = 0, volumes: int = 0) -> Census:
    """Count what a process has."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    ends = []
    for end in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that they are listed with
            ends.append(str(end.readlink()))
    sockets = sum(end.startswith("socket:") for end in ends)
    memory = int(status["VmRSS"].split()[0]) / 1024
    return Census(memory, int(status["Threads"]), sockets, len(ends), containers, volumes)


def restarts(count: int = RESTARTS, servers: int = SERVERS) -> tuple[Census, Census, int]:
    """Kill servers `count` times while they run; return before, after, and how often one was seen to run."""
    import msgspec

    from policies.plan import Tool
    from sandbox.cells.tool_servers import ToolServers
    from sandbox.engine.host import connect
    from sandbox.topology.layout import LABEL_RUN
    from sandbox.topology.specs import VolumeSpec
    from sandbox.topology.tool_cells import tool_cell
    from tests.plans import plan

    engine, run = connect(), f"leaks-{uuid.uuid4().hex[:8]}"
    labels, prefix = {LABEL_RUN: run}, f"casemate-{run}-"
    images = {
        name: str(engine.image_id(name)) for name in ("casemate/gateway", "casemate/relay", "casemate/agent-python")
    }
    tools = [
        Tool(
            name=f"s{n}",
            image="casemate/agent-python",
            url=None,
            secret=None,
            egress=[],
            run=["python", "-c", "import time; time.sleep(600)"],
        )
        for n in range(servers)
    ]
    made = msgspec.structs.replace(plan(), tools=tools)
    stage = made.stages[0]
    cells = [tool_cell(prefix, made, stage, stage.name, tool, images, labels) for tool in tools]

    def things(kind: str) -> int:
        return sum(thing["kind"] == kind for thing in engine.labelled(run))

    def kill(name: str, times: int) -> int:
        seen = 0
        for number in range(times):
            until = time.monotonic() + 60
            while not engine.is_running(f"{name}-{number}") and time.monotonic() < until:
                time.sleep(0.02)
            seen += engine.is_running(f"{name}-{number}")
            engine.kill(f"{name}-{number}")
        return seen

    def killed(times: int) -> int:
        """Kill each server so often; return how often one was seen to run."""
        volumes = [VolumeSpec(name=f"{prefix}{stage.name}-inputs", labels=labels)]
        volumes += [volume for cell in cells for volume in cell.sockets]
        for volume in volumes:
            engine.create_volume(volume)
        with (
            tempfile.TemporaryDirectory() as folder,
            ToolServers(engine, cells, Path(folder), {}, starts=times + 1),
            ThreadPoolExecutor(servers) as pool,
        ):
            seen = sum(pool.map(kill, [cell.tool.name for cell in cells], [times] * servers))
        for volume in volumes:
            engine.remove("volume", volume.name)
        return seen

    killed(4)  # so that the engine's client has as many connections as it keeps
    before = census(os.getpid(), things("container"), things("volume"))
    seen = killed(count // servers)
    return before, census(os.getpid(), things("container"), things("volume")), seen


def sessions(count: int = SESSIONS) -> tuple[Census, Census, int]:
    """Open `count` sessions at a gateway and drop them; return before, after, and how many were open."""
    from tests.bench.tools import ours

    with tempfile.TemporaryDirectory(prefix="csm-") as folder, ours(Path(folder)) as (way, pids, _):
        gateway = pids[0]
        for _ in range(50):
            _session(way.unix)  # everything is loaded, and every list has its size
        time.sleep(1)
        before, opened = census(gateway), 0
        for _ in range(count):
            opened += _session(way.unix)
        until = time.monotonic() + 20
        while census(gateway).sockets > before.sockets and time.monotonic() < until:
            time.sleep(0.2)
        return before, census(gateway), opened


def _session(path: Path | None) -> bool:
    """Open a session, call a tool, ask for one more thing and go away before the answer; return whether it was open."""
    connection = http.client.HTTPConnection("127.0.0.1", 5000)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(path))
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "leaks", "version": "1"}}
    said = b""
    asks = [("initialize", about), ("tools/call", {"name": "look", "arguments": {"q": "x"}}), ("tools/list", {})]
    for number, (method, params) in enumerate(asks, 1):
        body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        head = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if number > 1:
            head["MCP-Protocol-Version"] = "2025-11-25"
        connection.request("POST", "/mcp/fixture", body, head)
        if method != "tools/list":
            said = connection.getresponse().read()
    connection.close()
    return b"look: x" in said


def show(what: str, before: Census, after: Census, done: int) -> None:
    """Print a row of each."""
    for when, one in (("before", before), ("after", after)):
        values = [f"{value:,.1f}" if isinstance(value, float) else str(value) for value in asdict(one).values()]
        print(f"| {what}, {when} {done:,} | {' | '.join(values)} |", flush=True)


def main() -> int:
    """Count, and print a table; `sessions` counts those alone, where the gateway's libraries are."""
    if sys.argv[1:] == ["sessions"]:
        show("sessions at the gateway", *sessions())
        return 0
    print("| | memory MB | tasks | sockets | files | containers | volumes |")
    print("|---|---|---|---|---|---|---|", flush=True)
    show("servers started anew", *restarts())
    command = [sys.executable, "-m", "tests.rooms", "run", "tests.bench.leaks", "sessions"]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

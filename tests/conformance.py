"""`python -m tests.conformance`: the official MCP conformance suite, at a server directly and through the gateway.

Needs Node 22 with npm, and what the gateway's image has. Scenarios of resources, prompts, completion, sampling and
elicitation are left out: the gateway refuses those methods whatever a server offers.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.bench.tools import gateway
from tests.gateway.conforming import TOOLS

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements/npm/conformance"
SERVER = ROOT / "tests/gateway/conforming.py"
DIRECT, DOOR = 5078, 5000
SCENARIOS = (
    "server-initialize", "ping", "tools-list", "tools-call-simple-text", "tools-call-image", "tools-call-audio",
    "tools-call-embedded-resource", "tools-call-mixed-content", "tools-call-error", "json-schema-2020-12",
    "dns-rebinding-protection", "server-sse-multiple-streams", "server-sse-polling", "tools-call-with-logging",
    "tools-call-with-progress", "logging-set-level",
)  # fmt: skip


@contextmanager
def relay(port: int, door: Path) -> Iterator[None]:
    """Bring a port of loopback to a socket, as the relay of a cell does."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(door)
        await asyncio.gather(carry(reader, outer), carry(inner, writer))

    async def serve() -> None:
        async with await asyncio.start_server(handle, "127.0.0.1", port) as listener:
            await listener.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    time.sleep(0.5)
    yield


def passes(suite: Path, url: str, scenario: str) -> bool:
    """Run one scenario."""
    command = ["node", str(suite), "server", "--url", url, "--scenario", scenario]
    return subprocess.run(command, cwd=suite.parent, capture_output=True, timeout=120, check=False).returncode == 0


def main() -> int:
    """Run every scenario twice; return 1 when one ends otherwise than it should."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="csm-") as folder, ExitStack() as stack:
        root = Path(folder)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(LOCK / file, root)
        flags = ["--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(["npm", "ci", *flags], cwd=root, check=True, stdout=subprocess.DEVNULL)
        suite = root / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
        direct = stack.enter_context(subprocess.Popen([sys.executable, str(SERVER), str(DIRECT)], env={**os.environ}))
        stack.callback(direct.kill)
        (root / "run").mkdir()
        way, _, _ = stack.enter_context(gateway(root / "run", [sys.executable, str(SERVER)], TOOLS))
        assert way.unix is not None
        stack.enter_context(relay(DOOR, way.unix))
        for scenario in SCENARIOS:
            alone = passes(suite, f"http://127.0.0.1:{DIRECT}/mcp", scenario)
            through = passes(suite, f"http://127.0.0.1:{DOOR}/mcp/fixture", scenario)
            good = alone and through
            wrong += not good
            print(f"{'ok ' if good else 'BAD'} {scenario}: direct {alone}, through the gateway {through}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

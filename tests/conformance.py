"""`python -m tests.conformance`: the official MCP conformance suite, at a server directly and through the gateway.

Needs Node 22 with npm, and what the gateway's image has. Run is all that the requirements of a revision score for a
server; `LEFT_OUT` says what of it the gateway does not do, and why.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.bench.tools import gateway, plan
from tests.gateway.conforming import PROMPTS, TOOLS

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements/npm/conformance"
SERVER = ROOT / "tests/gateway/conforming.py"
DIRECT, DOOR = 5078, 5000
ASKS = "the server asks the client (sampling, elicitation, roots): the gateway refuses it, whatever a client offers"
OUTSIDE = "the server speaks outside of an answer: the gateway has no stream for that, and says so"
MISSING = "an error about what a client does not offer, which the gateway never offers to a server"
LEFT_OUT: dict[str, str] = {
    "tools-call-sampling": ASKS,
    "tools-call-elicitation": ASKS,
    "elicitation-sep1034-defaults": ASKS,
    "elicitation-sep1330-enums": ASKS,
    "input-required-result": ASKS,
    "resources-subscribe": OUTSIDE,
    "resources-unsubscribe": OUTSIDE,
    "sep-2575-server-rejects-undeclared-capability": MISSING,
    "sep-2575-missing-capability-http-400": MISSING,
}
"""Scenarios, by the beginning of their names, and single checks, that are out of scope, and why."""
REVISIONS = {"2025-11-25": ("direct", "through"), "2026-07-28": ("through",)}
"""What is run of each revision's requirements. The fixture itself speaks only the older one."""


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


def failures(suite: Path, url: str, revision: str, out: Path) -> dict[str, list[str]]:
    """Run what a revision requires of a server; return the failed checks of every scored scenario that was run."""
    command = ["node", str(suite), "server", "--url", url, "--requirements", revision, "--output-dir", str(out)]
    done = subprocess.run(command, cwd=suite.parent, capture_output=True, text=True, timeout=900, check=False)
    unscored = set(re.findall(r"^  [✓✗] (\S+) \(", done.stdout, re.MULTILINE))
    found: dict[str, list[str]] = {}
    for file in sorted(out.glob("**/checks.json")):
        name = re.sub(r"^server-|-\d{4}-\d{2}-\d{2}T.*$", "", file.parent.name)
        if name not in unscored:
            found[name] = [one["id"] for one in json.loads(file.read_text()) if one["status"] == "FAILURE"]
    return found


def judge(scenario: str, failed: list[str]) -> str:
    """Return in a word what a scenario's failed checks mean: `ok`, `out` of scope, or `BAD`."""
    reasons = [reason for name, reason in LEFT_OUT.items() if scenario.startswith(name)]
    wrong = [check for check in failed if check not in LEFT_OUT]
    return "ok " if not failed else "out" if reasons or not wrong else "BAD"


def main() -> int:
    """Run every scenario of both revisions; return 1 when one that is in scope fails, or none was run."""
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
        made = plan(TOOLS, resources={"fixture": ["test://*"]}, prompts={"fixture": list(PROMPTS)})
        way, _, _ = stack.enter_context(gateway(root / "run", [sys.executable, str(SERVER)], made))
        assert way.unix is not None
        stack.enter_context(relay(DOOR, way.unix))
        urls = {"direct": f"http://127.0.0.1:{DIRECT}/mcp", "through": f"http://127.0.0.1:{DOOR}/mcp/fixture"}
        for revision, ways in REVISIONS.items():
            for name in ways:
                found = failures(suite, urls[name], revision, root / f"{revision}-{name}")
                wrong += not found
                for scenario, failed in found.items():
                    word = judge(scenario, failed)
                    wrong += word == "BAD"
                    print(f"{word} {revision} {name} {scenario} {' '.join(failed)}".rstrip(), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

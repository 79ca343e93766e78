"""A tool server with a desk before it: the bridge and the server are real processes, the socket is real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.serve.notes import Tell
from gateway.serve.servers.session import Open, Patience, Session
from gateway.serve.servers.stdio import StdioPeer
from gateway.serve.texts import Texts
from gateway.serve.tooldesk import ToolDesk
from gateway.serve.types import Head
from policies.events import EventWriter
from policies.plan import Pin, Tool, ToolRule
from policies.vocabulary import Component
from tests.gateway.hostile import TOKEN, TOOLS
from tests.gateway.kit import REPO

WRITES = frozenset({"drop"})
PINS = [Pin(name=tool["name"], reads=tool["name"] not in WRITES, definition=tool) for tool in TOOLS]
WANTED = ("look", "count")
HEAD = Head(version=None, method=None, name=None)
SHORT = Patience(open_s=1.5, call_s=1.5)


def make_tool(name: str = "fixture", **changes: Any) -> Tool:
    """A server in a container, whose tools are pinned as the fixture has them."""
    values: dict[str, Any] = {"name": name, "image": "i", "url": None, "secret": None, "egress": [], "pins": PINS}
    return Tool(**{**values, **changes})


def call(name: str, arguments: dict[str, Any], number: Any = 1) -> bytes:
    """The body of a call of the handshake era."""
    return ask("tools/call", {"name": name, "arguments": arguments}, number)


def ask(method: str, params: dict[str, Any] | None = None, number: Any = 1) -> bytes:
    """The body of a request of the handshake era."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}).encode()


class Agent:
    """What an agent does at a desk, what comes back, and the events that were written."""

    def __init__(
        self,
        open_peer: Open,
        patience: Patience = SHORT,
        wanted: Sequence[str] = WANTED,
        tool: Tool | None = None,
        rules: Sequence[ToolRule] = (),
        texts: Texts | None = None,
    ) -> None:
        self.lines: list[bytes] = []
        emit = EventWriter(Component.GATEWAY, self.lines.append)
        self.session = Session(tool or make_tool(), open_peer, patience)
        self.desk = ToolDesk("draft", tool or make_tool(), wanted, self.session, emit, (TOKEN,), rules, texts)

    async def call(self, name: str = "look", q: str | None = "x") -> dict[str, Any]:
        """Call a tool; return the JSON-RPC answer."""
        return await self.send(call(name, {} if q is None else {"q": q}))

    async def send(self, body: bytes, tell: Tell | None = None) -> dict[str, Any]:
        """Send a body; return the decoded answer. `tell` hears what comes before it."""
        answer: dict[str, Any] = json.loads((await self.desk.answer(HEAD, body, tell)).body)
        return answer

    async def tools(self) -> list[str]:
        """Return the names of the tools that are listed."""
        return [tool["name"] for tool in (await self.send(ask("tools/list")))["result"]["tools"]]

    @property
    def events(self) -> list[tuple[str, str | None, str | None]]:
        """Every event: its name, verdict and rule."""
        told = [json.loads(line) for line in self.lines]
        return [(event["event"], event["verdict"], event["rule"]) for event in told]

    def taken(self) -> list[tuple[str, str | None, str | None]]:
        """The events since this was asked last."""
        found = self.events
        self.lines.clear()
        return found


class Pair:
    """A server and its bridge, started anew when they have ended, as the orchestrator does."""

    def __init__(self, mode: str, root: Path, starts: int = 4) -> None:
        self.socket, self._mode, self._root, self._starts = root / "tools" / "stdio.sock", mode, root, starts
        self.socket.parent.mkdir(exist_ok=True)
        self._over, self._running = threading.Event(), list[subprocess.Popen[bytes]]()
        self._thread = threading.Thread(target=self._drive)
        self._thread.start()

    async def open(self) -> StdioPeer:
        """What a session is given to open its server."""
        return await StdioPeer.open(self.socket, 5)

    def end(self) -> None:
        self._over.set()
        for process in self._running:
            process.kill()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _drive(self) -> None:
        for _ in range(self._starts):
            if self._over.is_set():
                return
            self._once()

    def _once(self) -> None:
        (to_server, from_bridge), (to_bridge, from_server) = os.pipe(), os.pipe()
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
        server = subprocess.Popen(
            [sys.executable, str(REPO / "tests/gateway/hostile.py"), self._mode, str(self._root)],
            stdin=to_server, stdout=from_server, stderr=subprocess.DEVNULL, env=env,
        )  # fmt: skip
        bridge = subprocess.Popen(
            [sys.executable, "-m", "gateway", "bridge", "--root", str(self._root)],
            stdin=to_bridge, stdout=from_bridge, stderr=subprocess.DEVNULL, env=env, cwd=REPO,
        )  # fmt: skip
        for end in (to_server, from_server, to_bridge, from_bridge):
            os.close(end)
        self._running = [server, bridge]
        if self._over.is_set():
            server.kill()
        watch = threading.Thread(target=_together, args=(bridge, server))
        watch.start()
        server.wait()
        bridge.kill()
        watch.join()


def _together(one: subprocess.Popen[bytes], other: subprocess.Popen[bytes]) -> None:
    one.wait()
    other.kill()


@contextmanager
def running(mode: str) -> Iterator[Pair]:
    """A server that does `mode`, behind its bridge; its state is in the folder of its socket's folder."""
    root = Path(tempfile.mkdtemp(prefix="csm-"))
    pair = Pair(mode, root)
    try:
        yield pair
    finally:
        pair.end()
        shutil.rmtree(root)

"""MCP servers of a running stage: started before its agent, ended with it, and started again a few times between.

Each server has a thread for each direction that carries bytes between its standard streams and the bridge's. Nothing of
it is parsed here: the orchestrator holds the engine, so it is the last that should read what a hostile server says.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from policies.errors import CasemateError
from sandbox.engine import Attached, Engine
from sandbox.tool_cells import ToolCell

MAX_STARTS = 4
READY_S = 30.0
_PAUSE_S = 0.1
_LOG_BYTES = 1 << 20


class ToolServers:
    """The servers of one stage, as a context: inside it they run."""

    def __init__(self, engine: Engine, cells: Sequence[ToolCell], logs: Path, ready_s: float = READY_S) -> None:
        self._pairs, self._ready_s = [_Pair(engine, cell, logs) for cell in cells], ready_s

    def __enter__(self) -> None:
        for pair in self._pairs:
            pair.start()
        try:
            for pair in self._pairs:
                pair.await_ready(self._ready_s)
        except BaseException:
            self.__exit__()  # else the others would start anew after the run was swept
            raise

    def __exit__(self, *_: object) -> None:
        for pair in self._pairs:
            pair.end()


class _Pair:
    """A server and its bridge. They start together and end together."""

    def __init__(self, engine: Engine, cell: ToolCell, logs: Path) -> None:
        self._engine, self._cell = engine, cell
        self._log = logs / f"{cell.tool.name}.log"
        self._ready, self._over = threading.Event(), threading.Event()
        self._names: list[str] = []
        self._thread = threading.Thread(target=self._drive, name=cell.tool.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def await_ready(self, seconds: float) -> None:
        """Wait until the bridge listens. Raises CSM-R003."""
        if not self._ready.wait(seconds):
            raise CasemateError("CSM-R003", f"the MCP server {self._cell.server} does not start")

    def end(self) -> None:
        self._over.set()
        for name in self._names:
            self._engine.kill(name)
        self._thread.join(READY_S)
        for name in self._names:
            self._engine.remove("container", name)

    def _drive(self) -> None:
        """Start the pair anew when it has ended, with nothing of the one before; not for ever."""
        for number in range(MAX_STARTS):
            with contextlib.suppress(CasemateError, OSError):
                self._once(number)
            if self._over.wait(_PAUSE_S):
                return

    def _once(self, number: int) -> None:
        tool = replace(self._cell.tool, name=f"{self._cell.tool.name}-{number}")
        bridge = replace(self._cell.bridge, name=f"{self._cell.bridge.name}-{number}")
        self._names = [tool.name, bridge.name]
        streams: list[Attached] = []
        for spec in (tool, bridge):
            self._engine.create(spec)
            streams.append(self._engine.attach(spec.name, stdin=True))
            self._engine.start(spec.name)
        server, ours = streams
        outward = threading.Thread(target=self._carry, args=(server, ours.write, self._keep, bridge.name), daemon=True)
        outward.start()
        self._carry(ours, server.write, self._hear, tool.name)
        outward.join(READY_S)
        for name in self._names:
            self._engine.remove("container", name)

    def _carry(
        self, source: Attached, write: Callable[[bytes], None], aside: Callable[[bytes], None], other: str
    ) -> None:
        """Carry what one writes to the other, and its errors aside; when it has ended, so does the other."""
        try:
            for stream, data in source.chunks():
                (write if stream == 1 else aside)(data)
        except OSError:
            pass
        finally:
            self._engine.kill(other)
            source.close()

    def _hear(self, data: bytes) -> None:
        if b"ready" in data:
            self._ready.set()

    def _keep(self, data: bytes) -> None:
        """Keep the beginning of what a server complains about, for people."""
        with self._log.open("ab") as log:
            if log.tell() < _LOG_BYTES:
                log.write(data)

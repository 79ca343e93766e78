"""MCP servers of a running stage: started before its agent, ended with it, and started again a few times between.

Each server has a thread for each direction that carries bytes between its standard streams and the bridge's. Nothing of
it is parsed here: the orchestrator holds the engine, so it is the last that should read what a hostile server says.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from policies.errors import CasemateError
from sandbox.engine.attached import Attached
from sandbox.engine.docker import Engine
from sandbox.topology.tool_cells import ToolCell

MAX_STARTS = 4
READY_S = 30.0
_PAUSE_S = 0.1
_LOG_BYTES = 1 << 20
_LINE_BYTES = 64 << 10


def _sleep(until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))


class ToolServers:
    """The servers of one stage, as a context: inside it they run.

    `secrets` (by name) are blanked in what is kept of their complaints. `meanwhile` is called again and again while
    they start, with the time (monotonic) at which it should come back; what it raises ends them.
    """

    def __init__(
        self,
        engine: Engine,
        cells: Sequence[ToolCell],
        logs: Path,
        secrets: Mapping[str, str],
        *,
        ready_s: float = READY_S,
        starts: int = MAX_STARTS,
        meanwhile: Callable[[float], object] = _sleep,
    ) -> None:
        self._pairs = [
            _Pair(engine, cell, Complaints(logs / f"{cell.tool.name}.log", secrets), starts) for cell in cells
        ]
        self._ready_s, self._meanwhile = ready_s, meanwhile

    def __enter__(self) -> None:
        until = time.monotonic() + self._ready_s
        try:
            for pair in self._pairs:
                pair.start()
            for pair in self._pairs:
                self._await(pair, until)
        except BaseException:
            self.__exit__()  # else the others would start anew after the run was swept
            raise

    def _await(self, pair: _Pair, until: float) -> None:
        while not pair.ready.is_set():
            if time.monotonic() > until:
                raise CasemateError("CSM-R003", f"the MCP server {pair.server} does not start")
            self._meanwhile(time.monotonic() + _PAUSE_S)

    def __exit__(self, *_: object) -> None:
        for pair in self._pairs:
            pair.stop()
        for pair in self._pairs:
            pair.join()


def _carry(source: Attached, write: Callable[[bytes], None], aside: Callable[[bytes], None]) -> None:
    """Carry what one writes to the other, and its errors aside, until it has ended.

    It is read to its end, also when nobody takes it any more: the engine ends no container whose output is not read.
    """
    with contextlib.suppress(OSError):
        for stream, data in source.chunks():
            with contextlib.suppress(OSError):
                (write if stream == 1 else aside)(data)


class Complaints:
    """The beginning of what a server writes to its standard error, for people; without its secret."""

    def __init__(self, path: Path, secrets: Mapping[str, str]) -> None:
        self._path, self._left, self._pending = path, _LOG_BYTES, b""
        # A secret of several lines is printed as several lines; what is shorter than any secret should be stays.
        lines = [line.strip().encode() for value in secrets.values() for line in value.splitlines()]
        self._secrets = sorted((line for line in lines if len(line) >= 4), key=len, reverse=True)

    def take(self, data: bytes) -> None:
        """Keep whole lines; a line without an end is cut."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > _LINE_BYTES:
            lines, self._pending = [*lines, self._pending], b""
        if not lines or self._left <= 0:
            return
        text = b"".join(line + b"\n" for line in lines)
        for secret in self._secrets:
            text = text.replace(secret, b"***")
        with self._path.open("ab") as log:
            self._left -= log.write(text[: self._left])


class _Pair:
    """A server and its bridge. They start together and end together."""

    def __init__(self, engine: Engine, cell: ToolCell, complaints: Complaints, starts: int) -> None:
        self._engine, self._cell, self._complaints, self._starts = engine, cell, complaints, starts
        self.server, self.ready, self._over = cell.server, threading.Event(), threading.Event()
        self._names: list[str] = []
        self._thread = threading.Thread(target=self._drive, name=cell.tool.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._kill()

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(READY_S)

    def _kill(self) -> None:
        for name in self._names:
            self._engine.kill(name)

    def _drive(self) -> None:
        """Start the pair anew when it has ended, with nothing of the one before; not for ever."""
        for number in range(self._starts):
            self._names = [f"{spec.name}-{number}" for spec in (self._cell.tool, self._cell.bridge)]
            try:
                self._once()
            except (CasemateError, OSError):
                pass  # what a server's end looks like from here is not its next start's concern
            finally:
                for name in self._names:
                    self._engine.remove("container", name)
            if self._over.wait(_PAUSE_S):
                return

    def _once(self) -> None:
        with contextlib.ExitStack() as stack:
            streams: list[Attached] = []
            for name, spec in zip(self._names, (self._cell.tool, self._cell.bridge), strict=True):
                self._engine.create(replace(spec, name=name))
                streams.append(self._engine.attach(name, stdin=True))
                stack.callback(streams[-1].close)
                self._engine.start(name)
            if self._over.is_set():
                return  # `stop` may have looked for them before they were there
            (server, ours), (tool, bridge) = streams, self._names
            outward = threading.Thread(target=self._outward, args=(server, ours, bridge), daemon=True)
            outward.start()
            try:
                _carry(ours, server.write, self._hear)
            finally:
                ours.close()  # whoever still writes to it waits no more, and reads on: a server that is read can end
                self._engine.kill(tool)
            outward.join(READY_S)

    def _outward(self, server: Attached, ours: Attached, bridge: str) -> None:
        try:
            _carry(server, ours.write, self._complaints.take)
        finally:
            self._engine.kill(bridge)

    def _hear(self, data: bytes) -> None:
        if b"ready" in data:
            self.ready.set()

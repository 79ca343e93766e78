"""Watch: the running containers of a run as one queue of signals.

One thread a container reads what it writes and waits for its end. The runner takes signals one by one, so everything
that happens in a run happens in one order.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from policies.vocabulary import Component
from sandbox.engine.attached import Attached
from sandbox.engine.docker import Engine, Exit
from sandbox.topology.relays import RELAY_READY
from sandbox.topology.specs import ContainerSpec

_LOG_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Spoke:
    """A trusted component wrote a line to its standard output: an event."""

    component: Component
    line: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """A relay or a model server said that it is ready."""

    name: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A container ended."""

    name: str
    exit: Exit


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Somebody wants the run to stop."""

    signal: int


Signal = Spoke | Ready | Ended | Interrupted


class Watch:
    """Starts containers and turns what they do into signals."""

    def __init__(self, engine: Engine, logs: Path) -> None:
        self._engine, self._logs = engine, logs
        self._queue: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def interrupt(self, signal: int) -> None:
        """Ask for the end of the run; safe to call from a signal handler."""
        self._queue.put(Interrupted(signal))

    def launch(self, spec: ContainerSpec, *, component: Component | None = None, birth: bytes | None = None) -> None:
        """Create, attach to and start a trusted container, and hand it its birth message."""
        self._engine.create(spec)
        attached = self._engine.attach(spec.name, stdin=spec.birth)
        self._engine.start(spec.name)
        self._follow(spec, component, attached)
        if birth is not None:
            attached.send(birth)

    def adopt(self, spec: ContainerSpec, component: Component, birth: bytes) -> None:
        """Attach to a trusted container that runs and waits, and hand it its birth message."""
        attached = self._engine.attach(spec.name, stdin=True, runs=True)
        self._follow(spec, component, attached)
        attached.send(birth)

    def launch_agent(self, spec: ContainerSpec) -> None:
        """Start an agent that has been created. Nothing it writes is a signal; only its end is."""
        self._engine.start(spec.name)
        self._thread(spec.name, lambda: self._ended(spec.name))

    def next(self, timeout_s: float) -> Signal | None:
        """Return the next signal, or None after `timeout_s` seconds without one."""
        try:
            return self._queue.get(timeout=max(timeout_s, 0))
        except queue.Empty:
            return None

    def drain(self, timeout_s: float) -> Iterator[Signal]:
        """Yield what is still to come from containers that were told to stop."""
        deadline = time.monotonic() + timeout_s
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < deadline:
            signal = self.next(0.05)
            if signal is not None:
                yield signal
        while (signal := self.next(0)) is not None:
            yield signal

    def _follow(self, spec: ContainerSpec, component: Component | None, attached: Attached) -> None:
        def read() -> None:
            kept = 0
            with (self._logs / f"{spec.name}.log").open("ab") as log:
                try:
                    for stream, line in attached.lines():
                        if component is not None and stream == 1:
                            self._queue.put(Spoke(component, line))
                            continue
                        if RELAY_READY in line or line == b"ready":
                            self._queue.put(Ready(spec.name))
                        if kept < _LOG_BYTES:
                            kept += log.write(line + b"\n")
                except OSError:
                    pass  # the engine went away: the wait below says how it ended
                finally:
                    attached.close()
            self._ended(spec.name)

        self._thread(spec.name, read)

    def _ended(self, name: str) -> None:
        try:
            how = self._engine.wait(name)
        except Exception:  # noqa: BLE001 - removed, or the engine is gone: either way it no longer runs
            how = Exit(code=-1, out_of_memory=False)
        self._queue.put(Ended(name, how))

    def _thread(self, name: str, target: object) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

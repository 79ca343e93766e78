"""Servers of a stage whose set-up fails: none of them runs on, and none is started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from policies.errors import CasemateError
from sandbox.cells.tool_servers import Complaints, ToolServers
from sandbox.topology.specs import ContainerSpec, VolumeSpec
from sandbox.topology.tool_cells import ToolCell


class Streams:
    """The streams of a container: it says that it is ready, and nothing more until it is killed."""

    def __init__(self) -> None:
        self.killed = threading.Event()

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        yield 2, b"ready\n"
        self.killed.wait(20)

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


class Engine:
    """An engine in memory, on which whatever is called `bad` cannot be created."""

    def __init__(self) -> None:
        self.running: dict[str, Streams] = {}
        self.created: list[str] = []

    def create(self, spec: ContainerSpec) -> None:
        if "bad" in spec.name:
            raise CasemateError("CSM-R003", "no such image")
        self.created.append(spec.name)
        self.running[spec.name] = Streams()

    def attach(self, name: str, *, stdin: bool) -> Streams:
        return self.running[name]

    def start(self, name: str) -> None:
        pass

    def kill(self, name: str) -> None:
        if name in self.running:
            self.running[name].killed.set()

    def remove(self, kind: str, name: str) -> bool:
        self.kill(name)
        self.running.pop(name, None)
        return True


def cell(name: str) -> ToolCell:
    bridge, tool = (ContainerSpec(name=f"{name}{end}", role="x", image="i", uid=1, labels={}) for end in ("-b", ""))
    return ToolCell(server=name, sockets=(VolumeSpec(name=name, labels={}),), bridge=bridge, tool=tool)


def test_when_one_server_does_not_start_none_runs_on_and_none_comes_back(tmp_path: Path) -> None:
    engine = Engine()
    cells = [cell("good"), cell("bad")]
    servers = ToolServers(engine, cells, tmp_path, {}, ready_s=0.5)  # type: ignore[arg-type]
    with pytest.raises(CasemateError, match="the MCP server bad does not start"):
        servers.__enter__()
    assert engine.created, "the honest one never ran, so nothing was proved"
    before = list(engine.created)
    time.sleep(0.5)  # longer than the pause before another start
    assert engine.running == {}
    assert engine.created == before


def test_servers_run_inside_and_end_with_it(tmp_path: Path) -> None:
    engine = Engine()
    with ToolServers(engine, [cell("good")], tmp_path, {}):  # type: ignore[arg-type]
        assert set(engine.running) == {"good-0", "good-b-0"}
    assert engine.running == {}


def test_a_run_that_is_stopped_does_not_wait_for_servers_that_start(tmp_path: Path) -> None:
    engine, asked = Engine(), list[float]()

    def interrupted(until: float) -> None:
        asked.append(until)
        raise CasemateError("CSM-R014", "stopped by signal 2")

    cells = [cell("good"), cell("bad")]
    servers = ToolServers(engine, cells, tmp_path, {}, meanwhile=interrupted)  # type: ignore[arg-type]
    with pytest.raises(CasemateError, match="CSM-R014"):
        servers.__enter__()
    assert len(asked) == 1
    assert engine.running == {}


def test_what_a_server_complains_of_is_kept_without_its_secret_and_not_without_end(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    complaints = Complaints(path, {"key": "first-line-of-a-key\nsecond-line-of-a-key", "short": "abc"})
    for byte in b"cannot log in with second-line-of-a-key\nabc is too short to be blanked\n":
        complaints.take(bytes([byte]))
    assert path.read_text() == "cannot log in with ***\nabc is too short to be blanked\n"
    for _ in range(40):
        complaints.take(b"x" * 65_000)
    assert path.stat().st_size <= 1 << 20


class Flooding(Streams):
    """A server that speaks until it is killed, and of whom something is left then."""

    def __init__(self) -> None:
        super().__init__()
        self.drained = threading.Event()

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        while not self.killed.wait(0.01):
            yield 1, b"x" * 1000
        yield 1, b"the rest"
        self.drained.set()


class Leaving(Streams):
    """A bridge that goes as soon as it is ready. Who writes to it waits until the streams are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = threading.Event(), threading.Event()

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        yield 2, b"ready\n"
        self.written.wait(20)

    def write(self, data: bytes) -> None:
        self.written.set()
        self.closed.wait(20)
        raise OSError("closed")

    def close(self) -> None:
        self.closed.set()


class SlowEngine(Engine):
    """Ends a container only when its output has been read, as Docker does."""

    def __init__(self) -> None:
        super().__init__()
        self.tool, self.ended = Flooding(), list[bool]()

    def attach(self, name: str, *, stdin: bool) -> Streams:
        self.running[name] = Leaving() if "-b-" in name else self.tool
        return self.running[name]

    def kill(self, name: str) -> None:
        super().kill(name)
        if self.running.get(name) is self.tool:
            self.ended.append(self.tool.drained.wait(5))


def test_a_server_that_nobody_listens_to_any_more_is_read_until_it_has_ended(tmp_path: Path) -> None:
    engine = SlowEngine()
    with ToolServers(engine, [cell("good")], tmp_path, {}, starts=1):  # type: ignore[arg-type]
        assert engine.tool.killed.wait(20), "the bridge has not gone"
        engine.tool.drained.wait(20)
    assert engine.ended
    assert all(engine.ended)

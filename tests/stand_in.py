"""A stand-in at the engine's seam: containers that are threads, volumes that are folders, an orchestrator that dies.

What it does in place of containers is what those say and leave: trusted processes are ready, answer the mark that is
asked for, and end; the gateway's buffer and the chain that customs verifies are the real ones. `dies_at` counts the
calls of the orchestrator: at that one, and at each that follows, it is dead, as if it had been killed there. Nothing of
what it would have done then is done; what it had started goes on.
"""

from __future__ import annotations

import io
import json
import queue
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway.customs.chain import expected, rows
from gateway.serve.buffer import Buffer
from policies.canonical import digest
from policies.cells import FACT
from policies.errors import CasemateError
from policies.events import EventWriter
from policies.plan import Plan, encode
from policies.slices import Birth
from policies.vocabulary import Component, EventName, ExitCode, Verdict
from policies.writes import Declaration, Written
from sandbox.cells.volumes import read_tar
from sandbox.engine.docker import Exit
from sandbox.topology.relays import RELAY_READY
from sandbox.topology.specs import LABEL_ROLE, ContainerSpec, VolumeSpec

LINE = tuple[int, bytes]


class Killed(BaseException):
    """The orchestrator is dead."""


class Container:
    """What runs, or has run, or never does."""

    def __init__(self, spec: ContainerSpec) -> None:
        self.spec, self.exit = spec, Exit(code=0, out_of_memory=False)
        self.said: queue.SimpleQueue[LINE | None] = queue.SimpleQueue()
        self.kept: list[bytes] = []
        self.over, self.begun, self.lock = threading.Event(), threading.Event(), threading.Lock()

    def say(self, line: bytes, stream: int = 1) -> None:
        """Write a line to a standard stream."""
        self.kept.append(line)
        self.said.put((stream, line.removesuffix(b"\n")))

    def end(self, code: int) -> None:
        """End, unless it has."""
        with self.lock:
            if self.over.is_set():
                return
            self.exit = Exit(code=code, out_of_memory=False)
            self.over.set()
            self.said.put(None)


class Wire:
    """The standard streams of a container."""

    def __init__(self, container: Container, born: Callable[[bytes], None]) -> None:
        self._container, self.send = container, born

    def lines(self) -> Iterator[LINE]:
        """Yield what it says, to its end."""
        while (line := self._container.said.get()) is not None:
            yield line

    def close(self) -> None:
        """Nothing is held."""


class Cell:
    """What an agent sees. `propose` returns False when it was killed."""

    def __init__(self, engine: StandIn, container: Container) -> None:
        self._engine, self.container, self.env = engine, container, container.spec.env
        self.name = f"{self.env['CASEMATE_STAGE']}.{self.env['CASEMATE_SHARD']}"

    def inputs(self) -> dict[str, bytes]:
        """What lies in /inputs."""
        folder = self._engine.mounted(self.container.spec, "/inputs")
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def propose(self, record: Mapping[str, Any], output: str = "rows") -> bool:
        """Propose a record, by the gateway of the run."""
        return self._engine.propose(self, output, record)


class StandIn:
    """In place of an `Engine`. `agent` is what each agent does; it returns its exit code."""

    setting = "stand-in"

    def __init__(self, folder: Path, agent: Callable[[Cell], int], memory: int = 64 << 30) -> None:
        self._folder, self._agent, self._memory = folder, agent, memory
        self.containers: dict[str, Container] = {}
        self.volumes: dict[str, VolumeSpec] = {}
        self._buffers: dict[str, tuple[Buffer, Container, EventWriter]] = {}
        self._writers: dict[str, EventWriter] = {}
        self._gateway = threading.Lock()
        self.calls, self.dies_at = 0, 0
        self.most = 0

    def _called(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.calls += 1
            if self.dies_at and self.calls >= self.dies_at:
                raise Killed

    # ---- what the orchestrator calls

    def image_id(self, _name: str) -> str:
        return "sha256:" + "a" * 64

    def info(self) -> dict[str, Any]:
        return {"MemTotal": self._memory}

    def create_volume(self, spec: VolumeSpec) -> None:
        self._called()
        self.volumes[spec.name] = spec
        (self._folder / spec.name).mkdir(exist_ok=True)

    def create(self, spec: ContainerSpec) -> None:
        self._called()
        assert spec.name not in self.containers, "a name is given once"
        self.containers[spec.name] = Container(spec)

    def attach(self, name: str, *, stdin: bool, runs: bool = False) -> Wire:
        self._called()
        assert stdin or not runs
        container = self.containers[name]
        return Wire(container, lambda data: self._born(container, msgspec.json.decode(data, type=Birth)))

    def start(self, name: str) -> None:
        self._called()
        container = self.containers[name]
        container.begun.set()
        match container.spec.role:
            case "relay":
                container.say(RELAY_READY, stream=2)
            case "agent":
                running = [c for c in self.containers.values() if c.spec.role == "agent" and self._runs(c)]
                self.most = max(self.most, len(running))
                threading.Thread(target=self._acts, args=[container], daemon=True).start()
            case _:
                pass

    def wait(self, name: str) -> Exit:
        container = self.containers[name]
        container.over.wait()
        return container.exit

    def is_running(self, name: str) -> bool:
        self._called()
        return name in self.containers and self._runs(self.containers[name])

    def kill(self, name: str, signal: str = "SIGKILL") -> None:
        self._called()
        container = self.containers.get(name)
        if container is None:
            return
        if signal == "SIGUSR1":
            writer = self._writers[name]
            with self._gateway:
                writer(EventName.COMPONENT_SYNCED)
        else:
            container.end(0 if signal == "SIGTERM" else 137)

    def logs(self, name: str, **_: object) -> bytes:
        self._called()
        return b"".join(self._container(name).kept)

    def put(self, name: str, archive: bytes) -> None:
        self._called()
        for path, content in read_tar(archive, "").items():
            root, _, rest = path.partition("/")
            target = self.mounted(self._container(name).spec, f"/{root}") / rest
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def get(self, name: str, directory: str, _limit: int) -> bytes:
        self._called()
        root, _, rest = directory.removeprefix("/").partition("/")
        source = self.mounted(self._container(name).spec, f"/{root}") / rest
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            tar.add(source, arcname=rest or root)
        return made.getvalue()

    @contextmanager
    def reading(self, name: str, path: str, limit: int = 1 << 30) -> Iterator[tarfile.TarFile]:
        with tarfile.open(fileobj=io.BytesIO(self.get(name, path, limit)), mode="r|") as archive:
            yield archive

    def labelled(self, run: str | None = None) -> list[dict[str, str]]:
        self._called()
        found = [{**c.spec.labels, "name": name, "kind": "container"} for name, c in self.containers.items()]
        found += [{**spec.labels, "name": name, "kind": "volume"} for name, spec in self.volumes.items()]
        return [thing for thing in found if run in (None, thing["casemate.run"])]

    def pooled(self, _pool: str | None = None) -> list[dict[str, str]]:
        return []

    def remove(self, kind: str, name: str) -> bool:
        self._called()
        if kind == "container" and (container := self.containers.pop(name, None)) is not None:
            container.end(137)
        if kind == "volume" and self.volumes.pop(name, None) is not None:
            shutil.rmtree(self._folder / name)
        return True

    # ---- what containers do

    def _container(self, name: str) -> Container:
        if name not in self.containers:
            raise CasemateError("CSM-R004", f"container {name} is gone", exit_code=ExitCode.STAGE_FAILED)
        return self.containers[name]

    @staticmethod
    def _runs(container: Container) -> bool:
        return container.begun.is_set() and not container.over.is_set()

    def mounted(self, spec: ContainerSpec, target: str) -> Path:
        """Return the folder behind a mount."""
        return self._folder / next(mount.volume for mount in spec.mounts if mount.target == target)

    def _born(self, container: Container, birth: Birth) -> None:
        component = Component(container.spec.labels[LABEL_ROLE])
        writer = EventWriter(component, container.say)
        self._writers[container.spec.name] = writer
        if component is Component.CUSTOMS:
            threading.Thread(target=self._judges, args=[container, birth, writer], daemon=True).start()
            return
        if component is Component.GATEWAY:
            folder = self.mounted(container.spec, "/buffer")
            for cell in birth.facts[FACT].split():
                self._buffers[cell] = Buffer(folder / f"{cell}.jsonl", cell), container, writer
        writer(EventName.COMPONENT_READY)

    def _acts(self, container: Container) -> None:
        container.end(self._agent(Cell(self, container)))

    def propose(self, cell: Cell, output: str, record: Mapping[str, Any]) -> bool:
        """Buffer a record as the gateway does: an event, then the line."""
        with self._gateway:
            buffer, gateway, writer = self._buffers[cell.name]
            if not (self._runs(cell.container) and self._runs(gateway)):
                return False
            line = buffer.draft(output, record)
            attrs = {"casemate.output": output, "casemate.write.id": line.id, "casemate.write.digest": line.digest}
            attrs["casemate.bytes.in"] = len(line.data)  # type: ignore[assignment]
            writer(EventName.WRITE_PROPOSED, stage=cell.name, verdict=Verdict.ALLOW, attrs=attrs)
            buffer.append(line)
            return True

    def _judges(self, container: Container, birth: Birth, writer: EventWriter) -> None:
        """Verify the chain of every buffer, refuse the set where two rows are alike, and write them in order."""
        folder, out = (self.mounted(container.spec, target) for target in ("/in", "/out"))
        buffers = expected(birth.facts, folder)
        lines = [row.record for cell, last in buffers.items() for row in rows(folder / f"{cell}.jsonl", cell, last)]
        (output,) = json.loads(birth.slice)["outputs"]
        keys = [tuple(json.loads(line)[field] for field in output["unique"]) for line in lines]
        unique = len(set(keys)) == len(keys)
        data = b"".join(line + b"\n" for line in lines)
        name = output["name"]
        written = Written(
            output=name, file=f"{name}.jsonl", path=output["path"], digest=digest(data), rows=len(lines), size=len(data)
        )
        declared = Declaration(
            plan=birth.seal.plan,
            accepted={name: len(lines) if unique else 0},
            rejected={name: 0 if unique else len(lines)},
            written=[written] if unique else [],
        )
        (out / f"{name}.jsonl").write_bytes(data)
        (out / "declaration.json").write_bytes(encode(declared) + b"\n")
        attrs = {"casemate.output": name, "casemate.write.accepted": len(lines) if unique else 0}
        writer(EventName.WRITE_JUDGED, attrs=attrs)
        container.end(0)


def images_of(plan: Plan) -> Plan:
    """Return the plan with the images that a stand-in has."""
    same = [msgspec.structs.replace(image, digest="sha256:" + "a" * 64) for image in plan.images]
    return msgspec.structs.replace(plan, images=same)

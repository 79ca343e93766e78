"""A real plan, real slices, real processes; the only things of a test's own are the root directory and the agent."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from policies.cells import FACT
from policies.plan import Bound, Budget, Limits, Output, Plan, Shards, Source, Stage, encode
from policies.slices import seal, slices
from policies.vocabulary import Component

REPO = Path(__file__).resolve().parents[2]
ZERO = "sha256:" + "0" * 64
AUTHORITY = "127.0.0.1:5000"

SAMPLE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "maxLength": 400_000},
        "score": {"type": "number"},
        "n": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "meta": {"type": "object"},
    },
    "required": ["prompt"],
    "additionalProperties": False,
}


def make_output(name: str = "samples", **changes: Any) -> Output:
    """An output with everything that a check can object to."""
    values: dict[str, Any] = {
        "name": name,
        "sink": "dataset",
        "path": f"out/{name}.jsonl",
        "format": "jsonl",
        "schema": SAMPLE_SCHEMA,
        "bounds": {"score": Bound(min=0, max=10)},
        "unique": ["prompt"],
        "scan": ["secrets"],
        "per_run": 100,
        "max_bytes": 1_000_000,
        "atomic": "each",
    }
    return Output(**{**values, **changes})


def make_plan(*outputs: Output, stages: dict[str, list[str]] | None = None, shards: int | None = None) -> Plan:
    """A plan whose stages may propose the given outputs; by default one stage, `draft`, may propose all.

    Each is in so many `shards`, if it is.
    """
    parts = Shards(over="seeds", size=1, parallel=2, count=shards) if shards is not None else None
    everything = [output.name for output in outputs]
    zero = Limits(cpu_millis=1, memory=1, pids=1, disk=1, wall_s=1, calls=1, tokens=1, usd_nanos=1)
    return Plan(
        casemate=1,
        name="testing",
        task="one",
        source=Source(workflow="w.yaml", digest=ZERO, files={}),
        budget=Budget(usd_nanos=1, tokens=1, calls=1, wall_s=1),
        secrets=[],
        models=[],
        images=[],
        inputs=[],
        stages=[
            Stage(
                name=name,
                image="i",
                run=["x"],
                env={},
                needs=[],
                inputs=[],
                models=[],
                egress=[],
                outputs=mine,
                limits=zero,
                shards=parts,
            )
            for name, mine in (stages or {"draft": everything}).items()
        ],
        outputs=list(outputs),
    )


def birth(
    plan: Plan, component: Component, *, secrets: dict[str, str] | None = None, facts: dict[str, str] | None = None
) -> bytes:
    """The birth message of `component`, as the orchestrator writes it."""
    return json.dumps(
        {
            "run": "run-1",
            "seal": msgspec.to_builtins(seal(plan)),
            "slice": encode(slices(plan)[component]).decode(),
            "secrets": secrets or {},
            "facts": {FACT: " ".join(cell for stage in plan.stages for cell in stage.cells), **(facts or {})},
        }
    ).encode()


def start(mode: str, root: Path, message: bytes, wrap: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a trusted process as its container would; `wrap` is a command that runs it."""
    process = subprocess.Popen(
        [*wrap, sys.executable, "-m", "gateway", mode, "--root", str(root)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)},
    )
    assert process.stdin is not None
    try:
        process.stdin.write(message)
        process.stdin.close()
    except BrokenPipeError:
        pass
    return process


class Door(http.client.HTTPConnection):
    """An agent's connection to one door."""

    def __init__(self, path: Path) -> None:
        super().__init__("127.0.0.1", 5000, timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Serving:
    """A running `serve` and what it says."""

    def __init__(self, root: Path, plan: Plan, wrap: tuple[str, ...] = ()) -> None:
        self.root, self.plan = root, plan
        for cell in [cell for stage in plan.stages for cell in stage.cells]:
            (root / "doors" / cell).mkdir(parents=True, exist_ok=True)
        (root / "buffer").mkdir(exist_ok=True)
        self.process = start("serve", root, birth(plan, Component.GATEWAY), wrap)
        self.events: list[dict[str, Any]] = []
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._partial = b""
        while not self.of("component.ready"):
            self._read(wait=30.0)

    def _read(self, wait: float) -> bool:
        """Take up what the process has written; return whether it may write more."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], wait)[0]:
            if wait:
                raise AssertionError("serve said nothing")
            return False
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            if wait:
                assert self.process.stderr is not None
                raise AssertionError(self.process.stderr.read().decode())
            return False
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.events.extend(json.loads(line) for line in lines)
        return True

    def of(self, name: str) -> list[dict[str, Any]]:
        """Every event of that name so far."""
        while self.process.stdout and not self.process.stdout.closed and self._read(0):
            pass
        return [event for event in self.events if event["event"] == name]

    def socket(self, stage: str = "draft") -> Path:
        return self.root / "doors" / stage / "mcp.sock"

    def door(self, stage: str = "draft") -> Door:
        return Door(self.socket(stage))

    def post(
        self,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        stage: str = "draft",
        path: str = "/mcp/writes",
        method: str = "POST",
    ) -> tuple[int, Any]:
        """Send one request; return status and decoded body."""
        door = self.door(stage)
        try:
            given = {"Host": AUTHORITY, "Content-Type": "application/json", **(headers or {})}
            door.request(method, path, body, {k: v for k, v in given.items() if v})
            answer = door.getresponse()
            text = answer.read()
        finally:
            door.close()
        return answer.status, json.loads(text) if text else None

    def rpc(self, method: str, params: dict[str, Any] | None = None, *, stage: str = "draft") -> Any:
        """Send one request of the handshake era and return its decoded answer."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        return self.post(json.dumps(body).encode(), stage=stage)[1]

    def call(self, name: str, arguments: dict[str, Any], *, stage: str = "draft") -> Any:
        """Call a tool and return its result."""
        return self.rpc("tools/call", {"name": name, "arguments": arguments}, stage=stage)["result"]

    def buffer(self, stage: str = "draft") -> bytes:
        return (self.root / "buffer" / f"{stage}.jsonl").read_bytes()

    def vouched(self) -> dict[str, str]:
        """The facts that the orchestrator would draw from the event log."""
        facts = {
            f"buffer/{stage.name}": "sha256:" + "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            for stage in self.plan.stages
        }
        for event in self.of("write.proposed"):
            if event["verdict"] == "allow":
                facts[f"buffer/{event['stage']}"] = event["attrs"]["casemate.write.digest"]
        return facts

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.terminate()
        code = self.process.wait(30)
        self.of("component.ready")
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        return code

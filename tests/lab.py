"""The lab: real runs of real workflows in real cells, for end-to-end and attack tests.

A test writes an agent (a Python program) and says what its stage may do; the lab makes a project of it and runs
`casemate run`, as a user would. What came of it is read from the run's own record.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sandbox.engine.docker import Engine
from sandbox.engine.host import connect
from sandbox.records.log import RunEvent, read_events, verify
from sandbox.records.store import Store

ROOT = Path(__file__).resolve().parents[1]
CASEMATE = [sys.executable, "-m", "sandbox"]
ROW_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text"],
    "properties": {"text": {"type": "string", "maxLength": 5000}, "n": {"type": "integer"}},
}
PROPOSE = '''
import asyncio, json, sys
from mcp import Client

async def propose(*rows, tool="rows"):
    """Propose rows by the official client; return whether each was taken."""
    async with Client("http://127.0.0.1:5000/mcp/writes") as writes:
        return [not (await writes.call_tool(tool, row)).is_error for row in rows]
'''
"""The start of an agent that proposes writes."""


@dataclass(slots=True)
class Result:
    """What came of `casemate run`."""

    exit_code: int
    stdout: str
    stderr: str
    folder: Path | None
    events: list[RunEvent] = field(default_factory=list)

    def of(self, name: str) -> list[RunEvent]:
        """Return the events of one kind."""
        return [event for event in self.events if event.event.value == name]

    @property
    def outcome(self) -> str | None:
        """The outcome that the log ends with."""
        ended = self.of("run.ended")
        return str(ended[-1].attrs["casemate.outcome"]) if ended else None

    def artifact(self, path: str) -> bytes:
        """Return what a stage left for others."""
        assert self.folder is not None
        return (self.folder / "artifacts" / path).read_bytes()

    def agent_log(self, stage: str = "agent") -> str:
        """Return what an agent printed."""
        assert self.folder is not None
        return (self.folder / "logs" / f"{stage}.agent.log").read_text()


class Lab:
    """A project in a folder of its own, with one agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine: Engine = connect()
        self.env: dict[str, str] = {}

    def workflow(self, agent: str, **changes: Any) -> Path:
        """Write a workflow with one stage `agent`; `changes` go into the stage, or with `top` into the workflow."""
        top = changes.pop("top", {})
        (self.folder / "agent.py").write_text(agent)
        (self.folder / "rows.json").write_text(json.dumps(ROW_SCHEMA))
        stage = {
            "name": "agent",
            "image": "casemate/agent-python",
            "run": ["python", "/inputs/agent.py"],
            "limits": {"cpu": 1, "memory": "256MiB", "pids": 64, "disk": "32MiB", "wall": "60s"},
            **changes,
        }
        document: dict[str, Any] = {
            "casemate": 1,
            "name": "lab",
            "budget": {"usd": 1, "tokens": 100_000, "calls": 1000, "wall": "3m"},
            "inputs": {"agent": {"path": "agent.py"}},
            "stages": [stage],
            **top,
        }
        if stage.get("outputs") and "outputs" not in document:
            sink = {"kind": "dataset", "path": "out/rows.jsonl"}
            document["outputs"] = {"rows": {"sink": sink, "schema": "rows.json", "quota": {"per_run": 100}}}
        path = self.folder / "workflow.yaml"
        plain = json.loads(json.dumps(document))  # no value twice, as that would become an anchor
        path.write_text(yaml.safe_dump(plain, sort_keys=False))
        return path

    def start(self, workflow: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start `casemate run` and return its process."""
        return subprocess.Popen(
            [*CASEMATE, "run", str(workflow), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **self.env},
        )

    def go_on(self) -> subprocess.Popen[str]:
        """Start `casemate resume` of the latest run, and return its process."""
        env = {**os.environ, **self.env, "CASEMATE_HOME": str(self.folder / ".casemate")}
        return subprocess.Popen(
            [*CASEMATE, "resume"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env
        )

    def finish(self, process: subprocess.Popen[str], timeout_s: float = 240) -> Result:
        """Wait for the end of a run, and read its record."""
        stdout, stderr = process.communicate(timeout=timeout_s)
        folder = self.run_folder()
        if folder is None:
            return Result(process.returncode, stdout, stderr, None)
        return Result(process.returncode, stdout, stderr, folder, list(read_events(folder)))

    def run(self, workflow: Path, *arguments: str, timeout_s: float = 240) -> Result:
        """Run to the end; the log of what came of it must verify."""
        result = self.finish(self.start(workflow, *arguments), timeout_s)
        if result.folder is not None:
            verify(result.folder)
        return result

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call any other verb."""
        env = {**os.environ, **self.env, "CASEMATE_HOME": str(self.folder / ".casemate")}
        return subprocess.run(
            [*CASEMATE, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=env, timeout=120
        )

    def run_folder(self) -> Path | None:
        """Return the folder of the latest run here."""
        home = self.folder / ".casemate"
        rows = Store(home).runs(limit=1) if home.exists() else []
        return home / "runs" / rows[0]["run"] if rows else None

    def await_event(self, name: str, timeout_s: float = 90, **attrs: Any) -> RunEvent:
        """Return the first event of a kind as soon as it is in the log of the latest run."""

        def look() -> RunEvent | None:
            folder = self.run_folder()
            for event in read_events(folder) if folder else ():
                if event.event.value == name and all(event.attrs.get(k) == v for k, v in attrs.items()):
                    return event
            return None

        found: RunEvent = until(look, timeout_s, f"no event {name}")
        return found

    def container(self, role: str) -> str:
        """Return the name of the running container of a role in the latest run."""
        folder = self.run_folder()
        assert folder is not None
        for thing in self.engine.labelled(folder.name):
            if thing["kind"] == "container" and thing.get("casemate.role") == role:
                return thing["name"]
        raise AssertionError(f"no container of role {role}")

    def left_over(self) -> list[str]:
        """Return what is left in the engine of the runs of this lab."""
        home = str((self.folder / ".casemate").resolve())
        return [thing["name"] for thing in self.engine.labelled() if thing.get("casemate.home") == home]


def until(look: Callable[[], Any], timeout_s: float, failure: str) -> Any:
    """Return the first truthy result of `look`; fail loudly when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        result = look()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(failure)


def mentions(canary: str, texts: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the names of texts in which a canary stands, plain or in base64."""
    import base64

    needles = {canary.encode()}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + canary.encode())
        needles.add(encoded[4 * (shift > 0) + (shift == 2) : -4])
    for name, text in texts.items():
        if any(needle in text for needle in needles):
            yield name

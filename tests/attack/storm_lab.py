"""What tests of storms share: an outside that is as told, a workflow for it, the same storm beside the cells."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import docker

from tests.lab import PROPOSE, Lab
from tests.outside_lab import OutsideLab

STORMS = Path(__file__).with_name("storms.py")
PROVIDER = Path(__file__).resolve().parents[1] / "outside_storm.py"
LLM, WEB, FREE = "llm.example.com", "web.example.com", "free.example.com"
MODELS = {"busy": "gpt-5", "dribble": "gpt-4o-mini", "calm": "gpt-4o"}
KEY = "canary-of-the-storm-5d0c9b7e"
TRUSTED = ("firewall", "llm", "gateway")
MIB = 1 << 20
Found = dict[str, Any]


def outside_as_told() -> OutsideLab:
    """Return the outside; what arrives is told."""
    return OutsideLab({host: ["origin"] for host in (LLM, WEB, FREE)}, PROVIDER, MODELS)


def workflow(lab: Lab, outside: OutsideLab, wanted: Found, wall: str = "80s", **limits: object) -> Path:
    """A workflow whose agent says that it is there, and then does what is wanted."""
    lab.env |= {**outside.env, "PROVIDER_KEY": KEY}
    (lab.folder / "ca.pem").write_bytes(outside.authority)
    (lab.folder / "storm.json").write_text(json.dumps(wanted))
    (lab.folder / "storms.py").write_text(STORMS.read_text())
    near = {"addresses": [outside.subnet]}
    model = {
        "provider": "openai-compatible", "base_url": f"https://{LLM}/v1", "secret": "key", **near,
        "price": {"input": 1, "output": 1}, "max_output_tokens": 100,
    }  # fmt: skip
    files = {"agent": "agent.py", "storms": "storms.py", "storm": "storm.json"}
    top = {
        "secrets": {"key": {"from": "env", "key": "PROVIDER_KEY"}},
        "models": {alias: {**model, "model": name} for alias, name in MODELS.items()},
        "trust": ["ca.pem"],
        "inputs": {name: {"path": path} for name, path in files.items()},
        "budget": {"usd": 20, "tokens": 90_000_000, "calls": 900_000, "wall": "3m"},
    }
    egress = [
        {"host": WEB, **near},
        {"host": WEB, "scheme": "http", "methods": ["GET", "POST"], "quota": {"bytes": "10MiB"}, **near},
        {"host": FREE, "scheme": "http", "methods": ["POST"], **near},
    ]
    bounds = {
        "cpu": 1, "memory": "256MiB", "pids": 64, "disk": "32MiB", "wall": wall,
        "calls": 900_000, "tokens": 90_000_000, "usd": 20, **limits,
    }  # fmt: skip
    agent = PROPOSE + "asyncio.run(propose({'text': 'here'}))\n"
    agent += "import runpy\nrunpy.run_path('/inputs/storms.py', run_name='__main__')\n"
    return lab.workflow(agent, models=list(MODELS), egress=egress, outputs=["rows"], limits=bounds, top=top)


def beside(outside: OutsideLab, wanted: Found) -> Found:
    """Make a storm beside the cells, straight at the outside."""
    output = docker.from_env().containers.run(
        "casemate/agent-python",
        ["python", "-c", STORMS.read_text(), json.dumps(wanted), json.dumps(MODELS)],
        network=outside.network,
        dns=[outside.resolver],
        labels={"casemate-test": "1"},
        remove=True,
    )
    found: Found = json.loads(output.splitlines()[-1])
    return found


def asked(told: list[dict[str, Any]], model: str) -> int:
    return sum(line.get("model") == MODELS[model] for line in told)


class Peaks:
    """The peak memory of a run's trusted processes, while the `with` lasts."""

    def __init__(self, lab: Lab) -> None:
        client = docker.from_env()
        self._pids = {role: client.containers.get(lab.container(role)).attrs["State"]["Pid"] for role in TRUSTED}
        self._first = {role: self._peak(pid) for role, pid in self._pids.items()}
        self._last = dict(self._first)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def grown(self) -> dict[str, float]:
        return {role: (self._last[role] - self._first[role]) / MIB for role in self._pids}

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            for role, pid in self._pids.items():
                self._last[role] = max(self._last[role], self._peak(pid))

    @staticmethod
    def _peak(pid: int) -> int:
        """The most memory that a process and its children have had, in bytes; 0 when it is gone."""
        total = 0
        for one in [pid, *_children(pid)]:
            try:
                lines = Path(f"/proc/{one}/status").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        return total


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []

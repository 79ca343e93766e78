"""A cell in which the probes run as the agent, and the control: the same probes with every protection taken away."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.models.networks
import docker.types
import pytest

from sandbox.archives import tar_of
from tests.attack import neighbour
from tests.lab import PROPOSE, Lab, Result

PROBES = Path(__file__).with_name("probes.py")
CANARY = f"canary-{uuid.uuid4().hex}"
ENVIRONMENT = "LAB_SECRET"


@dataclass(frozen=True)
class Target:
    """What is on a network that the tests made themselves: it answers whoever can reach it.

    `port` of the host's own address there (`gateway`); of a container beside, `neighbour` and `neighbour6`.
    """

    gateway: str
    port: int
    network: str
    neighbour: str
    neighbour6: str


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """A listener on the gateway address of a bridge of our own, as a host's services are, and a container beside."""
    client = docker.from_env()
    name = f"casemate-test-{uuid.uuid4().hex[:8]}"
    pool = docker.types.IPAMPool(subnet=f"fd{uuid.uuid4().hex[:2]}:{uuid.uuid4().hex[:4]}:ca5e::/64")
    network = client.networks.create(
        name, driver="bridge", labels={"casemate-test": "1"}, enable_ipv6=True,
        ipam=docker.types.IPAMConfig(pool_configs=[pool]),
    )  # fmt: skip
    network.reload()
    gateway = _gateway(network.attrs)
    beside = client.containers.create(
        "casemate/agent-python", ["python", "-u", "/srv/neighbour.py"], user="0", network=name, working_dir="/",
        labels={"casemate-test": "1"},
    )  # fmt: skip
    beside.put_archive("/srv", tar_of({"neighbour.py": Path(neighbour.__file__).read_bytes()}))
    beside.start()
    until = time.monotonic() + 30
    while b"ready" not in beside.logs():
        assert time.monotonic() < until, beside.logs()
        time.sleep(0.1)
    beside.reload()
    addresses = beside.attrs["NetworkSettings"]["Networks"][name]
    listener = socket.create_server((gateway, 0))
    stop = threading.Event()

    def serve() -> None:
        listener.settimeout(0.2)
        while not stop.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    yield Target(gateway, port, name, addresses["IPAddress"], addresses["GlobalIPv6Address"])
    stop.set()
    thread.join()
    listener.close()
    beside.remove(force=True, v=True)
    network.remove()


def _gateway(attrs: dict[str, Any]) -> str:
    """The host's IPv4 address on a bridge."""
    return next(str(c["Gateway"]) for c in attrs["IPAM"]["Config"] if "." in c.get("Gateway", ""))


@pytest.fixture(scope="session")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the host."""
    path = tmp_path_factory.mktemp("host") / "marker"
    path.write_text(CANARY)
    return path


@pytest.fixture(scope="session")
def probes(target: Target, marker: Path) -> dict[str, Any]:
    """The probes that run in the cell and in the control alike."""
    return {
        "status": 0,
        "environ": 0,
        "files": [str(marker), "/etc/shadow"],
        "search": [CANARY],
        "docker": 0,
        "unix_sockets": 0,
        "network": [
            [target.gateway, target.port],
            *([host, port] for host in (target.neighbour, target.neighbour6) for port in neighbour.TCP),
        ],
        "datagrams": [[host, port] for host in (target.neighbour, target.neighbour6) for port in neighbour.UDP],
        "ping": target.neighbour,
        "without_proxy": f"http://{target.neighbour}/",
        "raw_sockets": None,
        "names": ["example.com", "host.docker.internal", "metadata.google.internal"],
        "resolver": "planted.example.net",
        "syscalls": 0,
        "setuid": 0,
        "writable": 0,
        "forks": 100,
        "disk": 64,
        "flood": 40,
        "memory": 400,
    }


UNPROTECTED = ["SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT", "NET_RAW", "NET_ADMIN", "DAC_READ_SEARCH"]
"""What the control is given back: not every host that runs tests has every capability itself, so not all of them."""

CELL_ONLY: dict[str, Any] = {
    "ports": 0,
    "local_only": [
        [host, port]
        for host in ("1.1.1.1", "9.9.9.9", "169.254.169.254", "172.17.0.1", "10.0.0.1", "2606:4700:4700::1111")
        for port in (53, 443)
    ]
    + [["1.1.1.1", port] for port in (22, 25, 853, 5353, 5432)],
}
"""Probes without a control of their own: outside a cell they would send to addresses that are not ours."""


@pytest.fixture(scope="session")
def cell(
    tmp_path_factory: pytest.TempPathFactory, probes: dict[str, Any], target: Target
) -> Iterator[tuple[Lab, Result, dict[str, Any]]]:
    """A real run whose agent is the probes; yields the lab, the run, and what the probes got hold of."""
    lab = Lab(tmp_path_factory.mktemp("cell"))
    lab.env[ENVIRONMENT] = CANARY
    model = {"provider": "openai", "model": "gpt-4o-mini", "secret": "key", "price": {"input": 1, "output": 1}}
    (lab.folder / "probes.json").write_text(json.dumps({**CELL_ONLY, **probes, "scan": [target.gateway, 1, 65536]}))
    source = PROPOSE + "asyncio.run(propose({'text': 'under attack'}))\n"
    agent = source + "import runpy\nrunpy.run_path('/inputs/probes.py', run_name='__main__')\n"
    (lab.folder / "probes.py").write_text(PROBES.read_text())
    top = {
        "secrets": {"key": {"from": "env", "key": ENVIRONMENT}},
        "models": {"m": model},
        "inputs": {"agent": {"path": "agent.py"}, "probes": {"path": "probes.py"}, "wanted": {"path": "probes.json"}},
    }
    limits = {"cpu": 1, "memory": "256MiB", "pids": 64, "disk": "32MiB", "wall": "100s"}
    result = lab.run(lab.workflow(agent, outputs=["rows"], models=["m"], limits=limits, top=top))
    assert result.exit_code == 0, result.stderr + (result.agent_log()[-2000:] if result.folder else "")
    yield lab, result, json.loads(result.artifact("agent/results.json"))
    assert lab.left_over() == []


@pytest.fixture(scope="session")
def control(
    tmp_path_factory: pytest.TempPathFactory, probes: dict[str, Any], target: Target, marker: Path
) -> dict[str, Any]:
    """The same probes in a container of the same image, with the protection deliberately taken away."""
    folder = tmp_path_factory.mktemp("control")
    area = [target.gateway, target.port - 50, target.port + 50]
    (folder / "probes.json").write_text(json.dumps({**probes, "flood": 1, "scan": area}))
    (folder / "probes.py").write_text(PROBES.read_text())
    (folder / "doors").mkdir()
    suid = folder / "suid"
    suid.write_text("x")
    suid.chmod(0o4755)
    client = docker.from_env()
    output = client.containers.run(
        "casemate/agent-python",
        ["python", "/lab/probes.py"],
        user="0",
        cap_add=UNPROTECTED,
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        network=target.network,
        environment={"SECRET": CANARY},
        volumes={
            str(folder): {"bind": "/lab", "mode": "rw"},
            str(marker.parent): {"bind": str(marker.parent), "mode": "ro"},
            "/var/run/docker.sock": {"bind": "/var/run/docker.sock", "mode": "rw"},
            str(folder / "doors"): {"bind": "/doors", "mode": "ro"},
            str(suid): {"bind": "/opt/suid", "mode": "ro"},
            str(marker): {"bind": "/etc/leaked", "mode": "ro"},
        },
        labels={"casemate-test": "1"},
        extra_hosts={"example.com": "127.0.0.1"},
        remove=True,
        working_dir="/lab",
    )
    results: dict[str, Any] = json.loads(output.splitlines()[-1])
    return results

"""Attacks on the host from inside a cell (rows 38 to 49 of the threat model), each with its control."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.attack.conftest import CANARY, ENVIRONMENT, Target
from tests.lab import PROPOSE, Lab, Result, mentions

Cell = tuple[Lab, Result, dict[str, Any]]


def test_control_probes_all_ran(cell: Cell, control: dict[str, Any]) -> None:
    for results in (cell[2], control):
        assert not [name for name, got in results.items() if isinstance(got, str) and got.startswith("probe failed")]


def test_10_no_interface_no_route_no_neighbour(cell: Cell, control: dict[str, Any], target: Target) -> None:
    inside = cell[2]["network"]
    assert inside["interfaces"] == ["lo"]
    assert (inside["routes"], inside["routes6"]) == (0, 0)
    assert {got for where, got in inside["tried"].items() if where.count(":") == 1} == {"ENETUNREACH"}
    assert {got for where, got in inside["tried"].items() if where.count(":") > 1} <= {"ENETUNREACH", "EADDRNOTAVAIL"}
    outside = control["network"]
    assert outside["interfaces"] != ["lo"]
    assert outside["routes"] > 0
    assert set(outside["tried"].values()) == {"connected"}
    assert f"{target.gateway}:{target.port}" in outside["tried"]


def test_10_every_address_is_unreachable_at_once(cell: Cell) -> None:
    tried = cell[2]["local_only"]
    assert {got for where, got in tried.items() if "2606" not in where} == {"ENETUNREACH"}
    assert {got for where, got in tried.items() if "2606" in where} <= {"ENETUNREACH", "EADDRNOTAVAIL"}


@pytest.mark.parametrize("port", [22, 25, 53, 80, 443, 853, 2375, 5353, 5432])
def test_1_8_11_27_no_port_of_a_neighbour_is_reached(
    cell: Cell, control: dict[str, Any], target: Target, port: int
) -> None:
    for host in (target.neighbour, target.neighbour6):
        assert cell[2]["network"]["tried"][f"{host}:{port}"] in ("ENETUNREACH", "EADDRNOTAVAIL")
        assert control["network"]["tried"][f"{host}:{port}"] == "connected"


@pytest.mark.parametrize("port", [53, 443, 5353])
def test_1_10_no_datagram_is_answered(cell: Cell, control: dict[str, Any], target: Target, port: int) -> None:
    for host in (target.neighbour, target.neighbour6):
        assert cell[2]["datagrams"][f"{host}:{port}"] in ("ENETUNREACH", "EADDRNOTAVAIL")
        assert control["datagrams"][f"{host}:{port}"] == "answered"


def test_10_no_echo_request_goes_out(cell: Cell, control: dict[str, Any]) -> None:
    assert cell[2]["ping"] in ("EPERM", "EACCES", "ENETUNREACH")
    assert control["ping"] == "answered"


def test_6_resolv_conf_and_hosts_cannot_be_written_and_names_still_do_not_resolve(
    cell: Cell, control: dict[str, Any]
) -> None:
    inside = cell[2]["resolver"]
    assert {inside["/etc/resolv.conf"], inside["/etc/hosts"]} <= {"EROFS", "EACCES"}
    assert inside["resolves"] == "socket.gaierror"
    assert set(control["resolver"].values()) == {"written", "203.0.113.9"}


def test_8_a_client_without_its_proxy_reaches_nothing(cell: Cell, control: dict[str, Any]) -> None:
    for said in cell[2]["without_proxy"].values():
        assert "Network is unreachable" in said
    assert set(control["without_proxy"].values()) == {"200"}


def test_27_no_port_of_the_host_is_reached(cell: Cell, control: dict[str, Any], target: Target) -> None:
    assert cell[2]["scan"] == []
    assert target.port in control["scan"]


def test_10_no_raw_packets(cell: Cell, control: dict[str, Any]) -> None:
    assert set(cell[2]["raw_sockets"].values()) == {"EPERM"}
    assert control["raw_sockets"]["icmp"] == control["raw_sockets"]["packet"] == "opened"


def test_1_names_do_not_resolve_and_nothing_waits(cell: Cell, control: dict[str, Any]) -> None:
    for answer, seconds in cell[2]["names"].values():
        assert answer == "gaierror"
        assert seconds < 2
    assert control["names"]["example.com"][0] == "127.0.0.1"


def test_28_only_the_three_doors_answer(cell: Cell) -> None:
    assert cell[2]["ports"] == [3128, 4000, 5000]


def test_29_no_door_as_a_file(cell: Cell, control: dict[str, Any]) -> None:
    assert cell[2]["unix_sockets"] == []
    assert "/doors" in control["unix_sockets"]


def test_38_no_secret_in_any_environment_or_command_line(cell: Cell, control: dict[str, Any]) -> None:
    assert cell[2]["environ"], "the probe read nothing at all"
    assert not any(CANARY in text for text in cell[2]["environ"])
    assert any(CANARY in text for text in control["environ"])


def test_39_no_file_of_the_host(cell: Cell, control: dict[str, Any], marker: Path) -> None:
    assert cell[2]["files"] == {"read": {}, "kept": []}
    assert control["files"]["read"][str(marker)] == CANARY


def test_38_no_secret_in_any_file_of_the_cell(cell: Cell, control: dict[str, Any]) -> None:
    # probes.json of the cell names the canary it is told to look for, and is the only place of it
    assert cell[2]["search"] == ["/inputs/probes.json"]
    assert "/etc/leaked" in control["search"]


def test_40_no_secret_in_log_event_artifact_or_plan(cell: Cell) -> None:
    lab, result, _ = cell
    assert result.folder is not None
    kept = {str(p): p.read_bytes() for p in lab.folder.rglob("*") if p.is_file()}
    told = {str(lab.folder / "probes.json")}
    assert set(mentions(CANARY, kept)) == told
    assert list(mentions(CANARY, {"control": f"x{CANARY}y".encode()})) == ["control"]
    assert any("events.jsonl" in name for name in kept)
    delivered = result.of("secret.delivered")
    assert {e.attrs["casemate.component"] for e in delivered} == {"llm", "customs"}


def test_41_no_engine_to_talk_to(cell: Cell, control: dict[str, Any]) -> None:
    assert cell[2]["docker"] == []
    assert "answered" in control["docker"]


def test_42_no_way_out_by_system_call(cell: Cell, control: dict[str, Any]) -> None:
    assert set(cell[2]["syscalls"].values()) == {"EPERM"}, cell[2]["syscalls"]
    effective = {name for name, got in control["syscalls"].items() if got != "EPERM"}
    # the kernel of a test host may itself forbid some of them to everybody
    assert {"mount", "unshare", "chroot", "ptrace", "keyctl", "pivot_root", "setns", "sethostname"} <= effective


def test_43_no_privilege(cell: Cell, control: dict[str, Any]) -> None:
    inside = cell[2]["status"]
    assert inside["uid"] not in (0, 1000)
    assert {inside[k] for k in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (inside["NoNewPrivs"], inside["Seccomp"]) == ("1", "2")
    outside = control["status"]
    assert (outside["uid"], outside["NoNewPrivs"], outside["Seccomp"]) == (0, "0", "0")
    assert int(outside["CapEff"], 16) > 0


def test_43_no_setuid_program(cell: Cell, control: dict[str, Any]) -> None:
    assert cell[2]["setuid"] == []
    assert "/opt/suid" in control["setuid"]


def test_44_forks_memory_disk_and_inodes_are_capped(cell: Cell, control: dict[str, Any]) -> None:
    inside = cell[2]
    assert inside["forks"] < 64
    assert control["forks"] == 100
    mib, code = inside["memory"]
    # 256 MiB, 32 MiB of workspace and 32 MiB of /tmp are charged together
    assert mib < 330
    assert code == -9
    assert control["memory"] == [400, 0]
    taken, made = inside["disk"]
    assert taken <= 32
    assert made < 66_000
    assert control["disk"] == [64, 70_400]


def test_44_a_log_flood_is_capped(cell: Cell) -> None:
    _, result, inside = cell
    assert inside["flood"] == 40
    assert result.folder is not None
    sizes = {p.name: p.stat().st_size for p in (result.folder / "logs").iterdir()}
    assert 0 < sizes["agent.agent.log"] <= 8 << 20
    assert sum(sizes.values()) < 20 << 20


def test_45_only_the_workspace_can_be_written(cell: Cell, control: dict[str, Any]) -> None:
    assert sorted(cell[2]["writable"]) == ["/tmp", "/workspace"]
    assert "/etc" in control["writable"]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab of its own, for attacks that end their run."""
    return Lab(tmp_path)


def test_40_no_secret_where_the_engine_can_show_it(lab: Lab) -> None:
    """While an agent runs: the engine's records, its logs, the images, and every process of the run."""
    lab.env[ENVIRONMENT] = CANARY
    model = {"provider": "openai", "model": "gpt-4o-mini", "secret": "key", "price": {"input": 1, "output": 1}}
    top = {"secrets": {"key": {"from": "env", "key": ENVIRONMENT}}, "models": {"m": model}}
    agent = PROPOSE + "asyncio.run(propose({'text': 'hello'}))\nimport time\ntime.sleep(8)\n"
    process = lab.start(lab.workflow(agent, outputs=["rows"], models=["m"], top=top))
    lab.await_event("write.proposed")
    client = docker.from_env()
    seen: dict[str, bytes] = {}
    folder = lab.run_folder()
    assert folder is not None
    things = [t for t in lab.engine.labelled(folder.name) if t["kind"] == "container"]
    assert {"agent", "relay", "firewall", "llm", "gateway"} <= {t["casemate.role"] for t in things}
    for thing in things:
        container = client.containers.get(thing["name"])
        seen[f"inspect {thing['name']}"] = json.dumps(container.attrs).encode()
        seen[f"logs {thing['name']}"] = container.logs()
        seen[f"image {thing['name']}"] = json.dumps(container.image.history()).encode() if container.image else b""
        pid = container.attrs["State"]["Pid"]
        for kind in ("environ", "cmdline"):
            if pid:
                seen[f"{kind} {thing['name']}"] = Path(f"/proc/{pid}/{kind}").read_bytes()
    assert [name for name in seen if name.startswith("environ")], "no process was looked at"
    assert list(mentions(CANARY, seen)) == []
    leaky = client.containers.create("casemate/agent-python", ["true"], environment={"SECRET": CANARY})
    try:
        assert list(mentions(CANARY, {"control": json.dumps(leaky.attrs).encode()})) == ["control"]
    finally:
        leaky.remove()
    assert lab.finish(process).exit_code == 0


def test_46_without_the_firewall_nothing_goes_out(lab: Lab) -> None:
    """The agent asks its egress door again and again; the firewall dies under it."""
    agent = (
        PROPOSE
        + """
import socket, time, os
os.makedirs("artifacts", exist_ok=True)
asyncio.run(propose({"text": "go"}))
for _ in range(4000):
    with socket.socket() as s:
        s.settimeout(2)
        s.connect(("127.0.0.1", 3128))
        s.sendall(b"CONNECT evil.example.com:443 HTTP/1.1\\r\\nHost: evil.example.com:443\\r\\n\\r\\n")
        try:
            print(s.recv(1000).split(b"\\r\\n")[0] or b"closed", flush=True)
        except OSError as error:
            print(type(error).__name__, flush=True)
    time.sleep(0.01)
"""
    )
    process = lab.start(lab.workflow(agent, outputs=["rows"]))
    lab.await_event("egress.decided")
    lab.engine.kill(lab.container("firewall"))
    result = lab.finish(process)
    assert (result.exit_code, result.outcome) == (5, "failed")
    answers = set(result.agent_log().splitlines())
    assert "b'HTTP/1.1 403 Forbidden'" in answers  # while it lived, it denied
    assert not [a for a in answers if "200" in a]
    assert not (lab.folder / "out").exists()


def test_48_a_partial_start_leaves_nothing(lab: Lab) -> None:
    """The gateway cannot be born: its image is not a gateway. The run ends, and nothing stays."""
    workflow = lab.workflow("print(1)")
    plan = lab.folder / "plan.json"
    assert lab.cli("compile", str(workflow), "-o", str(plan)).returncode == 0
    document = json.loads(plan.read_text())
    images = {image["name"]: image for image in document["images"]}
    images["casemate/gateway"]["digest"] = images["casemate/relay"]["digest"]
    from policies.canonical import canonical

    plan.write_bytes(canonical(document) + b"\n")
    result = lab.run(plan)
    assert result.exit_code in (1, 5)
    assert result.outcome == "failed"
    assert not result.of("stage.started")
    assert lab.left_over() == []


@pytest.mark.parametrize(
    ("agent", "code", "outcome"),
    [
        ("print('fine')", 0, "completed"),
        ("raise SystemExit(7)", 5, "failed"),
        ("import os; os.kill(os.getpid(), 9)", 5, "failed"),
        ("x = b'x' * (1 << 30)", 5, "failed"),
        ("import time; time.sleep(30)", 124, "timed_out"),
        ("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(30)", 124, "timed_out"),
    ],
)
def test_49_outcomes_and_exit_codes_are_exact(lab: Lab, agent: str, code: int, outcome: str) -> None:
    limits = {"cpu": 1, "memory": "128MiB", "pids": 32, "disk": "8MiB", "wall": "4s"}
    result = lab.run(lab.workflow(agent, limits=limits))
    assert (result.exit_code, result.outcome) == (code, outcome), result.stderr
    assert lab.left_over() == []

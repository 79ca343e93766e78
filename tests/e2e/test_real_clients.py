"""The clients that agents use, unmodified, through the egress door: opaque tunnels and inspected, allowed and denied.

Their hosts stand in a network of our own, with TLS by an authority of our own, and a DNS server that counts queries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.vocabulary import Verdict
from sandbox.engine.images import AGENT_TOOLS, build_all
from tests.lab import Lab, Result
from tests.outside_lab import OutsideLab

PACKAGES = Path(__file__).resolve().parents[1] / "outside_packages.py"
HOSTS = [f"{name}.example.com" for name in ("pip", "npm", "apt", "git")]
AGENT = Path(__file__).with_name("clients.py")


@pytest.fixture(scope="module", params=["tunnel", "inspected"])
def ran(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Result, dict[str, Any], list[str]]]:
    """One run with every client: yields the run, what each said, and the DNS queries that came of it."""
    lab = Lab(tmp_path_factory.mktemp(request.param))
    build_all(lab.engine, print, (AGENT_TOOLS,))
    with OutsideLab({host: ["origin"] for host in HOSTS}, PACKAGES, image=AGENT_TOOLS.name) as outside:
        lab.env |= outside.env
        (lab.folder / "ca.pem").write_bytes(outside.authority)
        rule = {"addresses": [outside.subnet], **({"inspect": True} if request.param == "inspected" else {})}
        egress = [{"host": host, **rule} for host in HOSTS]
        limits = {"cpu": 2, "memory": "1GiB", "pids": 256, "disk": "256MiB", "wall": "4m"}
        top = {"trust": ["ca.pem"], "budget": {"usd": 1, "tokens": 1, "calls": 1, "wall": "5m"}}
        agent = f"HOSTS = {HOSTS!r}\n{AGENT.read_text()}"
        result = lab.run(
            lab.workflow(agent, image=AGENT_TOOLS.name, egress=egress, limits=limits, top=top), timeout_s=300
        )
        assert result.exit_code == 0, result.stderr + (result.agent_log() if result.folder else "")
        yield result, json.loads(result.artifact("agent/answers.json")), outside.queries
        assert lab.left_over() == []


@pytest.mark.parametrize("name", ["pip", "npm", "git", "apt", "curl", "python", "node", "go", "java"])
def test_a_client_works_against_an_allowed_host(ran: Any, name: str) -> None:
    _, answers, _ = ran
    code, said = answers[name]
    assert code == 0, said


@pytest.mark.parametrize("name", ["pip", "npm", "git", "curl", "node", "go", "java"])
def test_a_client_is_denied_another_host(ran: Any, name: str) -> None:
    result, answers, _ = ran
    code, said = answers[f"denied {name}"]
    assert code != 0, said
    host = f"{name}.denied.example.net"
    denied = [e for e in result.of("egress.decided") if e.attrs.get("server.address") == host]
    assert denied, said
    assert {(event.rule, event.verdict) for event in denied} == {("CSM-P003", Verdict.DENY)}


def test_every_denial_has_one_shape_and_tells_what_is_allowed(ran: Any) -> None:
    _, answers, _ = ran
    for kind in ("pip", "npm", "git", "apt"):
        status, body = answers[f"shape {kind}"]
        error = json.loads(body)["error"]
        assert (status, error["code"], error["denied"]) == (403, "CSM-P003", "egress")
        assert error["host"] == f"{kind}.denied.example.net"
        assert error["allowed"] == HOSTS


def test_no_denied_name_was_asked_of_the_dns(ran: Any) -> None:
    _, _, queries = ran
    assert {query.split()[1] for query in queries} == set(HOSTS)  # the control: what is allowed was asked for

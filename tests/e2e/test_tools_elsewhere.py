"""Remote MCP servers, made with the official SDK, over TLS in the test's own outside: both eras, every credential."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.engine.images import MCP_SERVERS, build_all
from tests.lab import Lab, Result, mentions
from tests.outside_lab import OutsideLab

SECRET, KEY = f"canary-{uuid.uuid4().hex}", f"canary-{uuid.uuid4().hex}"
NAMES = ("mcp.example.com", "api.example.com", "login.example.com", "other.example.com")
AGENT = """
import asyncio, json, os
from mcp import Client

async def call(server, tool, **arguments):
    try:
        async with Client(f"http://127.0.0.1:5000/mcp/{server}") as client:
            answer = await client.call_tool(tool, arguments)
            return [answer.is_error, " ".join(part.text for part in answer.content if part.type == "text")]
    except Exception as error:
        while hasattr(error, "exceptions"):
            error = error.exceptions[0]
        return [True, str(error)]

async def main():
    return {
        "both": await call("both", "both_where", question="one"),
        "again": await call("both", "both_where", question="two"),
        "modern": await call("modern", "modern_where", question="three"),
        "told-both": await call("both", "both_parrot"),
        "told-modern": await call("modern", "modern_parrot"),
        "inside": await call("inside", "inside_where", question="four"),
    }

os.makedirs("/workspace/artifacts", exist_ok=True)
json.dump(asyncio.run(main()), open("/workspace/artifacts/found.json", "w"))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Result, dict[str, Any], OutsideLab]]:
    """A run whose agent calls remote servers: one by OAuth, one by a key, and one that may not be where it is."""
    lab = Lab(tmp_path_factory.mktemp("remote"))
    build_all(lab.engine, print, (MCP_SERVERS,))
    program = Path(__file__).parents[1] / "outside_mcp.py"
    config = {"secret": SECRET, "key": KEY}
    with OutsideLab({name: ["origin"] for name in NAMES}, program, config, MCP_SERVERS.name) as outside:
        lab.env |= outside.env | {"OAUTH": SECRET, "API": KEY}
        (lab.folder / "ca.pem").write_bytes(outside.authority)
        audited = lab.cli("mcp", "audit", str(write(lab, outside, "both", "modern")), *approve("both", "modern"))
        assert audited.returncode == 0, audited.stderr
        pins = lab.folder / "casemate.mcp.json"
        known = json.loads(pins.read_text())
        known["inside"] = json.loads(json.dumps(known["both"]).replace("both", "inside"))
        pins.write_text(json.dumps(known))
        result = lab.run(write(lab, outside, "both", "modern", "inside"))
        assert result.exit_code == 0, result.stderr + (result.agent_log()[-2000:] if result.folder else "")
        yield lab, result, json.loads(result.artifact("agent/found.json")), outside
    assert lab.left_over() == []


def given(server: str) -> list[str]:
    """Return the tools of a server: names of their own, as an agent sees those of all servers."""
    return [f"{server}_where", f"{server}_parrot"]


def approve(*servers: str) -> list[str]:
    return [word for server in servers for tool in given(server) for word in ("--approve", f"{server}.{tool}")]


def write(lab: Lab, outside: OutsideLab, *servers: str) -> Path:
    """Write a workflow with some of the servers."""
    end = {"token_url": "https://login.example.com/token", "client_id": "us", "scopes": ["read"]}
    there = {"addresses": [outside.subnet]}
    tools: dict[str, dict[str, Any]] = {
        "both": {"url": "https://mcp.example.com/both/mcp", "secret": "oauth", "oauth": end, **there},
        "modern": {"url": "https://api.example.com/modern/mcp", "secret": "key", "header": "X-Api-Key", **there},
        "inside": {"url": "https://other.example.com/both/mcp"},
        "away": {"url": "https://mcp.example.com/away/mcp", **there},
    }
    secrets = {"oauth": {"from": "env", "key": "OAUTH"}, "key": {"from": "env", "key": "API"}}
    return lab.workflow(
        AGENT,
        tools={name: given(name) for name in servers},
        top={
            "trust": ["ca.pem"],
            "tools": {name: tools[name] for name in servers},
            "secrets": {k: v for k, v in secrets.items() if any(tools[name].get("secret") == k for name in servers)},
        },
    )


HEARD = [("both", "both heard one"), ("again", "both heard two"), ("modern", "modern heard three")]


@pytest.mark.parametrize(("asked", "expected"), HEARD)
def test_a_server_elsewhere_is_called_by_the_official_client(ran: Any, asked: str, expected: str) -> None:
    _, _, found, _ = ran
    assert found[asked] == [False, expected]


def test_both_eras_were_spoken(ran: Any) -> None:
    _, _, _, outside = ran
    versions = {(r["path"], r["version"]) for r in outside.requests}
    assert ("/both/mcp", "2025-11-25") in versions
    assert ("/modern/mcp", "2026-07-28") in versions
    assert not any(version.startswith("2026") for path, version in versions if path == "/both/mcp")


def test_each_goes_through_a_tunnel_that_leads_to_it_alone(ran: Any) -> None:
    _, result, _, outside = ran
    tunnels = {e.rule: e.attrs["server.address"] for e in result.of("egress.decided") if e.verdict == "allow"}
    assert tunnels == {
        "up-tool.both": "mcp.example.com",
        "up-token.both": "login.example.com",
        "up-tool.modern": "api.example.com",
    }
    assert all(r["host"] == "login.example.com" for r in outside.requests if r["path"] == "/token")


def test_a_name_that_leads_inside_is_not_followed(ran: Any) -> None:
    _, result, found, outside = ran
    failed, said = found["inside"]
    assert failed
    assert "CSM-G014" in said
    denied = [e for e in result.of("egress.decided") if e.verdict == "deny"]
    assert {(e.rule, e.attrs["server.address"]) for e in denied} == {("CSM-P005", "other.example.com")}
    assert not any(r["host"] == "other.example.com" for r in outside.requests)
    assert any("other.example.com" in query for query in outside.queries)  # the control: it was on its way


def test_no_key_nor_token_comes_back_or_stays(ran: Any) -> None:
    lab, result, found, _ = ran
    assert found["told-both"] == [False, "Bearer [redacted]"]  # a token that nobody here knew before the run
    assert found["told-modern"] == [False, "[redacted]"]
    assert sum(event.rule == "CSM-G015" for event in result.of("tool.answered")) == 2
    texts = {str(path): path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()}
    assert texts
    assert list(mentions(SECRET, texts)) + list(mentions(KEY, texts)) == []


def test_nothing_is_sent_where_a_server_sends_us(ran: Any) -> None:
    lab, _, _, outside = ran
    before = len(outside.requests)
    audited = lab.cli("mcp", "audit", str(write(lab, outside, "away")))
    assert audited.returncode == 5
    assert "CSM-G014" in audited.stderr
    assert "status 307" in audited.stderr
    assert [r["path"] for r in outside.requests[before:]] == ["/away/mcp"]

"""MCP servers that connect, and that have a secret: each from a cell of its own, by rules of its own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.engine.images import MCP_SERVERS, build_all
from tests.lab import Lab, Result, mentions, until
from tests.outside_lab import OutsideLab

SECRET = f"canary-{uuid.uuid4().hex}"
FETCH = ["python3", "-m", "mcp_server_fetch", "--ignore-robots-txt"]
KEEPER = '''
import os, socket, sys
from pathlib import Path
from mcp.server.mcpserver import MCPServer

server = MCPServer("keeper")
print("I was given", os.environ["KEEPER_TOKEN"], file=sys.stderr, flush=True)

@server.tool()
def tell() -> str:
    """Tell the secret, as a server that was tricked would."""
    return f"env {os.environ['KEEPER_TOKEN']} file {Path('/run/secrets/token').read_text()}"

@server.tool()
def look() -> str:
    """Say which environment and files there are."""
    names = sorted(path.name for path in Path("/run/secrets").iterdir())
    mode = oct(Path("/run/secrets/token").stat().st_mode)
    same = os.environ["KEEPER_TOKEN"] == Path("/run/secrets/token").read_text()
    return f"{names} {mode} {same} {len(os.environ['KEEPER_TOKEN'])}"

@server.tool()
def port(number: int, say: str) -> str:
    """Say something at a port of the cell."""
    try:
        with socket.create_connection(("127.0.0.1", number), timeout=10) as connection:
            connection.sendall(say.encode())
            return connection.recv(200).decode(errors="replace") or "closed"
    except OSError as error:
        return type(error).__name__

server.run("stdio")
'''
AGENT = """
import asyncio, json, os, time
from mcp import Client

async def call(server, tool, **arguments):
    async with Client(f"http://127.0.0.1:5000/mcp/{server}") as client:
        answer = await client.call_tool(tool, arguments)
        return [answer.is_error, " ".join(part.text for part in answer.content if part.type == "text")]

async def main():
    return {
        "allowed": await call("web", "fetch", url="https://data.example.com/page", raw=True),
        "denied": await call("web", "fetch", url="https://other.example.com/page", raw=True),
        "tell": await call("keeper", "tell"),
        "look": await call("keeper", "look"),
        "port": await call("keeper", "port", number=80, say="GET /database HTTP/1.0\\r\\n\\r\\n"),
        "shut": await call("keeper", "port", number=8081, say="hello"),
        "environ": dict(os.environ),
    }

os.makedirs("/workspace/artifacts", exist_ok=True)
json.dump(asyncio.run(main()), open("/workspace/artifacts/found.json", "w"))
while os.path.exists("/inputs/wait.json") and not os.path.exists("/workspace/go"):
    time.sleep(30)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Result, dict[str, Any], OutsideLab]]:
    """A run in which the official client, in an agent's cell, calls a server that fetches and one with a secret."""
    lab = Lab(tmp_path_factory.mktemp("cells"))
    build_all(lab.engine, print, (MCP_SERVERS,))
    names = {"data.example.com": ["origin"], "other.example.com": ["origin"], "db.example.com": ["origin"]}
    with OutsideLab(names) as outside:
        lab.env |= outside.env | {"KEEPER": SECRET}
        (lab.folder / "ca.pem").write_bytes(outside.authority)
        workflow = write(lab, outside)
        approved = ("web.fetch", "keeper.tell", "keeper.look", "keeper.port")
        audited = lab.cli("mcp", "audit", str(workflow), *(w for name in approved for w in ("--approve", name)))
        assert audited.returncode == 0, audited.stderr
        assert SECRET not in audited.stdout + audited.stderr
        result = lab.run(workflow)
        assert result.exit_code == 0, result.stderr + (result.agent_log()[-2000:] if result.folder else "")
        yield lab, result, json.loads(result.artifact("agent/found.json")), outside
    assert lab.left_over() == []


def write(lab: Lab, outside: OutsideLab, **inputs: Any) -> Path:
    """Write the workflow. The stage itself reaches nothing."""
    (lab.folder / "keeper.py").write_text(KEEPER)
    there = {"addresses": [outside.subnet]}
    tools = {
        "web": {"image": MCP_SERVERS.name, "run": FETCH, "egress": [{"host": "data.example.com", **there}]},
        "keeper": {
            "image": MCP_SERVERS.name,
            "run": ["python3", "/inputs/keeper.py"],
            "secret": "token",
            "secret_env": "KEEPER_TOKEN",
            "egress": [{"host": "db.example.com", "port": 80, "scheme": "tcp", **there}],
        },
    }
    return lab.workflow(
        AGENT,
        tools={"web": ["fetch"], "keeper": ["tell", "look", "port"]},
        top={
            "secrets": {"token": {"from": "env", "key": "KEEPER"}},
            "trust": ["ca.pem"],
            "tools": tools,
            "inputs": {"agent": {"path": "agent.py"}, "keeper": {"path": "keeper.py"}, **inputs},
        },
    )


def decisions(result: Result, server: str) -> list[tuple[str, str]]:
    """Return where a server wanted to go, and what the firewall said."""
    decided = [e for e in result.of("egress.decided") if e.attrs.get("casemate.server") == server]
    return [(str(e.attrs["server.address"]), str(e.verdict and e.verdict.value)) for e in decided]


def test_a_server_fetches_what_its_own_rules_allow(ran: Any) -> None:
    _, result, found, outside = ran
    failed, said = found["allowed"]
    assert not failed, said
    assert "hello" in said
    assert ("data.example.com", "allow") in decisions(result, "web")
    assert "/page" in [request["path"] for request in outside.requests if request["scheme"] == "https"]


def test_row_56_a_server_reaches_nothing_else_with_one_event_and_no_look_at_the_name(ran: Any) -> None:
    _, result, found, outside = ran
    failed, _ = found["denied"]
    assert failed
    assert [host for host, verdict in decisions(result, "web") if verdict == "deny"] == ["other.example.com"]
    assert not any("other.example.com" in query for query in outside.queries)
    assert any("data.example.com" in query for query in outside.queries)  # the control: a name that is allowed is asked


def test_a_port_of_a_servers_cell_leads_to_one_destination(ran: Any) -> None:
    _, result, found, _ = ran
    failed, said = found["port"]
    assert not failed, said
    assert "200 OK" in said
    assert found["shut"] == [False, "ConnectionRefusedError"]
    assert decisions(result, "keeper") == [("db.example.com", "allow")]


def test_a_servers_secret_is_its_own_and_blanked_in_what_it_says(ran: Any) -> None:
    lab, result, found, _ = ran
    assert found["look"] == [False, f"['token'] 0o100400 True {len(SECRET)}"]
    failed, said = found["tell"]
    assert not failed
    assert said == "env [redacted] file [redacted]"
    (told,) = [e for e in result.of("tool.answered") if e.rule == "CSM-G015"]
    assert "4 secrets" in str(told.reason)  # in the text, and in the structured content
    assert SECRET not in json.dumps(found)
    texts = {str(path): path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()}
    assert any("keeper.log" in name and b"I was given ***" in text for name, text in texts.items())  # it did print it
    assert list(mentions(SECRET, texts)) == []


def test_row_40_the_engine_shows_nothing_of_a_servers_secret(ran: Any) -> None:
    lab, _, _, outside = ran
    (lab.folder / "wait.json").write_text("{}")
    workflow = write(lab, outside, wait={"path": "wait.json"})
    before, process = lab.run_folder(), lab.start(workflow)
    try:
        until(lambda: lab.run_folder() != before, 60, "no second run")
        lab.await_event("tool.answered")
        names = [thing["name"] for thing in lab.engine.labelled(lab.run_folder().name)]
        running = [name for name in names if "tool-keeper" in name and lab.engine.is_running(name)]
        assert any(name.endswith("tool-keeper-0") for name in running)
        shown = {name: json.dumps(lab.engine.inspect(name)).encode() for name in names if lab.engine.is_running(name)}
        assert list(mentions(SECRET, shown)) == []
        assert any(b"KEEPER_TOKEN" in text for text in shown.values())  # its variable's name is there, no more
        logs = {name: _logs(lab, name) for name in shown}
        assert list(mentions(SECRET, logs)) == []
    finally:
        process.terminate()
        lab.finish(process)
    until(lambda: lab.left_over() == [], 20, "something was left behind")


def _logs(lab: Lab, name: str) -> bytes:
    try:
        return lab.engine.logs(name)
    except Exception:  # noqa: BLE001 - the engine keeps no log of servers, and says so
        return b""

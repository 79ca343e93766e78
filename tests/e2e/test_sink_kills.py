"""The orchestrator, or a sink's server, is killed while a sink outside is written to: each row is there once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence

import pytest

from sandbox.engine.images import MCP_SERVERS, build_all
from sandbox.records.log import verify
from sandbox.records.store import Store
from sandbox.records.writes import State
from tests.lab import PROPOSE, Lab, until
from tests.outside_lab import OutsideLab
from tests.sinks import WORLDS, World, states

WANTED = ["one", "two"]
PAUSES = (0.0, 0.4)
"""Seconds after the start of the container that writes: before it has begun, and about when it does."""


def applier(lab: Lab) -> str | None:
    """Return the running container that writes to a sink for the latest run."""
    folder = lab.run_folder()
    for thing in lab.engine.labelled(folder.name) if folder is not None else []:
        ours = thing["name"].startswith("casemate-sink-") and thing.get("casemate.role") == "customs"
        if ours and lab.engine.is_running(thing["name"]):
            return thing["name"]
    return None


def kill(lab: Lab, process: subprocess.Popen[str], pause_s: float) -> None:
    """Kill the orchestrator while a sink is written to."""
    until(lambda: applier(lab) or process.poll() is not None, 90, "nobody writes")
    time.sleep(pause_s)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)


def killed_in_the_middle(lab: Lab, world: World, pauses: Sequence[float]) -> subprocess.Popen[str] | None:
    """Run, kill it after each pause while it writes, and go on; None where a kill came too late for that."""
    store = Store(lab.folder / ".casemate")
    world.empty()
    process = lab.start(world.workflow(lab))
    for pause_s in pauses:
        kill(lab, process, pause_s)
        being_written = store.writes.of(store.latest())[0].state is State.INTENDED
        process = lab.go_on()
        if not being_written:
            process.communicate(timeout=120)
            return None
    return process


@pytest.mark.parametrize("kind", ["postgres", "http idempotent", "http", "mcp"])
def test_the_orchestrator_is_killed_while_a_sink_is_written_to(lab: Lab, kind: str) -> None:
    home = lab.folder / ".casemate"
    store = Store(home)
    with WORLDS[kind](lab) as world:
        for part in (1, 2, 4, 8):
            pauses = [pause_s / part for pause_s in (PAUSES if world.tells else PAUSES[1:])]
            if (process := killed_in_the_middle(lab, world, pauses)) is not None:
                break
        else:
            pytest.fail("it was written before every kill: the control")
        said = process.communicate(timeout=120)[1]
        found = world.there()
        if world.tells:
            assert (process.returncode, found) == (0, WANTED), said
            assert states(lab, home) == ["applied"]
        else:
            assert (process.returncode, states(lab, home, code=7)) == (7, ["unknown"]), said
            assert len(found) == len(set(found))
            assert states(lab, home, "--done", "rows") == ["applied"]
        assert world.there() == found, "nothing was sent again"
        verify(store.folder(store.latest()))


NOTES = '''
import time, urllib.request
from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")

@server.tool()
def note(text: str) -> str:
    """Keep a note."""
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1/{text}", data=b"x", method="POST")).read()
    time.sleep(20)
    return "kept"

server.run("stdio")
'''


def test_a_server_in_a_container_is_killed_while_its_tool_writes(lab: Lab) -> None:
    build_all(lab.engine, print, (MCP_SERVERS,))
    home = lab.folder / ".casemate"
    with OutsideLab({"notes.example.com": ["origin"]}) as outside:
        lab.env |= outside.env
        (lab.folder / "notes.py").write_text(NOTES)
        there = {"host": "notes.example.com", "port": 80, "scheme": "tcp", "addresses": [outside.subnet]}
        tools = {"notes": {"image": MCP_SERVERS.name, "run": ["python3", "/inputs/notes.py"], "egress": [there]}}
        sink = {"kind": "mcp", "server": "notes", "tool": "note"}
        top = {
            "inputs": {"agent": {"path": "agent.py"}, "notes": {"path": "notes.py"}},
            "outputs": {"rows": {"sink": sink, "schema": "rows.json", "quota": {"per_run": 10}}},
            "tools": tools,
        }
        agent = PROPOSE + "asyncio.run(propose({'text': 'one'}, {'text': 'two'}))\n"
        path = lab.workflow(agent, outputs=["rows"], top=top)
        pinned = lab.cli("mcp", "audit", str(path), "--approve-sink", "notes.note")
        assert pinned.returncode == 0, pinned.stderr

        def posts() -> list[str]:
            return [request["path"] for request in outside.requests if request["method"] == "POST"]

        process = lab.start(path)
        until(posts, 90, "nothing was written")
        lab.engine.kill(lab.container("tool"))
        result = lab.finish(process, timeout_s=120)
        assert result.exit_code == 7, result.stderr
        assert states(lab, home, code=7) == ["unknown"]
        assert posts() == ["/one"], "nobody knows of the first, and the second is not sent"
        assert states(lab, home, "--done", "rows") == ["applied"]
        assert posts() == ["/one"]

"""Sinks outside of the project, for real: a PostgreSQL and an HTTP server, and whoever applies killed anywhere."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies.errors import CasemateError
from policies.sinks import Moment
from policies.slices import seal
from sandbox.applying import Applier
from sandbox.driver import Driver
from sandbox.host import connect
from sandbox.images import MCP_SERVERS, TEST_POSTGRES, build_all
from sandbox.log import RunLog
from sandbox.sink_run import reached
from sandbox.store import Store
from sandbox.writes import State
from tests.lab import PROPOSE, Lab, mentions
from tests.outside_lab import OutsideLab

SECRET = f"canary-{uuid.uuid4().hex}"
ROWS = [{"text": "one", "n": 1}, {"text": "two"}]
AGENT = PROPOSE + f"print(asyncio.run(propose(*json.loads({json.dumps(json.dumps(ROWS))}))))\n"
DIES = """
import os
from functools import partial
from gateway.customs.sinks import run
from gateway.__main__ import main
run.run = partial(run.run, at=lambda now: os._exit(9) if now.value == "{moment}" else None)
main(["apply"])
"""
"""What runs in place of the program that applies: the same, which ends at a moment, with nothing flushed or closed.
The first process of a container cannot kill itself."""
IN_SINK = (Moment.BEGUN, Moment.SENT, Moment.FINAL)


def sunk(lab: Lab, outside: OutsideLab, sink: dict[str, Any], **output: Any) -> Path:
    """Return a workflow whose rows go to a sink outside."""
    lab.env |= outside.env | {"SINK_SECRET": SECRET}
    (lab.folder / "ca.pem").write_bytes(outside.authority)
    sink = {**sink, "secret": "sink", "addresses": [outside.subnet]}
    rows = {"sink": sink, "schema": "rows.json", "quota": {"per_run": 10}, **output}
    top = {"trust": ["ca.pem"], "secrets": {"sink": {"from": "env", "key": "SINK_SECRET"}}, "outputs": {"rows": rows}}
    return lab.workflow(AGENT, outputs=["rows"], top=top)


@contextmanager
def database(lab: Lab) -> Iterator[tuple[OutsideLab, Callable[[str], str]]]:
    """A PostgreSQL server, and a way to ask it beside everything."""
    build_all(lab.engine, print, (TEST_POSTGRES,))
    program = Path(__file__).parents[1] / "outside_postgres.py"
    with OutsideLab({"db.example.com": ["origin"]}, program, {"password": SECRET}, TEST_POSTGRES.name) as outside:
        words = ("psql", "-h", "/run/postgresql", "-At", "shop", "-c")
        yield outside, lambda text: outside.ask(*words, text, user="postgres").strip()


POSTGRES = {"kind": "sql", "url": "postgresql://writer@db.example.com/shop", "table": "notes"}


def killed(lab: Lab, home: Path, moment: Moment) -> None:
    """Apply the latest run of a store; who applies is killed at a moment."""
    store = Store(home)
    run = store.latest()
    plan = store.plan(run)
    command = ("python3", "-c", DIES.format(moment=moment.value))
    with store.taken_up(run) as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in lab.env.items():
            patch.setenv(name, value)
        log = RunLog(folder, run, seal(plan).plan, goes_on=True)
        driver = Driver(connect(), folder, log, lambda _event, _tally: None, time.monotonic() + 120)
        applier = Applier(store, run, plan, driver.note, reached(driver, plan, folder, command))
        with pytest.raises(CasemateError, match="CSM-W020"):
            applier.apply()
        log.close()
    assert store.writes.of(run)[0].state is State.INTENDED


def states(lab: Lab, home: Path, *words: str, code: int = 0) -> list[str]:
    """Call `casemate apply` over a store, as a user would, and return how far its writes are."""
    other = Lab(home.parent)
    other.env = lab.env
    done = other.cli("apply", "latest", "--json", *words)
    assert done.returncode == code, done.stderr
    return [write["state"] for write in json.loads(done.stdout)]


@contextmanager
def copied(lab: Lab, name: str) -> Iterator[Path]:
    """A copy of what a dry run left, so that it can be applied once more from the start."""
    home = lab.folder / name / ".casemate"
    shutil.copytree(lab.folder / ".casemate", home)
    yield home


def test_rows_go_into_a_real_database_once_whatever_dies_and_come_out_again(lab: Lab) -> None:
    with database(lab) as (outside, ask):
        result = lab.run(sunk(lab, outside, POSTGRES, unique=["text"]), "--dry-run")
        assert result.exit_code == 0, result.stderr
        for moment in IN_SINK:
            ask("TRUNCATE notes; DROP TABLE IF EXISTS casemate_writes")
            with copied(lab, moment.value) as home:
                killed(lab, home, moment)
                assert ask("SELECT count(*) FROM notes") == ("2" if moment is Moment.FINAL else "0")
                for _ in range(2):
                    assert states(lab, home) == ["applied"]
                    assert ask("SELECT text, n FROM notes ORDER BY text") == "one|1\ntwo|"
        ask("TRUNCATE notes; DROP TABLE casemate_writes")
        assert lab.cli("apply", "latest").returncode == 0
        assert ask("SELECT row_count FROM casemate_writes") == "2"
        undone = lab.cli("undo", "latest")
        assert undone.returncode == 0, undone.stderr
        assert ask("SELECT (SELECT count(*) FROM notes), (SELECT count(*) FROM casemate_writes)") == "0|0"
    texts = {str(path): path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()}
    assert list(mentions(SECRET, texts)) == []


def test_what_a_database_refuses_is_not_there_at_all(lab: Lab) -> None:
    with database(lab) as (outside, ask):
        ask("INSERT INTO notes VALUES ('two', 7)")
        result = lab.run(sunk(lab, outside, POSTGRES, unique=["text"]))
        assert (result.exit_code, ask("SELECT text, n FROM notes")) == (1, "two|7"), result.stderr
        assert "UniqueViolation" in result.stderr
        upserting = lab.run(sunk(lab, outside, {**POSTGRES, "mode": "upsert"}, unique=["text"]))
        assert upserting.exit_code == 0, upserting.stderr
        assert ask("SELECT text, n FROM notes ORDER BY text") == "one|1\ntwo|"


def test_what_waits_for_a_person_goes_into_the_database_when_it_is_approved(lab: Lab) -> None:
    with database(lab) as (outside, ask):
        held = lab.run(sunk(lab, outside, POSTGRES, unique=["text"], approval="always"))
        assert (held.exit_code, ask("SELECT count(*) FROM notes")) == (7, "0"), held.stderr
        (shown,) = json.loads(lab.cli("review", "latest", "--json").stdout)
        words = ("approve", "latest", "rows", "--reason", "looked at it", "--digest", shown["digest"])
        approved = lab.cli(*words)
        assert approved.returncode == 0, approved.stderr
        assert ask("SELECT text, n FROM notes ORDER BY text") == "one|1\ntwo|"
        assert lab.cli(*words).returncode == 2
        assert ask("SELECT count(*) FROM notes") == "2"


NODE = "/opt/servers/node_modules/@modelcontextprotocol"
ENTITY = {"type": "object", "additionalProperties": False, "required": ["name", "entityType", "observations"]}
ENTITY["properties"] = {
    "name": {"type": "string"},
    "entityType": {"type": "string"},
    "observations": {"type": "array", "items": {"type": "string"}},
}
ENTITIES = {"entities": {"type": "array", "items": ENTITY}}
HTTP = {"kind": "http", "url": "https://api.example.com/notes"}


def posts(outside: OutsideLab) -> list[str]:
    """Return the idempotency keys of what was posted, in order."""
    return [request["headers"]["idempotency-key"] for request in outside.requests if request["method"] == "POST"]


@pytest.mark.parametrize("mode", ["idempotent", "once"])
def test_rows_are_posted_once_and_what_nobody_knows_a_person_decides(lab: Lab, mode: str) -> None:
    with OutsideLab({"api.example.com": ["origin"]}) as outside:
        result = lab.run(sunk(lab, outside, {**HTTP, "mode": mode}), "--dry-run")
        assert result.exit_code == 0, result.stderr
        for moment, sent in zip(IN_SINK, (0, 1, 2), strict=True):
            before = len(posts(outside))
            with copied(lab, moment.value) as home:
                killed(lab, home, moment)
                assert len(posts(outside)) - before == sent
                if mode == "idempotent":
                    assert states(lab, home) == ["applied"]
                    assert len(set(posts(outside)[before:])) == len(ROWS), "the same keys, so nothing is doubled"
                else:
                    assert states(lab, home, code=7) == ["unknown"]
                    assert states(lab, home, "--done", "rows") == ["applied"]
                    assert len(posts(outside)) - before == sent, "nothing was sent again"
        before = len(posts(outside))
        assert lab.cli("apply", "latest").returncode == 0
        assert len(posts(outside)) - before == len(ROWS)
        request = outside.requests[-1]
        assert (request["path"], request["headers"]["authorization"]) == ("/notes", f"Bearer {SECRET}")
        assert outside.queries
        assert all("api.example.com" in query for query in outside.queries)


def served(lab: Lab, outside: OutsideLab, sink: dict[str, Any]) -> Path:
    """Return a workflow whose rows go to a tool: of a server elsewhere, or of one here."""
    build_all(lab.engine, print, (MCP_SERVERS,))
    lab.env |= outside.env | {"SINK_SECRET": SECRET}
    (lab.folder / "ca.pem").write_bytes(outside.authority)
    secret, url = {"from": "env", "key": "SINK_SECRET"}, "https://mcp.example.com/modern/mcp"
    remote = {"url": url, "secret": "sink", "header": "X-Api-Key", "addresses": [outside.subnet]}
    memory = {
        "image": MCP_SERVERS.name,
        "run": ["env", "MEMORY_FILE_PATH=/tmp/memory.json", "node", f"{NODE}/server-memory/dist/index.js"],
    }
    rows = {"sink": {"kind": "mcp", **sink}, "schema": "rows.json", "quota": {"per_run": 10}}
    tools = {"notes": remote, "memory": memory}
    top = {"trust": ["ca.pem"], "secrets": {"sink": secret}, "outputs": {"rows": rows}, "tools": tools}
    return lab.workflow(AGENT, outputs=["rows"], top=top)


def test_a_write_tool_is_called_by_who_applies_and_only_as_it_was_pinned(lab: Lab) -> None:
    program = Path(__file__).parents[1] / "outside_mcp.py"
    config = {"secret": SECRET, "key": SECRET}
    with OutsideLab({"mcp.example.com": ["origin"]}, program, config, MCP_SERVERS.name) as outside:
        workflow = served(lab, outside, {"server": "notes", "tool": "modern_note"})
        refused = lab.run(workflow)
        assert (refused.exit_code, "which nobody pinned as a tool that writes" in refused.stderr) == (4, True)
        pinned = lab.cli("mcp", "audit", str(workflow), "--approve-sink", "notes.modern_note")
        assert pinned.returncode == 0, pinned.stderr
        result = lab.run(workflow)
        assert result.exit_code == 0, result.stderr
        notes = [(line["note"], line["n"]) for line in outside.told if "note" in line]
        assert notes == [("one", 1), ("two", 0)]
        held = {e.attrs["casemate.component"] for e in result.of("secret.delivered")}
        assert held == {"customs"}, "the gateway, which met the agent, never had it"
        assert lab.run(workflow, "--dry-run").exit_code == 0
        killed(lab, lab.folder / ".casemate", Moment.SENT)
        assert states(lab, lab.folder / ".casemate", code=7) == ["unknown"]
        assert states(lab, lab.folder / ".casemate", "--retry", "rows") == ["applied"]
        assert len([line for line in outside.told if "note" in line]) == 2 + 1 + 2
        pins = lab.folder / "casemate.mcp.json"
        pins.write_text(pins.read_text().replace("Keep a note.", "Keep a note!"))
        changed = lab.run(workflow)
        assert (changed.exit_code, "its definition has changed" in changed.stderr) == (1, True), changed.stderr
        assert len([line for line in outside.told if "note" in line]) == 5
    texts = {str(path): path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()}
    assert list(mentions(SECRET, texts)) == []


def test_a_write_tool_of_a_server_in_a_container_is_called(lab: Lab) -> None:
    with OutsideLab({"mcp.example.com": ["origin"]}) as outside:
        workflow = served(lab, outside, {"server": "memory", "tool": "create_entities", "mode": "idempotent"})
        schema = {"type": "object", "additionalProperties": False, "required": ["entities"], "properties": ENTITIES}
        (lab.folder / "rows.json").write_text(json.dumps(schema))
        row = {"entities": [{"name": "one", "entityType": "note", "observations": ["kept"]}]}
        (lab.folder / "agent.py").write_text(PROPOSE + f"asyncio.run(propose({row!r}))\n")
        document = yaml.safe_load(workflow.read_text())
        del document["tools"]["notes"], document["secrets"]
        workflow.write_text(yaml.safe_dump(document, sort_keys=False))
        pinned = lab.cli("mcp", "audit", str(workflow), "--approve-sink", "memory.create_entities")
        assert pinned.returncode == 0, pinned.stderr
        result = lab.run(workflow)
        assert result.exit_code == 0, result.stderr
        (applied,) = result.of("write.applied")
        assert applied.attrs["casemate.receipt"] == '{"sent":1}'

"""What sinks outside of the project do besides what all do (`test_sink_conformance.py`), against the real thing."""

from __future__ import annotations

import json
from typing import Any

from policies.sinks import Moment
from sandbox.engine.images import MCP_SERVERS, build_all
from tests.lab import PROPOSE, Lab
from tests.sinks import MODELS, SECRET, Registry, http, killed, mlflow, postgres, remote_tool, states


def test_what_a_database_refuses_is_not_there_at_all(lab: Lab) -> None:
    with postgres(lab) as world:
        world.ask("INSERT INTO notes VALUES ('two', 7)")
        result = lab.run(world.workflow(lab))
        assert (result.exit_code, world.ask("SELECT text, n FROM notes")) == (1, "two|7"), result.stderr
        assert "UniqueViolation" in result.stderr
        world.sink["mode"] = "upsert"
        upserting = lab.run(world.workflow(lab))
        assert upserting.exit_code == 0, upserting.stderr
        assert world.ask("SELECT text, n FROM notes ORDER BY text") == "one|1\ntwo|"


def test_what_waits_for_a_person_goes_into_the_database_when_it_is_approved(lab: Lab) -> None:
    with postgres(lab) as world:
        held = lab.run(world.workflow(lab, approval="always"))
        assert (held.exit_code, world.there()) == (7, []), held.stderr
        (shown,) = json.loads(lab.cli("review", "latest", "--json").stdout)
        words = ("approve", "latest", "rows", "--reason", "looked at it", "--digest", shown["digest"])
        approved = lab.cli(*words)
        assert approved.returncode == 0, approved.stderr
        assert world.there() == ["one", "two"]
        assert lab.cli(*words).returncode == 2
        assert world.there() == ["one", "two"]


def test_a_post_says_whose_it_is_and_nothing_else_is_asked_for(lab: Lab) -> None:
    with http(lab, "idempotent") as world:
        result = lab.run(world.workflow(lab))
        assert result.exit_code == 0, result.stderr
        assert world.outside is not None
        request = world.outside.requests[-1]
        assert (request["path"], request["headers"]["authorization"]) == ("/notes", f"Bearer {SECRET}")
        assert world.outside.queries
        assert all("api.example.com" in query for query in world.outside.queries)


def test_a_write_tool_is_called_by_who_applies_and_only_as_it_was_pinned(lab: Lab) -> None:
    with remote_tool(lab) as world:
        pins = lab.folder / "casemate.mcp.json"
        workflow = world.workflow(lab)
        pinned = pins.read_text()
        pins.unlink()
        refused = lab.run(workflow)
        assert (refused.exit_code, "which nobody pinned as a tool that writes" in refused.stderr) == (4, True)
        pins.write_text(pinned)
        result = lab.run(workflow)
        assert (result.exit_code, world.there()) == (0, ["one", "two"]), result.stderr
        held = {e.attrs["casemate.component"] for e in result.of("secret.delivered")}
        assert held == {"customs"}, "the gateway, which met the agent, never had it"
        assert lab.run(workflow, "--dry-run").exit_code == 0
        killed(lab, lab.folder / ".casemate", Moment.SENT)
        assert states(lab, lab.folder / ".casemate", code=7) == ["unknown"]
        assert states(lab, lab.folder / ".casemate", "--retry", "rows") == ["applied"]
        assert world.there() == ["one", "two", "one", "one", "two"]
        pins.write_text(pinned.replace("Keep a note.", "Keep a note!"))
        changed = lab.run(workflow)
        assert (changed.exit_code, "its definition has changed" in changed.stderr) == (1, True), changed.stderr
        assert len(world.there()) == 5


NODE = "/opt/servers/node_modules/@modelcontextprotocol"
ENTITY: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "entityType", "observations"],
    "properties": {
        "name": {"type": "string"},
        "entityType": {"type": "string"},
        "observations": {"type": "array", "items": {"type": "string"}},
    },
}


def test_a_write_tool_of_a_server_in_a_container_is_called(lab: Lab) -> None:
    build_all(lab.engine, print, (MCP_SERVERS,))
    memory = {
        "image": MCP_SERVERS.name,
        "run": ["env", "MEMORY_FILE_PATH=/tmp/memory.json", "node", f"{NODE}/server-memory/dist/index.js"],
    }
    sink = {"kind": "mcp", "server": "memory", "tool": "create_entities", "mode": "idempotent"}
    row = {"entities": [{"name": "one", "entityType": "note", "observations": ["kept"]}]}
    outputs = {"rows": {"sink": sink, "schema": "rows.json", "quota": {"per_run": 10}}}
    agent = PROPOSE + f"asyncio.run(propose({row!r}))\n"
    workflow = lab.workflow(agent, outputs=["rows"], top={"outputs": outputs, "tools": {"memory": memory}})
    fields = {"entities": {"type": "array", "items": ENTITY}}
    schema = {"type": "object", "additionalProperties": False, "required": ["entities"], "properties": fields}
    (lab.folder / "rows.json").write_text(json.dumps(schema))
    pinned = lab.cli("mcp", "audit", str(workflow), "--approve-sink", "memory.create_entities")
    assert pinned.returncode == 0, pinned.stderr
    result = lab.run(workflow)
    assert result.exit_code == 0, result.stderr
    (applied,) = result.of("write.applied")
    assert applied.attrs["casemate.receipt"] == '{"sent":1}'


def test_versions_carry_what_was_said_and_the_alias_moves_and_comes_back(lab: Lab) -> None:
    with mlflow(lab) as world:
        server = Registry(world.outside)
        first = lab.run(world.workflow(lab))
        assert first.exit_code == 0, first.stderr
        one, two = server.versions()
        assert (one["source"], one["tags"]["n"], two["tags"]["text"]) == (f"{MODELS}/one", "1", "two")
        assert server.alias("candidate") == two["version"] == "2"
        assert lab.run(world.workflow(lab)).exit_code == 0
        assert server.alias("candidate") == "4"
        server.ask("POST", "registered-models/alias", {"name": "student", "alias": "champion", "version": "3"})
        assert lab.cli("undo", "latest").returncode == 4, "somebody has begun to rely on it"
        assert len(server.versions()) == 4
        server.ask("DELETE", "registered-models/alias", {"name": "student", "alias": "champion"})
        undone = lab.cli("undo", "latest")
        assert undone.returncode == 0, undone.stderr
        assert ([v["version"] for v in server.versions()], server.alias("candidate")) == (["1", "2"], "2")


def test_a_request_that_arrives_after_its_sender_died_leaves_no_second_version(lab: Lab) -> None:
    with mlflow(lab) as world:
        server = Registry(world.outside)
        assert lab.run(world.workflow(lab), "--dry-run").exit_code == 0
        killed(lab, lab.folder / ".casemate", Moment.SENT)
        (there,) = server.versions()
        tags = [{"key": key, "value": value} for key, value in there["tags"].items()]
        late = server.ask("POST", "model-versions/create", {"name": "student", "source": there["source"], "tags": tags})
        assert late["model_version"]["version"] == "2"
        assert states(lab, lab.folder / ".casemate") == ["applied"]
        assert [version["version"] for version in server.versions()] == ["1", "3"]


def test_a_source_that_the_plan_does_not_name_and_a_registry_that_refuses_leave_nothing(lab: Lab) -> None:
    with mlflow(lab) as world:
        server = Registry(world.outside)
        elsewhere = [
            "s3://models/studentsX/1",
            "s3://models/students/../x",
            "file:///etc",
            "s3://models/students/%2e%2e/x",
        ]
        world.rows[:] = [*world.rows, *({"text": str(n), "source": source} for n, source in enumerate(elsewhere))]
        result = lab.run(world.workflow(lab))
        assert (result.exit_code, world.there()) == (0, ["one", "two"]), result.stderr
        rules = [event.rule for event in result.of("write.judged") if event.verdict == "reject"]
        assert rules == ["CSM-W021"] * len(elsewhere)
        world.rows[2:] = []
        world.fields["note"] = {"type": "string"}
        world.rows[1]["note"] = "word " * 30_000  # which is too long for a tag; the first is there by then
        refused = lab.run(world.workflow(lab))
        assert (refused.exit_code, len(server.versions())) == (1, 2), refused.stderr
        assert "CSM-W010" in refused.stderr

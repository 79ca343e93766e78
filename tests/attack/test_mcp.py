"""Rows 50 to 64: an agent in a real cell at its MCP door, and servers in real cells that turn on it.

Every stage has one server of its own, which behaves as its name says; the honest call of the same tool is the control.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.vocabulary import Verdict
from sandbox.engine.images import MCP_SERVERS, build_all
from tests.gateway.hostile import LISTS, TOOLS
from tests.lab import Lab, Result, mentions

HERE = Path(__file__).resolve().parent
HONEST = "look: x"
CANARY = "canary-of-an-agent-5d1e77"
MODES = {
    "plain": "honest", "turns": "announced", "hides": "hidden-description", "asks": "asks", "mirror": "mirror",
    "large": "large", "huge": "huge", "flood": "flood", "nan": "nan", "deep": "deep", "surrogate": "surrogate",
    "leaves": "exit-call",
}  # fmt: skip
BROKEN = ("huge", "flood", "nan", "deep", "surrogate", "leaves")
CODES: dict[str, tuple[int, str]] = {
    "50 a tool that was not given": (200, "CSM-G005"),
    "50 a tool that there is not": (200, "CSM-G005"),
    "62 a tool that writes": (200, "CSM-G005"),
    "51 an argument of another type": (200, "CSM-G006"),
    "51 an argument too many": (200, "CSM-G006"),
    "51 no argument": (200, "CSM-G006"),
    "57 a session that is not there": (404, "CSM-G001"),
    "57 a server that is not there": (404, "CSM-G003"),
    "57 the server of another stage": (404, "CSM-G003"),
    "57 dot segments": (404, "CSM-G003"),
    "59 a duplicate key": (400, "CSM-G001"),
    "59 not a number": (400, "CSM-G001"),
    "59 a batch": (400, "CSM-G001"),
    "59 nested deeply": (400, "CSM-G001"),
    "59 a lone surrogate": (400, "CSM-G001"),
    "60 resources": (200, "CSM-G004"),
    "60 a resource": (200, "CSM-G004"),
    "60 prompts": (200, "CSM-G004"),
    "60 a completion": (200, "CSM-G004"),
    "60 sampling": (200, "CSM-G004"),
    "60 elicitation": (200, "CSM-G004"),
    "60 roots": (200, "CSM-G004"),
    "60 tasks": (200, "CSM-G004"),
    "63 another host": (403, "CSM-G007"),
    "63 a host with another port": (403, "CSM-G007"),
    "63 another origin": (403, "CSM-G007"),
    "63 an origin that begins alike": (403, "CSM-G007"),
}
"""What each probe must come to: the status, and the code of the refusal."""
Seen = dict[str, Any]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Result, dict[str, Seen]]]:
    """One run with a stage and a server for each behaviour."""
    lab = Lab(tmp_path_factory.mktemp("mcp"))
    build_all(lab.engine, print, (MCP_SERVERS,))
    result = lab.run(write(lab))
    assert result.exit_code == 0, result.stderr
    yield lab, result, {name: json.loads(result.artifact(f"{name}/seen.json")) for name in MODES}
    assert lab.left_over() == []


def write(lab: Lab, **more: Any) -> Path:
    """Write the workflow, and pins as if the honest tools had been approved: `drop` as one that writes."""
    (lab.folder / "hostile.py").write_bytes((HERE.parent / "gateway/hostile.py").read_bytes())
    pins = [{"name": tool["name"], "reads": tool["name"] != "drop", "definition": tool} for tool in TOOLS]
    (lab.folder / "casemate.mcp.json").write_text(json.dumps(dict.fromkeys(MODES, pins)))
    limits = {"cpu": 1, "memory": "256MiB", "pids": 64, "disk": "32MiB", "wall": "60s"}
    stages = [
        {"name": name, "image": "casemate/agent-python", "run": ["python", "/inputs/agent.py", name],
         "limits": limits, "tools": {name: ["look"]}}
        for name in MODES
    ]  # fmt: skip
    servers = {
        name: {"image": MCP_SERVERS.name, "run": ["python3", "-S", "/inputs/hostile.py", mode]}
        for name, mode in MODES.items()
    }
    inputs = {"agent": {"path": "agent.py"}, "server": {"path": "hostile.py"}}
    budget = {"usd": 1, "tokens": 1000, "calls": 10, "wall": "10m"}
    top = {"stages": stages, "tools": servers, "inputs": inputs, "budget": budget, **more}
    return lab.workflow((HERE / "mcp_probes.py").read_text(), top=top)


def text(answer: tuple[int, str]) -> str:
    """What a tool said, or what a refusal says."""
    status, body = answer
    told = json.loads(body)
    if status != 200 or "error" in told:
        return json.dumps(told)
    return "".join(part.get("text", "") for part in told["result"]["content"])


def denied(result: Result, stage: str) -> list[str | None]:
    """The rules of the denials of a stage, in their order."""
    return [event.rule for event in result.events if event.stage == stage and event.verdict is Verdict.DENY]


@pytest.mark.parametrize("probe", CODES)
def test_rows_50_to_63_a_trick_at_the_door_is_refused(ran: Any, probe: str) -> None:
    _, _, seen = ran
    status, code = CODES[probe]
    assert text(seen["plain"]["before"]) == HONEST, "the control"
    got, body = seen["plain"]["door"][probe]
    assert (got, code in body) == (status, True), body[:500]
    assert HONEST not in body
    assert text(seen["plain"]["after"]) == HONEST, "the control"


def test_rows_50_to_63_each_trick_makes_exactly_one_event(ran: Any) -> None:
    _, result, seen = ran
    assert set(seen["plain"]["door"]) == set(CODES), "what was tried is what is judged"
    assert denied(result, "plain") == [CODES[probe][1] for probe in seen["plain"]["door"]]
    allowed = [e for e in result.of("tool.called") if e.stage == "plain" and e.verdict is Verdict.ALLOW]
    assert len(allowed) == 2, "only the honest calls reached the server"


def test_row_62_a_plan_that_gives_a_tool_that_writes_is_not_run(ran: Any) -> None:
    lab, _, _ = ran
    path = write(lab)
    path.write_text(path.read_text().replace("- look", "- drop"))
    refused = lab.run(path)
    assert refused.exit_code == 4
    assert "CSM-R021" in refused.stderr


def test_row_52_a_tool_that_changes_while_the_server_runs_vanishes(ran: Any) -> None:
    _, result, seen = ran
    turns = seen["turns"]
    assert [tool["name"] for tool in json.loads(turns["listed"][1])["result"]["tools"]] == ["look"], "the control"
    assert text(turns["before"]) == HONEST, "the control"
    assert json.loads(turns["listed after"][1])["result"]["tools"] == []
    assert "CSM-G005" in turns["after"][1]
    assert "evil.example" not in json.dumps(turns)
    assert denied(result, "turns") == ["CSM-G013", "CSM-G005"]


def test_row_53_hidden_text_in_a_definition_is_withheld(ran: Any) -> None:
    _, result, seen = ran
    assert LISTS["hidden-description"][0]["description"] != TOOLS[0]["description"], "there is hidden text"
    assert json.loads(seen["hides"]["listed"][1])["result"]["tools"] == []
    assert "CSM-G005" in seen["hides"]["before"][1]
    assert "\u200b" not in json.dumps(seen["hides"], ensure_ascii=False)
    assert denied(result, "hides")[0] == "CSM-G013"


def test_row_60_what_a_server_asks_of_its_client_is_refused(ran: Any) -> None:
    _, _, seen = ran
    said = text(seen["asks"]["before"])
    for method in ("sampling/createMessage", "roots/list", "elicitation/create"):
        assert f"{method} -32601" in said


@pytest.mark.parametrize("mode", BROKEN)
def test_row_58_a_result_that_is_huge_endless_or_junk_is_a_typed_error(ran: Any, mode: str) -> None:
    _, result, seen = ran
    assert json.loads(seen[mode]["listed"][1])["result"]["tools"] != [], "the control: the server was there"
    for when in ("before", "after"):
        status, body = seen[mode][when]
        assert status == 200
        assert "CSM-G014" in body, body[:500]
        assert len(body) < 10_000
    assert set(denied(result, mode)) == {"CSM-G014"}
    if mode == "flood":
        # Its container is still being read when its conversation has ended, so it is not yet started anew.
        assert seen[mode]["seconds"] < 60
    else:
        assert len(denied(result, mode)) == 2
        assert seen[mode]["seconds"] < 25, "it is started anew at once"


def test_row_58_a_large_result_is_cut(ran: Any) -> None:
    _, result, seen = ran
    said = text(seen["large"]["before"])
    assert said.startswith("y" * 1000), "the control: some of it arrives"
    assert len(said) < 300_000
    assert "cut" in said[-200:]
    answered = [event for event in result.of("tool.answered") if event.stage == "large"]
    assert [event.rule for event in answered] == ["CSM-G015"] * 2


def test_row_64_nothing_of_a_clients_head_reaches_a_server(ran: Any) -> None:
    _, result, seen = ran
    passed, environment = json.loads(text(seen["mirror"]["passed on"]))
    assert passed == {"name": "look", "arguments": {"q": "x"}}
    assert not [name for name in environment if "TOKEN" in name or "KEY" in name]
    assert CANARY in text(seen["mirror"]["said"]), "the control: what is said as an argument does arrive"
    assert result.folder is not None
    logs = {str(p): p.read_bytes() for p in result.folder.rglob("*") if p.is_file() and p.name != "seen.json"}
    assert list(mentions(CANARY, {k: v for k, v in logs.items() if not k.endswith("agent.py")})) == []

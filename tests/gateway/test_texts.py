"""Resources, prompts and completions: there only where the plan lists them, and written anew."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.serve.results import MAX_RESULT
from gateway.serve.servers.peer import Answer, Peer
from gateway.serve.texts import Texts
from tests.gateway.hostile import TOKEN
from tests.gateway.test_tools_door import Scripted
from tests.gateway.tool_kit import Agent, ask

GIVEN = Texts(["memo://today", "file:///inputs/*"], ["summary"])
METHODS = ("resources/list", "resources/templates/list", "resources/read", "prompts/list", "prompts/get",
           "completion/complete")  # fmt: skip
READ = {"contents": [{"uri": "memo://today", "mimeType": "text/plain", "text": f"a\u200b{TOKEN}", "_meta": {}, "x": 1}]}
GOT = {"description": "d\u202e", "messages": [{"role": "user", "content": {"type": "text", "text": TOKEN}, "x": 1}]}
RESULTS: dict[str, Any] = {
    "resources/list": {"resources": [{"uri": uri, "name": f"n\u200b {TOKEN}", "icons": []} for uri in
                                     ("memo://today", "memo://other", "file:///inputs/a", "file:///inputs/../etc")]},
    "resources/templates/list": {"resourceTemplates": [{"uriTemplate": t, "name": "t"} for t in
                                                       ("file:///inputs/{x}", "file:///{x}", "memo://today")]},
    "prompts/list": {"prompts": [{"name": "summary", "arguments": [{"name": "a", "x": 1}]}, {"name": "other"}]},
    "resources/read": READ,
    "prompts/get": GOT,
    "completion/complete": {"completion": {"values": [f"v{TOKEN}", 5, "w"], "total": 3}},
}  # fmt: skip
ASKED: dict[str, dict[str, Any]] = {
    "resources/read": {"uri": "memo://today"},
    "prompts/get": {"name": "summary", "arguments": {"a": "b"}},
    "completion/complete": {"ref": {"type": "ref/prompt", "name": "summary"}, "argument": {"name": "a", "value": "v"}},
}


def talk(
    method: str, params: dict[str, Any] | None = None, texts: Texts | None = GIVEN, **results: Any
) -> tuple[dict[str, Any], list[str], list[Any]]:
    """Ask; return the answer, the methods that reached the server, and the events."""
    sent: list[tuple[str, dict[str, Any]]] = []

    async def go() -> tuple[dict[str, Any], list[Any]]:
        async def open_peer() -> Peer:
            return Scripted(sent=sent, results={**RESULTS, **results})

        agent = Agent(open_peer, texts=texts)
        return await agent.send(ask(method, ASKED.get(method, {}) if params is None else params)), agent.taken()

    answer, events = asyncio.run(go())
    return answer, [name for name, _ in sent if name == method], events


@pytest.mark.parametrize("method", METHODS)
def test_row_60_what_the_plan_does_not_list_is_not_there(method: str) -> None:
    for texts in (None, Texts(), Texts([], ["summary"]) if method.startswith("res") else Texts(["memo://today"], [])):
        if texts is not None and texts.given and method == "completion/complete":
            continue
        answer, reached, events = talk(method, texts=texts)
        assert answer["error"]["code"] == -32601
        assert reached == []
        assert events == [("tool.called", "deny", "CSM-G004")]
    # control: listed, it is there
    answer, reached, events = talk(method)
    assert "result" in answer
    assert reached == [method]
    assert [event[:2] for event in events] == [("tool.called", "allow"), ("tool.answered", "allow")]


@pytest.mark.parametrize(
    "method", ["sampling/createMessage", "elicitation/create", "roots/list", "tasks/get", "resources/subscribe",
               "resources/unsubscribe", "prompts/delete", "resources/write"]
)  # fmt: skip
def test_row_60_what_no_plan_can_list_is_refused_whatever_it_lists(method: str) -> None:
    answer, reached, _ = talk(method)
    assert answer["error"]["code"] == -32601
    assert reached == []


def test_what_is_offered_is_what_was_given() -> None:
    def offers(texts: Texts | None) -> set[str]:
        return set(talk("initialize", {"protocolVersion": "2025-11-25"}, texts)[0]["result"]["capabilities"])

    assert offers(None) == {"tools", "logging"}
    assert offers(Texts(["memo://x"])) == {"tools", "logging", "resources", "completions"}
    assert offers(Texts([], ["x"])) == {"tools", "logging", "prompts", "completions"}


def test_a_listing_names_what_was_given_and_nothing_else() -> None:
    listed = {method: talk(method)[0]["result"] for method in METHODS[:2] + METHODS[3:4]}
    found = listed["resources/list"]["resources"]
    assert [item["uri"] for item in found] == ["memo://today", "file:///inputs/a"]
    assert found[0] == {"uri": "memo://today", "name": "n [redacted]"}
    templates = listed["resources/templates/list"]["resourceTemplates"]
    assert [item["uriTemplate"] for item in templates] == ["file:///inputs/{x}"]
    assert listed["prompts/list"]["prompts"] == [{"name": "summary", "arguments": [{"name": "a"}]}]


@pytest.mark.parametrize(
    "uri",
    ["memo://other", "memo://today/", "memo://todayx", "MEMO://today", "file:///inputs", "file:///etc/passwd",
     "file:///inputs/../etc/passwd", "file:///inputs/a/./b", "file:///inputs/%2e%2e/etc", "file:///inputs/a%2f..",
     "file:///inputs/..", "file:///inputs/a\\..\\b", "file:///inputs/a b", "file:///inputs/\u202ea", "file:///inputs/a\n",
     "", "*", "file:///inputs/a%00", "file:///inputs//../x"],
)  # fmt: skip
def test_a_resource_that_was_not_given_or_has_two_readings_goes_nowhere(uri: str) -> None:
    answer, reached, events = talk("resources/read", {"uri": uri})
    assert answer["error"]["code"] == -32602
    assert reached == []
    assert [event[1] for event in events] == ["deny"]
    assert talk("resources/read", {"uri": "file:///inputs/a/b.txt"})[1] == ["resources/read"]  # control


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/read", {}), ("resources/read", {"uri": 5}), ("resources/read", {"uri": "memo://today", "x": 1}),
        ("prompts/get", {"name": "other"}), ("prompts/get", {"name": "summary", "arguments": {"a": 1}}),
        ("prompts/get", {"name": ["summary"]}), ("completion/complete", {"ref": {"type": "ref/prompt"}}),
        ("completion/complete", {**ASKED["completion/complete"], "ref": {"type": "ref/prompt", "name": "other"}}),
        ("completion/complete", {**ASKED["completion/complete"], "ref": {"type": "ref/resource", "uri": "file:///{x}"}}),
        ("completion/complete", {**ASKED["completion/complete"], "context": {"arguments": {"a": 5}}}),
    ],
)  # fmt: skip
def test_a_question_that_is_malformed_or_about_something_else_goes_nowhere(method: str, params: dict[str, Any]) -> None:
    answer, reached, events = talk(method, params)
    assert answer["error"]["code"] == -32602
    assert reached == []
    assert [event[1] for event in events] == ["deny"]


def test_an_answer_is_written_anew_and_cleaned_and_counted() -> None:
    answer, _, events = talk("resources/read")
    assert answer["result"] == {"contents": [{"uri": "memo://today", "mimeType": "text/plain", "text": "a[redacted]"}]}
    assert events[-1] == ("tool.answered", "allow", "CSM-G015")
    answer, _, _ = talk("prompts/get")
    message = {"role": "user", "content": {"type": "text", "text": "[redacted]"}}
    assert answer["result"] == {"description": "d", "messages": [message]}
    answer, _, _ = talk("completion/complete")
    assert answer["result"] == {"completion": {"values": ["v[redacted]", "w"], "hasMore": False}}


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("resources/read", {}), ("resources/read", {"contents": {}}), ("resources/read", {"contents": [{"text": "x"}]}),
        ("resources/read", {"contents": [{"uri": "memo://today"}]}), ("resources/list", {"resources": {}}),
        ("resources/read", {"contents": [{"uri": "memo://today", "text": "x", "blob": "eA=="}]}),
        ("prompts/get", {"messages": [{"role": "system", "content": {"type": "text", "text": "x"}}]}),
        ("prompts/get", {"messages": [{"role": "user", "content": "x"}]}), ("prompts/list", {"prompts": [1]}),
        ("prompts/get", {"messages": [{"role": "user", "content": {"type": "script", "text": "x"}}]}),
        ("completion/complete", {"completion": {"values": "x"}}),
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_a_typed_error(method: str, result: Any) -> None:
    answer, reached, events = talk(method, **{method: result})
    assert answer["error"]["code"] == -32603
    assert reached == [method]
    assert [event for event in events if event[1] == "deny"] == [("tool.called", "deny", "CSM-G014")]


def test_an_answer_that_is_too_large_is_cut_and_said_to_be() -> None:
    parts = [{"uri": "memo://today", "text": "y" * 100_000}] * 10
    answer, _, events = talk("resources/read", **{"resources/read": {"contents": parts}})
    assert 0 < len(answer["result"]["contents"]) < 10
    assert len(json.dumps(answer)) < MAX_RESULT + 1000
    assert events[-1] == ("tool.answered", "allow", "CSM-G015")


@pytest.mark.parametrize(("code", "told"), [(-32002, -32002), (-32602, -32602), (-1, -32603), (-32601, -32603)])
def test_an_error_of_a_server_has_a_code_of_the_protocol_and_clean_words(code: int, told: int) -> None:
    answer, _, _ = talk("resources/read", **{"resources/read": Answer(None, code, f"no\u200b {TOKEN}")})
    assert answer["error"] == {"code": told, "message": "no [redacted]"}

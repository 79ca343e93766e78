"""A hostile MCP server behind a real bridge: each trick ends in a typed error or a clean result, and in its events."""

from __future__ import annotations

import asyncio
import json
import resource
from typing import Any

import pytest

from gateway.serve.servers.session import Patience
from tests.gateway.hostile import CHUNK, LIMIT, TOKEN
from tests.gateway.tool_kit import SHORT, Agent, Pair, running

CALLED = ("tool.called", "allow", None)
ANSWERED = ("tool.answered", "allow", None)
TOUCHED = ("tool.answered", "allow", "CSM-G015")
FAILED = ("tool.answered", "deny", "CSM-G014")
UNREADY = ("tool.called", "deny", "CSM-G014")
CHANGED = ("tool.changed", "deny", "CSM-G013")
REFUSED = ("tool.called", "deny", "CSM-G005")


def said(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


def code(answer: dict[str, Any]) -> str:
    """The code of a denial, wherever the answer carries it."""
    if "error" in answer:
        return str(answer["error"]["data"]["code"])
    assert answer["result"]["isError"] is True
    return str(json.loads(said(answer))["error"]["code"])


async def honest(agent: Agent) -> None:
    """The control: through the same desk, an honest server answers and nothing is refused."""
    assert await agent.tools() == ["look", "count"]
    assert said(await agent.call()) == "look: x"
    counted = (await agent.call("count", None))["result"]
    assert (counted["structuredContent"], counted["isError"]) == ({"n": 1}, False)
    assert agent.taken() == [CALLED, ANSWERED] * 2


def test_an_honest_server_answers() -> None:
    with running("honest") as pair:
        asyncio.run(honest(Agent(pair.open)))


@pytest.mark.parametrize(
    "mode", ["description", "hidden-description", "schema", "annotation", "twice", "gone", "page-two"]
)
def test_a_tool_that_is_not_what_was_approved_vanishes(mode: str) -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        assert await agent.tools() == ["count"]
        assert agent.taken() == [CHANGED]
        assert code(await agent.call("look")) == "CSM-G005"
        assert await agent.tools() == ["count"]
        assert agent.taken() == [REFUSED], "it is told of once"
        assert (await agent.call("count", None))["result"]["structuredContent"] == {"n": 1}

    with running(mode) as pair:
        asyncio.run(go(pair))


@pytest.mark.parametrize("mode", ["lying", "more"])
def test_the_plan_says_what_reads_and_what_is_there(mode: str) -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open, wanted=("look", "drop"))
        assert await agent.tools() == ["look"]
        assert agent.taken() == [CHANGED]
        for name in ("drop", "steal", "count"):
            assert code(await agent.call(name)) == "CSM-G005"
        assert agent.taken() == [REFUSED] * 3

    with running(mode) as pair:
        asyncio.run(go(pair))


def test_a_server_that_comes_back_with_other_tools_has_lost_them() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open, SHORT)
        assert said(await agent.call()) == "look: x"
        assert agent.taken() == [CALLED, ANSWERED]
        assert code(await agent.call(q="die")) == "CSM-G014"
        assert agent.taken() == [CALLED, FAILED]
        assert code(await agent.call()) == "CSM-G005"
        assert agent.taken() == [CHANGED, REFUSED]
        assert await agent.tools() == ["count"]

    with running("rug") as pair:
        asyncio.run(go(pair))


def test_a_server_that_says_that_its_tools_have_changed_is_asked_again() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        assert said(await agent.call()) == "look: x"
        assert code(await agent.call()) == "CSM-G005"
        assert agent.taken() == [CALLED, ANSWERED, CHANGED, REFUSED]

    with running("announced") as pair:
        asyncio.run(go(pair))


def test_a_call_goes_only_to_a_server_whose_tools_were_compared() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        stale = list(await agent.session.tools())
        with pytest.raises(Exception, match="anew"):
            await agent.session.call("look", {"q": "x"}, stale)
        await agent.session.call("look", {"q": "x"}, await agent.session.tools())

    with running("honest") as pair:
        asyncio.run(go(pair))


UNREADY_MODES = {
    "endless-pages": "pages of tools",
    "circle": "in a circle",
    "many": "over 500 tools",
    "no-list": "does not list its tools",
    "hang-initialize": "was not ready within",
    "hang-list": "was not ready within",
    "crash": "it has ended",
    "junk": "not one JSON document",
    "twins": "not one JSON document",
    "old": "no revision",
}


@pytest.mark.parametrize(("mode", "why"), UNREADY_MODES.items())
def test_a_server_that_does_not_open_is_an_error_and_never_an_empty_list(mode: str, why: str) -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        answer = await agent.send(b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}')
        assert (answer["id"], code(answer)) == (7, "CSM-G014")
        reason = answer["error"]["data"]["denied"]
        assert why in reason or (mode == "crash" and reason == "it does not start")
        assert TOKEN not in json.dumps(answer)
        assert agent.taken() == [UNREADY]

    with running(mode) as pair:
        asyncio.run(go(pair))


def test_a_server_that_never_opens_is_not_tried_for_ever() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open, Patience(open_s=5, opened=2))
        for _ in range(4):
            assert code(await agent.call()) == "CSM-G014"
        assert agent.taken() == [UNREADY] * 4
        assert len((pair.socket.parent.parent / "starts").read_bytes()) <= 3

    with running("old") as pair:
        asyncio.run(go(pair))


CALL_MODES = {
    "hang-call": "did not answer within",
    "exit-call": "it has ended",
    "endless-line": "a line over",
    "huge": "a line over",
    "flood": "talks too much",
    "deaf": "",
    "deep": "not one JSON document",
    "nan": "not one JSON document",
    "surrogate": "not one JSON document",
    "batch": "not JSON-RPC",
    "both": "neither a result nor an error",
    "no-content": "no list",
}


@pytest.mark.parametrize(("mode", "why"), CALL_MODES.items())
def test_a_call_that_ends_badly_is_a_typed_error_and_one_event(mode: str, why: str) -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        assert await agent.tools() == ["look", "count"]
        answer = await asyncio.wait_for(agent.call(), 20)
        assert code(answer) == "CSM-G014"
        assert why in said(answer)
        assert agent.taken() == [CALLED, FAILED]

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with running(mode) as pair:
        asyncio.run(go(pair))
        state = pair.socket.parent.parent
        assert not (state / "all").exists(), "it was cut off"
        if mode == "endless-line":
            assert (state / "sent").stat().st_size * CHUNK < 40 << 20 < LIMIT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024, "memory is bounded"
    with running("honest") as pair:
        asyncio.run(honest(Agent(pair.open)))


def test_structured_content_that_breaks_its_schema_is_no_result() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        assert code(await agent.call("count", None)) == "CSM-G014"
        assert agent.taken() == [CALLED, FAILED]
        assert not (await agent.call())["result"]["isError"], "a broken result is no broken connection"

    with running("broken-structure") as pair:
        asyncio.run(go(pair))


def test_only_the_answer_to_a_call_answers_it() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        for number in range(5):
            assert said(await agent.call(q=str(number))) == f"look: {number}"

    for mode in ("other-ids", "answers-twice"):
        with running(mode) as pair:
            asyncio.run(go(pair))


def test_calls_at_once_get_each_its_own_answer() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        answers = await asyncio.gather(*(agent.call(q=str(number)) for number in range(20)))
        assert [said(answer) for answer in answers] == [f"look: {number}" for number in range(20)]

    with running("honest") as pair:
        asyncio.run(go(pair))


def test_what_a_server_asks_of_a_client_is_refused() -> None:
    async def go(pair: Pair) -> None:
        answer = said(await Agent(pair.open).call())
        assert [part.split()[1] for part in answer.split("; ")] == ["-32601"] * 4

    with running("asks") as pair:
        asyncio.run(go(pair))


def test_our_own_secret_never_comes_back() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        answer = await agent.call()
        assert TOKEN not in json.dumps(answer)
        assert said(answer) == "I was given [redacted] and [redacted]"
        assert answer["result"]["structuredContent"] == {"[redacted]": ["[redacted]"]}
        assert agent.taken() == [CALLED, TOUCHED]
        answer = await agent.call(q="error")
        assert (said(answer), answer["result"]["isError"]) == ("error -32000: bad token [redacted]", True)
        assert agent.taken() == [CALLED, TOUCHED]

    with running("echo") as pair:
        asyncio.run(go(pair))


def test_a_stream_of_events_inside_a_text_stays_a_text() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        answer = await agent.call()
        assert answer.keys() == {"jsonrpc", "id", "result"}
        assert "\n\r\nevent: message\r\ndata: {" in said(answer)
        assert await agent.tools() == ["look", "count"]

    with running("injected") as pair:
        asyncio.run(go(pair))


def test_a_large_result_is_cut_and_said_to_be() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open)
        answer = await agent.call()
        assert 60_000 < len(json.dumps(answer)) < 300_000
        assert "cut" in answer["result"]["content"][-1]["text"]
        assert agent.taken() == [CALLED, TOUCHED]

    with running("large") as pair:
        asyncio.run(go(pair))

"""What a stage may say in an argument: a table of texts for each guard, and that a refused call goes nowhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.serve.guards import is_at, is_below, outside
from gateway.serve.servers.peer import Peer
from policies.plan import Guard, ToolRule
from tests.gateway.test_tools_door import Scripted
from tests.gateway.tool_kit import Agent

ROOT = "/inputs/repo"


@pytest.mark.parametrize("text", [ROOT, f"{ROOT}/", f"{ROOT}/a/b.txt", f"{ROOT}/./a", "//inputs//repo/a", f"{ROOT}/..a",
                                  f"{ROOT}/grüße.txt", f"{ROOT}/a b", f"{ROOT}/100%"])  # fmt: skip
def test_a_path_below_its_root_is_admitted(text: str) -> None:
    assert is_below(text, ROOT)


@pytest.mark.parametrize(
    "text",
    ["", "/", "/inputs", "/inputs/repository", "/inputs/repo2/a", "/etc/passwd", "inputs/repo/a", "repo", "./a", "~/a",
     f"{ROOT}/..", f"{ROOT}/../other", f"{ROOT}/a/../../../etc/passwd", f"{ROOT}/a/../b",
     f"{ROOT}/\0.txt", f"{ROOT}/a\n",
     f"{ROOT}\\..\\..\\etc", f"{ROOT}/%2e%2e/x", f"{ROOT}/a%2F..%2F..", f"{ROOT}/%00", f"file://{ROOT}/a", f" {ROOT}/a",
     f"{ROOT}/\u202ea", f"{ROOT}/\u200b..", "/INPUTS/REPO/a"],
)  # fmt: skip
def test_a_path_that_leaves_its_root_or_could_is_refused(text: str) -> None:
    assert not is_below(text, ROOT)


HOSTS = ["docs.example.com", "*.wiki.example.com"]


@pytest.mark.parametrize(
    "text",
    ["docs.example.com", "https://docs.example.com/a?b=c#d", "http://DOCS.example.com", "https://a.wiki.example.com:443/",
     "HTTPS://docs.example.com./", "https://docs.example.com?u=https://evil.example.com/"],
)  # fmt: skip
def test_a_host_that_is_allowed_is_admitted(text: str) -> None:
    assert is_at(text, HOSTS)


@pytest.mark.parametrize(
    "text",
    ["https://evil.example.com/", "https://docs.example.com.evil.example/", "https://notdocs.example.com/", "",
     "https://docs.example.com@evil.example.com/", "https://docs.example.com:pw@evil.example.com",
     "https:\\\\evil.example.com",
     "https://evil.example.com\\@docs.example.com/", "https://docs.example.com:8443/", "https://docs.example.com:80/",
     "http://docs.example.com:443/", "ftp://docs.example.com/", "file:///etc/passwd", "javascript:docs.example.com",
     "//docs.example.com/", "https:/docs.example.com", "https://127.0.0.1/", "https://[::1]/", "https://2130706433/",
     "https://0x7f.1/", "https://docs.example.com%2eevil.example/", "https://docs.example.com\t.evil.example/",
     " https://docs.example.com/", "https://docs.example.com /", "https://wiki.example.com/", "https://a.b.wiki.example.com/",
     "https://docs。example。com.evil.example/", "https://xn--a.example/", "https://docs.example.com\n", "https://"],
)  # fmt: skip
def test_a_host_that_is_not_allowed_or_has_two_readings_is_refused(text: str) -> None:
    assert not is_at(text, HOSTS)


def test_a_guard_holds_for_texts_and_lists_of_texts_where_they_are_given() -> None:
    rule = make(argument="q", no_dash=True)
    assert outside(rule, {}) == outside(rule, {"q": None}) == outside(rule, {"q": "a-b"}) == []
    assert outside(rule, {"q": ["a", "b"], "other": "-x"}) == []
    for bad in ("-x", "--output=/etc/x", " -x", "\t-x", "a\0b", ["a", "-x"], 5, {"a": "-x"}, [["-x"]], True):
        (why,) = outside(rule, {"q": bad})
        assert why.startswith("/q: ")
    everything = make(argument="q", no_dash=True, below=ROOT, hosts=HOSTS)
    assert len(outside(everything, {"q": "-evil.example.com"})) == 3


def make(calls: int | None = None, **guard: Any) -> ToolRule:
    return ToolRule(server="fixture", tool="look", calls=calls, guards=[Guard(**guard)] if guard else [])


def talk(rules: list[ToolRule], *arguments: dict[str, Any]) -> tuple[Agent, list[dict[str, Any]], list[str]]:
    """Call `look` with each of `arguments`; return the agent, its answers, and the methods that reached the server."""
    sent: list[tuple[str, dict[str, Any]]] = []
    answers: list[dict[str, Any]] = []

    async def go() -> Agent:
        async def open_peer() -> Peer:
            return Scripted(sent=sent)

        agent = Agent(open_peer, rules=rules)
        answers.extend([(await agent.call(q=one["q"]))["result"] for one in arguments])
        return agent

    return asyncio.run(go()), answers, [method for method, _ in sent if method == "tools/call"]


def test_an_argument_outside_of_its_guard_goes_nowhere_and_makes_one_event() -> None:
    agent, (answer,), reached = talk([make(argument="q", below=ROOT)], {"q": f"{ROOT}/../../etc/passwd"})
    assert answer["isError"]
    error = answer["structuredContent"]["error"]
    assert error["code"] == "CSM-G017"
    assert error["where"] == f"/q: an absolute path below {ROOT}"
    assert "etc/passwd" not in str(error)
    assert reached == []
    assert agent.taken() == [("tool.called", "deny", "CSM-G017")]
    # control: inside of the guard, and without one, it reaches the server
    for rules, q in (([make(argument="q", below=ROOT)], f"{ROOT}/a"), ([], f"{ROOT}/../../etc/passwd")):
        _, (answer,), reached = talk(rules, {"q": q})
        assert not answer["isError"]
        assert reached == ["tools/call"]


def test_a_tool_is_called_as_often_as_its_rule_says() -> None:
    agent, answers, reached = talk([make(calls=2)], *[{"q": "x"}] * 4)
    assert [answer["isError"] for answer in answers] == [False, False, True, True]
    assert answers[2]["structuredContent"]["error"]["code"] == "CSM-G016"
    assert len(reached) == 2
    assert [event for event in agent.taken() if event[1] == "deny"] == [("tool.called", "deny", "CSM-G016")] * 2
    # control: what was refused for another reason is not counted
    _, answers, reached = talk([make(calls=1, argument="q", no_dash=True)], {"q": "-x"}, {"q": "x"})
    assert [answer["isError"] for answer in answers] == [True, False]


def test_a_rule_of_another_server_or_tool_does_not_count() -> None:
    other = ToolRule(server="other", tool="look", calls=0)
    _, (answer,), reached = talk([other, ToolRule(server="fixture", tool="count", calls=0)], {"q": "x"})
    assert not answer["isError"]
    assert reached == ["tools/call"]

"""A hostile remote MCP server, through TLS and a Unix socket: typed errors, bounded bytes, and no token elsewhere."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.serve.servers.http import HttpPeer
from gateway.serve.servers.login import Fixed
from gateway.serve.servers.peer import MAX_MESSAGE, Peer
from gateway.serve.servers.session import Patience
from tests.gateway.hostile import TOKEN
from tests.gateway.hostile_http import ANSWERS, ENDLESS, HOST, URL, Remote, bomb, remote
from tests.gateway.tool_kit import Agent
from tests.proxy.outside import certificate

CALLED = ("tool.called", "allow", None)
ANSWERED = ("tool.answered", "allow", None)
FAILED = ("tool.answered", "deny", "CSM-G014")
QUICK = Patience(open_s=3, call_s=2)

Go = Callable[[Agent, Remote], Awaitable[None]]
Lab = Callable[[str, Go], Remote]


def code(answer: dict[str, Any]) -> str:
    return str(json.loads(answer["result"]["content"][0]["text"])["error"]["code"])


@pytest.fixture(scope="module")
def pki() -> Iterator[tuple[Path, ssl.SSLContext, ssl.SSLContext]]:
    folder = Path(tempfile.mkdtemp(prefix="csm-"))
    yield (folder, *certificate(folder, HOST))
    shutil.rmtree(folder)


@pytest.fixture
def lab(pki: tuple[Path, ssl.SSLContext, ssl.SSLContext]) -> Lab:
    """Run an agent at a server that does `mode`; return what arrived there."""
    folder, server, client = pki

    def begin(mode: str, go: Go) -> Remote:
        async def run() -> Remote:
            path = folder / "up.sock"

            async def open_peer() -> Peer:
                return HttpPeer(URL, path, client, Fixed({"Authorization": f"Bearer {TOKEN}"}))

            async with remote(mode, path, server) as there:
                agent = Agent(open_peer, QUICK)
                await go(agent, there)
                return there

        return asyncio.run(run())

    return begin


@pytest.mark.parametrize("mode", ["json", "stream", "split", "cookie"])
def test_an_honest_server_answers(lab: Lab, mode: str) -> None:
    async def go(agent: Agent, _there: Remote) -> None:
        assert await agent.tools() == ["look", "count"]
        for _ in range(3):
            assert (await agent.call())["result"]["content"] == [{"type": "text", "text": "hello"}]
        assert agent.taken() == [CALLED, ANSWERED] * 3

    there = lab(mode, go)
    assert len(there.heads) == 6
    for head in there.heads:
        assert head.startswith(b"POST /mcp HTTP/1.1\r\n")
        assert f"authorization: bearer {TOKEN}".encode() in head.lower()
        assert b"\r\ncookie:" not in head.lower(), "no cookie is kept"
        assert b"accept-encoding: identity" in head.lower()
    for head in there.heads[1:]:
        assert b"mcp-session-id: session-1" in head.lower()
        assert b"mcp-protocol-version: 2025-11-25" in head.lower()
    assert b"mcp-session-id" not in there.heads[0].lower()


BROKEN = sorted(ANSWERS.keys() - {"json", "stream", "split", "cookie", "echo"})


@pytest.mark.parametrize("mode", BROKEN)
def test_an_answer_that_is_none_is_a_typed_error(lab: Lab, mode: str) -> None:
    async def go(agent: Agent, _: Remote) -> None:
        answer = await agent.call()
        assert code(answer) == "CSM-G014"
        assert TOKEN not in json.dumps(answer)
        assert TOKEN.encode() not in b"".join(agent.lines)
        assert agent.taken() == [CALLED, FAILED]
        assert await agent.tools() == ["look", "count"], "and it is opened anew"

    there = lab(mode, go)
    assert {head.split(b" ")[1] for head in there.heads} == {b"/mcp"}, "no redirect is followed"
    assert not any(b"x-injected" in head.lower() for head in there.heads)


@pytest.mark.parametrize("mode", ENDLESS)
def test_an_answer_without_end_is_cut_off(lab: Lab, mode: str) -> None:
    async def go(agent: Agent, there: Remote) -> None:
        await agent.tools()
        assert code(await asyncio.wait_for(agent.call(), 60)) == "CSM-G014"
        assert agent.taken() == [CALLED, FAILED]

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    there = lab(mode, go)
    assert "continue" in mode or there.sent < MAX_MESSAGE + (4 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024


@pytest.mark.parametrize("mode", ["endless-notified", "bomb-notified"])
def test_what_follows_a_notification_is_not_read(lab: Lab, mode: str) -> None:
    async def go(agent: Agent, _: Remote) -> None:
        assert await agent.tools() == ["look", "count"]
        assert not (await agent.call())["result"]["isError"]

    bomb()  # made before the clock runs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert lab(mode, go).sent < 8 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024


def test_an_echoed_token_is_blanked(lab: Lab) -> None:
    async def go(agent: Agent, _: Remote) -> None:
        assert (await agent.call())["result"]["content"][0]["text"] == "you said [redacted]"
        assert agent.taken() == [CALLED, ("tool.answered", "allow", "CSM-G015")]

    lab("echo", go)


def test_a_server_with_another_name_gets_nothing(pki: tuple[Path, ssl.SSLContext, ssl.SSLContext]) -> None:
    folder, server, client = pki

    async def run() -> None:
        async def open_peer() -> Peer:
            return HttpPeer(
                "https://other.example/mcp", folder / "up.sock", client, Fixed({"Authorization": f"Bearer {TOKEN}"})
            )

        async with remote("json", folder / "up.sock", server) as there:
            agent = Agent(open_peer, QUICK)
            assert (await agent.call())["error"]["data"]["code"] == "CSM-G014"
            assert agent.taken() == [("tool.called", "deny", "CSM-G014")]
        assert there.heads == []

    asyncio.run(run())

"""A hostile client at the door of a tool server, against the real process; and what happens when something raises."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.serve.servers.peer import Answer, Note, Peer, ServerFailed
from gateway.serve.tooldesk import ToolDesk
from policies.errors import CasemateError
from policies.events import EventLogError, EventWriter
from policies.plan import Plan
from policies.vocabulary import Component
from tests.gateway.hostile import TOOLS
from tests.gateway.kit import AUTHORITY, Serving, make_output, make_plan
from tests.gateway.tool_kit import HEAD, PINS, Agent, Pair, ask, call, make_tool

PATH = "/mcp/fixture"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
MODERN = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "look"}


def tool_plan() -> Plan:
    """Two stages with the same server, of whose tools each has others; a third without it."""
    plan = make_plan(make_output(), stages={"draft": ["samples"], "other": [], "bare": []})
    tools = {"draft": {"fixture": ["look", "count"]}, "other": {"fixture": ["count"]}, "bare": {}}
    stages = [msgspec.structs.replace(stage, tools=tools[stage.name]) for stage in plan.stages]
    return msgspec.structs.replace(plan, stages=stages, tools=[make_tool()])


@pytest.fixture(scope="module")
def door() -> Iterator[Serving]:
    """The gateway with an honest server for each stage."""
    root = Path(tempfile.mkdtemp(prefix="csm-"))
    pairs: list[Pair] = []
    for stage in ("draft", "other"):
        mine = root / f"server-{stage}"
        (root / "tools" / stage).mkdir(parents=True)
        mine.mkdir()
        pairs.append(Pair("honest", mine))
        (root / "tools" / stage / "fixture").symlink_to(mine / "tools")
    server = Serving(root, tool_plan())
    yield server
    server.stop()
    for pair in pairs:
        pair.end()
    shutil.rmtree(root)


class Taken:
    """The events of tools since the last look."""

    def __init__(self, door: Serving) -> None:
        self._door, self._seen = door, 0
        self()

    def __call__(self) -> list[tuple[str, str | None, str | None]]:
        self._door.of("none")
        new = self._door.events[self._seen :]
        self._seen = len(self._door.events)
        return [(event["event"], event["verdict"], event["rule"]) for event in new]


@pytest.fixture
def taken(door: Serving) -> Taken:
    return Taken(door)


def body(name: str = "look", arguments: Any = None, **more: Any) -> bytes:
    params = {"name": name, "arguments": {"q": "x"} if arguments is None else arguments, **more}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


def works(door: Serving) -> None:
    """The control: an honest call is answered."""
    status, answer = door.post(body(), path=PATH)
    assert (status, answer["result"]["content"][0]["text"]) == (200, "look: x")


def found(answer: Any) -> str:
    """The code in an answer, wherever it is."""
    if "jsonrpc" not in answer:
        return str(answer["error"]["code"])
    if "error" in answer:
        return str(answer["error"]["data"]["code"])
    return str(json.loads(answer["result"]["content"][0]["text"])["error"]["code"])


def test_an_honest_client_is_served_in_both_eras(door: Serving, taken: Taken) -> None:
    works(door)
    status, answer = door.post(body(_meta=META), MODERN, path=PATH)
    assert (status, answer["result"]["content"][0]["text"]) == (200, "look: x")
    assert taken() == [("tool.called", "allow", None), ("tool.answered", "allow", None)] * 2
    status, answer = door.post(ask("tools/list"), path=PATH)
    assert answer["result"]["tools"] == TOOLS[:2]


@pytest.mark.parametrize("name", ["drop", "steal", "Look", "look ", "l\u043e\u043ek", "", "samples", "noop"])
def test_a_tool_that_was_not_given_is_not_there(door: Serving, taken: Taken, name: str) -> None:
    status, answer = door.post(body(name), path=PATH)
    assert (status, found(answer), answer["error"]["code"]) == (200, "CSM-G005", -32602)
    assert answer["error"]["data"]["allowed"] == ["look", "count"]
    assert taken() == [("tool.called", "deny", "CSM-G005")]
    works(door)


def test_each_stage_has_its_own_tools(door: Serving, taken: Taken) -> None:
    assert found(door.post(body(), path=PATH, stage="other")[1]) == "CSM-G005"
    assert found(door.post(body(), path=PATH, stage="bare")[1]) == "CSM-G003"
    assert door.post(body("count", {}), path=PATH, stage="other")[1]["result"]["structuredContent"] == {"n": 1}
    assert [rule for _, _, rule in taken()][:2] == ["CSM-G005", "CSM-G003"]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"q": 1}, {"q": None}, {"q": "x" * 101}, {"q": "x", "path": "/etc/passwd"}, {"q": ["x"]}, {"Q": "x"}],
)
def test_arguments_are_held_against_the_schema_that_was_approved(door: Serving, taken: Taken, arguments: Any) -> None:
    status, answer = door.post(body(arguments=arguments), path=PATH)
    assert (status, found(answer), answer["result"]["isError"]) == (200, "CSM-G006", True)
    assert taken() == [("tool.called", "deny", "CSM-G006")]
    works(door)


@pytest.mark.parametrize(
    "method",
    ["resources/list", "resources/read", "resources/subscribe", "prompts/list", "prompts/get", "completion/complete",
     "sampling/createMessage", "elicitation/create", "roots/list", "tasks/get", "tools/x", ""],
)  # fmt: skip
def test_there_are_tools_and_nothing_else(door: Serving, taken: Taken, method: str) -> None:
    status, answer = door.post(ask(method), path=PATH)
    assert (status, answer["error"]["code"], found(answer)) == (200, -32601, "CSM-G004")
    assert taken() == [("tool.called", "deny", "CSM-G004")]


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no such server": ({"path": "/mcp/nothing"}, 404, "CSM-G003"),
    "server of another case": ({"path": "/mcp/Fixture"}, 404, "CSM-G003"),
    "dot segments": ({"path": "/mcp/writes/../fixture"}, 404, "CSM-G003"),
    "encoded path": ({"path": "/mcp/%66ixture"}, 404, "CSM-G003"),
    "query": ({"path": PATH + "?x=1"}, 404, "CSM-G003"),
    "slash": ({"path": PATH + "/"}, 404, "CSM-G003"),
    "session": ({"headers": {"Mcp-Session-Id": "1"}}, 404, "CSM-G001"),
    "host": ({"headers": {"Host": "evil.example"}}, 403, "CSM-G007"),
    "host with a port": ({"headers": {"Host": "127.0.0.1:5001"}}, 403, "CSM-G007"),
    "origin": ({"headers": {"Origin": "http://evil.example"}}, 403, "CSM-G007"),
    "null origin": ({"headers": {"Origin": "null"}}, 403, "CSM-G007"),
    "prefixed origin": ({"headers": {"Origin": f"http://{AUTHORITY}.evil.example"}}, 403, "CSM-G007"),
    "content type": ({"headers": {"Content-Type": "text/plain"}}, 415, "CSM-G001"),
    "compressed": ({"headers": {"Content-Encoding": "gzip"}, "body": gzip.compress(body())}, 415, "CSM-G001"),
    "large": ({"headers": {"Content-Length": str((1 << 20) + 1)}, "body": b""}, 413, "CSM-G002"),
    "version": ({"headers": {"MCP-Protocol-Version": "2031-01-01"}}, 400, "CSM-G008"),
    "batch": ({"body": b"[" + body() + b"]"}, 400, "CSM-G001"),
    "duplicate key": ({"body": body().replace(b'"name"', b'"name": "count", "name"')}, 400, "CSM-G001"),
    "duplicate argument": ({"body": body().replace(b'"q": "x"', b'"q": "x", "q": "y"')}, 400, "CSM-G001"),
    "not a number": ({"body": body().replace(b'"x"', b"NaN")}, 400, "CSM-G001"),
    "large number": ({"body": body().replace(b'"x"', b"9007199254740993")}, 400, "CSM-G001"),
    "surrogate": ({"body": body().replace(b'"x"', b'"\\ud800"')}, 400, "CSM-G001"),
    "mark": ({"body": b"\xef\xbb\xbf" + body()}, 400, "CSM-G001"),
    "deep": ({"body": body().replace(b'"x"', b"[" * 70 + b"]" * 70)}, 400, "CSM-G001"),
    "very deep": ({"body": body().replace(b'"x"', b"[" * 100_000 + b"]" * 100_000)}, 400, "CSM-G001"),
    "two documents": ({"body": body() + body()}, 400, "CSM-G001"),
    "null id": ({"body": body().replace(b'"id": 1', b'"id": null')}, 400, "CSM-G001"),
    "true id": ({"body": body().replace(b'"id": 1', b'"id": true')}, 400, "CSM-G001"),
    "envelope": ({"body": body().replace(b'"id": 1', b'"id": 1, "auth": "x"')}, 400, "CSM-G001"),
    "call without an id": ({"body": body().replace(b'"id": 1, ', b"")}, 400, "CSM-G004"),
    "parameter": ({"body": body(task={"ttl": 1})}, 200, "CSM-G001"),
    "arguments": ({"body": body(arguments=[])}, 200, "CSM-G001"),
    "cursor": ({"body": ask("tools/list", {"cursor": "two"})}, 200, "CSM-G001"),
    "header of another tool": ({"headers": {**MODERN, "Mcp-Name": "count"}, "body": body(_meta=META)}, 400, "CSM-G001"),
    "header of another method": (
        {"headers": {**MODERN, "Mcp-Method": "tools/list"}, "body": body(_meta=META)}, 400, "CSM-G001"),
    "header without its tool": (
        {"headers": {**MODERN, "Mcp-Name": ""}, "body": body(_meta=META)}, 400, "CSM-G001"),
    "body of another version": (
        {"headers": MODERN, "body": body(_meta={**META, "io.modelcontextprotocol/protocolVersion": "2025-11-25"})},
        400, "CSM-G001"),
    "old header of another tool": ({"headers": {"Mcp-Name": "count"}}, 400, "CSM-G001"),
}  # fmt: skip


@pytest.mark.parametrize("trick", REFUSED)
def test_a_trick_at_the_door_is_refused_with_one_event(door: Serving, taken: Taken, trick: str) -> None:
    change, status, code = REFUSED[trick]
    request = {"path": PATH, "body": body(), **change}
    got, answer = door.post(request.pop("body"), **request)
    assert (got, found(answer)) == (status, code)
    assert taken() == [("tool.called", "deny", code)]
    works(door)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_is_no_stream_and_no_session(door: Serving, taken: Taken, method: str) -> None:
    assert door.post(b"", path=PATH, method=method)[0] == 405
    assert taken() == []


def test_two_copies_of_a_header_are_refused(door: Serving, taken: Taken) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(door.socket()))
        raw.settimeout(10)
        head = f"POST {PATH} HTTP/1.1\r\nHost: {AUTHORITY}\r\nContent-Type: application/json\r\nMcp-Name: look\r\n"
        raw.sendall(f"{head}Mcp-Name: count\r\nContent-Length: {len(body())}\r\n\r\n".encode() + body())
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
    assert taken() == [("tool.called", "deny", "CSM-G001")]


def test_nothing_of_a_client_but_name_and_arguments_reaches_a_server() -> None:
    """Credentials, cookies and tokens of progress end here; ids are ours."""
    sent: list[tuple[str, dict[str, Any]]] = []

    async def go() -> None:
        async def open_peer() -> Peer:
            return Scripted(sent=sent)

        agent = Agent(open_peer)
        params = {"name": "look", "arguments": {"q": "x"}, "_meta": {"progressToken": 1, "authorization": "Bearer x"}}
        await agent.send(ask("tools/call", params, number="mine"))

    asyncio.run(go())
    assert sent[-1] == ("tools/call", {"name": "look", "arguments": {"q": "x"}})
    assert [method for method, _ in sent] == ["initialize", "tools/list", "tools/call"]


# ---- whatever raises


class Scripted(Peer):
    """A server that answers, or raises what it was given, at a method."""

    def __init__(
        self,
        raises: dict[str, BaseException] | None = None,
        results: dict[str, Any] | None = None,
        sent: list[tuple[str, dict[str, Any]]] | None = None,
    ) -> None:
        self._raises, self._results = raises or {}, results or {}
        self.sent = [] if sent is None else sent
        self.closed, self.stale = 0, False

    async def request(self, method: str, params: dict[str, Any], seconds: float, note: Note | None = None) -> Answer:
        self.sent.append((method, params))
        if method in self._raises:
            raise self._raises[method]
        honest: dict[str, Any] = {
            "initialize": {"protocolVersion": "2025-11-25"},
            "tools/list": {"tools": TOOLS},
            "tools/call": {"content": [{"type": "text", "text": "fine"}]},
        }
        given = self._results.get(method, honest.get(method))
        return given if isinstance(given, Answer) else Answer(given)

    async def notify(self, method: str) -> None:
        if method in self._raises:
            raise self._raises[method]

    async def close(self) -> None:
        self.closed += 1
        if "close" in self._raises:
            raise self._raises["close"]


ERRORS = [ValueError("x"), KeyError("x"), RuntimeError("x"), RecursionError(), MemoryError(), OSError("x"),
          TimeoutError(), ExceptionGroup("x", [ValueError("x")]), ServerFailed("x")]  # fmt: skip
PLACES = ["open", "initialize", "notifications/initialized", "tools/list", "tools/call"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_raises_is_a_denial_with_an_event_and_the_next_is_served(place: str, error: Exception) -> None:
    peers: list[Scripted] = []

    async def go() -> None:
        async def open_peer() -> Peer:
            if peers:
                return Scripted()
            peers.append(Scripted({place: error}))
            if place == "open":
                raise error
            return peers[0]

        agent = Agent(open_peer)
        answer = await agent.call()
        assert "fine" not in json.dumps(answer)
        assert ("error" in answer) or answer["result"]["isError"]
        denied = [event for event in agent.taken() if event[1] == "deny"]
        assert len(denied) == 1
        assert denied[0][2] in {"CSM-G014", "CSM-G019"}
        assert peers[0].closed >= (place != "open"), "what failed is closed"
        assert (await agent.call())["result"]["content"][0]["text"] == "fine"
        assert [event[1] for event in agent.taken()] == ["allow", "allow"]

    asyncio.run(go())


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("initialize", {}), ("initialize", {"protocolVersion": ["2025-11-25"]}), ("initialize", None),
        ("tools/list", {}), ("tools/list", None), ("tools/list", {"tools": {}}), ("tools/list", {"tools": [1]}),
        ("tools/list", {"tools": [], "nextCursor": 5}), ("tools/list", {"tools": [], "nextCursor": {}}),
        ("tools/call", {"content": object()}), ("tools/call", {"content": [{"type": "text", "text": "\ud800"}]}),
        ("tools/call", {"content": [], "structuredContent": {"a": object()}}),
        ("tools/call", {"content": [], "structuredContent": {"a": {1: 2}}}),
    ],
)  # fmt: skip
def test_whatever_a_transport_lets_through_is_no_result(method: str, result: Any) -> None:
    async def go() -> None:
        async def open_peer() -> Peer:
            return Scripted(results={method: result})

        agent = Agent(open_peer)
        answer = await agent.call()
        assert "error" in answer or answer["result"]["isError"]
        assert len([event for event in agent.taken() if event[1] == "deny"]) == 1

    asyncio.run(go())


def test_an_event_that_cannot_be_written_ends_the_process_and_reaches_no_server() -> None:
    sent: list[tuple[str, dict[str, Any]]] = []

    def full(_: bytes) -> None:
        raise OSError(28, "no space")

    async def go() -> None:
        async def open_peer() -> Peer:
            return Scripted(sent=sent)

        session = Agent(open_peer).session
        desk = ToolDesk("draft", make_tool(), ("look",), session, EventWriter(Component.GATEWAY, full), ())
        with pytest.raises(EventLogError):
            await desk.answer(HEAD, call("look", {"q": "x"}))

    asyncio.run(go())
    assert "tools/call" not in [method for method, _ in sent]


def test_a_pinned_schema_that_cannot_be_judged_by_ends_the_start() -> None:
    async def open_peer() -> Peer:
        return Scripted()

    remote = {"$ref": "https://evil.example/schema.json"}
    slow = {"type": "object", "properties": {"q": {"pattern": r"^(a+)+\1$"}}}
    for schema in (remote, slow, {"type": "nonsense"}):
        pins = [msgspec.structs.replace(PINS[0], definition={**TOOLS[0], "inputSchema": schema})]
        with pytest.raises(CasemateError) as refused:
            Agent(open_peer, tool=make_tool(pins=pins), wanted=("look",))
        assert refused.value.code == "CSM-C017"

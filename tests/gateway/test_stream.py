"""What is said before an answer: notes that an agent asked for, as one stream of events, bounded and written anew."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.serve.notes import MAX_LOGS, Notes
from gateway.serve.stream import MAX_WAITING, Event, Stream
from gateway.serve.types import Reply
from tests.gateway.hostile import TOKEN
from tests.gateway.kit import AUTHORITY, Serving
from tests.gateway.test_tools_door import tool_plan
from tests.gateway.tool_kit import Agent, Pair, ask

DONE = Reply(status=200, body=b'{"done":1}')


class Client:
    """What a client gets; with `reads` unset it takes nothing."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def send(self, event: Event) -> None:
        await self.reads.wait()
        self.got.append(event)

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.got)

    @property
    def kind(self) -> bytes:
        return dict(self.got[0]["headers"])[b"content-type"]


def data(body: bytes) -> list[Any]:
    """The messages of a stream."""
    lines = [line for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def test_an_answer_that_comes_at_once_is_plain_json() -> None:
    async def go() -> None:
        client = Client()
        stream = Stream(client.send)
        stream.open()
        await stream.end(DONE)
        assert (client.kind, client.body) == (b"application/json", DONE.body)

    asyncio.run(go())


def test_what_is_said_comes_before_the_answer_in_order() -> None:
    async def go() -> None:
        client = Client()
        stream = Stream(client.send)
        tell = stream.open()
        tell(b'{"n":1}', False)
        tell(b'{"n":2}', False)
        await stream.end(DONE)
        assert client.kind == b"text/event-stream"
        assert data(client.body) == [{"n": 1}, {"n": 2}, {"done": 1}]
        assert client.got[-1]["more_body"] is False

    asyncio.run(go())


def test_a_client_that_does_not_read_holds_no_more_than_a_bounded_number_of_events() -> None:
    async def go() -> None:
        client = Client()
        client.reads.clear()
        stream = Stream(client.send)
        tell = stream.open()
        for step in range(10_000):
            tell(b'{"p":%d}' % step, True)
            tell(b'{"n":%d}' % step, False)
            if step % 1000 == 0:
                await asyncio.sleep(0)
        client.reads.set()
        await stream.end(DONE)
        messages = data(client.body)
        assert len(messages) <= MAX_WAITING + 2
        assert messages[-2:] == [{"p": 9999}, {"done": 1}]
        assert {"n": 9999} in messages

    asyncio.run(go())


def test_a_long_call_keeps_its_stream_alive() -> None:
    async def go() -> None:
        client = Client()
        stream = Stream(client.send, keep=0.02)
        stream.open()
        await asyncio.sleep(0.2)
        await stream.end(DONE)
        assert client.kind == b"text/event-stream"
        assert client.body.count(b": working\n\n") >= 3
        assert data(client.body) == [{"done": 1}]

    asyncio.run(go())


def take(*notes: tuple[str, dict[str, Any]], token: str | int | None = "mine", level: int | None = 3) -> list[Any]:
    told: list[Any] = []
    taker = Notes(lambda note, latest: told.append((json.loads(note)["params"], latest)), token, level, (TOKEN,))
    for method, params in notes:
        taker.take(f"notifications/{method}", params)
    return told


def test_a_note_is_written_anew_from_what_it_may_have() -> None:
    said = {"progressToken": 7, "progress": 1, "total": 2.5, "message": f"a\u200bb {TOKEN}", "_meta": {"x": 1}}
    assert take(("progress", said)) == [
        ({"progressToken": "mine", "progress": 1, "total": 2.5, "message": "ab [redacted]"}, True)
    ]
    log = {"level": "error", "logger": "l\u202e", "data": [TOKEN], "_meta": {}}
    assert take(("message", log)) == [({"level": "error", "logger": "l", "data": ["[redacted]"]}, False)]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("progress", {}), ("progress", {"progress": "1"}), ("progress", {"progress": True}),
        ("message", {"level": "error"}), ("message", {"data": "x"}), ("message", {"level": "loud", "data": "x"}),
        ("message", {"level": "info", "data": "x"}), ("message", {"level": ["error"], "data": "x"}),
        ("message", {"level": "error", "data": "x" * 9000}), ("cancelled", {"requestId": 1}),
        ("progress", {"progress": None}), ("resources/updated", {}),
    ],
)  # fmt: skip
def test_what_is_no_note_or_was_not_asked_for_does_not_pass(method: str, params: dict[str, Any]) -> None:
    honest = [("progress", {"progress": 1}), ("message", {"level": "error", "data": "x"})]
    assert len(take((method, params), *honest)) == len(honest), "the honest ones after it still pass"


def test_an_agent_that_asked_for_nothing_hears_nothing() -> None:
    notes = (("progress", {"progress": 1}), ("message", {"level": "emergency", "data": "x"}))
    assert take(*notes, token=None, level=None) == []
    assert len(take(*notes, token=0, level=0)) == 2


def test_log_messages_of_a_call_are_counted() -> None:
    assert len(take(*[("message", {"level": "error", "data": "x"})] * 1000)) == MAX_LOGS


# ---- through a real bridge and a real server


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="csm-") as name:
        yield Path(name)


def hear(
    folder: Path, mode: str, *, token: Any = "t-1", level: str | None = "error"
) -> tuple[list[Any], dict[str, Any]]:
    """Call a tool of a server in `mode`; return what was said before the answer, and the answer."""
    pair = Pair(mode, folder)
    told: list[Any] = []

    async def go() -> dict[str, Any]:
        agent = Agent(pair.open)
        if level is not None:
            assert (await agent.send(ask("logging/setLevel", {"level": level})))["result"] == {}
        meta = {} if token is None else {"progressToken": token}
        params = {"name": "look", "arguments": {"q": "x"}, "_meta": meta}
        answer = await agent.send(ask("tools/call", params), lambda note, _: told.append(json.loads(note)))
        await agent.session.close()
        return answer

    try:
        return told, asyncio.run(go())
    finally:
        pair.end()


def test_of_a_hostile_server_only_honest_notes_about_the_call_pass(folder: Path) -> None:
    told, answer = hear(folder, "noted")
    steps = [note["params"] for note in told if note["method"] == "notifications/progress"]
    assert [(step["progressToken"], step["progress"]) for step in steps] == [("t-1", 1), ("t-1", 2), ("t-1", 3)]
    logs = [note["params"] for note in told if note["method"] == "notifications/message"]
    assert logs == [{"level": "error", "logger": "me", "data": {"said": "error [redacted]"}}]
    assert TOKEN not in json.dumps(told)
    assert "\u202e" not in json.dumps(told, ensure_ascii=False)
    assert answer["result"]["content"][0]["text"] == "look: x"


def test_without_a_token_and_a_level_nothing_is_said(folder: Path) -> None:
    told, answer = hear(folder, "noted", token=None, level=None)
    assert told == []
    assert answer["result"]["content"][0]["text"] == "look: x"


def test_a_flood_of_notes_within_bounds_ends_in_the_answer(folder: Path) -> None:
    told, answer = hear(folder, "chatters")
    assert answer["result"]["content"][0]["text"] == "look: x"
    assert sum(note["method"] == "notifications/message" for note in told) == MAX_LOGS


def test_a_level_that_there_is_not_is_refused(folder: Path) -> None:
    pair = Pair("honest", folder)

    async def go() -> None:
        agent = Agent(pair.open)
        for bad in ("loud", 3, None, ["error"]):
            assert (await agent.send(ask("logging/setLevel", {"level": bad})))["error"]["code"] == -32602
        await agent.session.close()

    try:
        asyncio.run(go())
    finally:
        pair.end()


# ---- at the door, over HTTP


def test_at_the_door_notes_come_as_events_before_the_answer_and_only_to_who_takes_a_stream() -> None:
    root = Path(tempfile.mkdtemp(prefix="csm-"))
    (root / "tools" / "draft").mkdir(parents=True)
    (root / "server").mkdir()
    pair = Pair("noted", root / "server")
    (root / "tools/draft/fixture").symlink_to(root / "server/tools")
    plan = tool_plan()
    server = Serving(root, msgspec.structs.replace(plan, stages=plan.stages[:1]))
    try:
        params = {"name": "look", "arguments": {"q": "x"}, "_meta": {"progressToken": 7}}
        request = ask("tools/call", params)
        headers = {"Host": AUTHORITY, "Content-Type": "application/json"}
        door = server.door()
        door.request("POST", "/mcp/fixture", request, {**headers, "Accept": "application/json, text/event-stream"})
        answer = door.getresponse()
        assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream")
        *notes, last = data(answer.read())
        assert notes[-1]["params"]["progressToken"] == 7, "what was coalesced is the last"
        assert notes[-1]["params"]["progress"] == 3
        assert last["id"] == 1
        assert last["result"]["content"][0]["text"] == "look: x"
        # the same connection goes on, and who takes JSON only gets JSON only
        door.request("POST", "/mcp/fixture", request, {**headers, "Accept": "application/json"})
        answer = door.getresponse()
        assert answer.getheader("content-type") == "application/json"
        assert json.loads(answer.read())["result"]["content"][0]["text"] == "look: x"
    finally:
        server.stop()
        pair.end()
        shutil.rmtree(root)

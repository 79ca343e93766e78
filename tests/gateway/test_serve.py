"""`python -m gateway serve` as a process: doors, quotas, events, floods, deaths."""

from __future__ import annotations

import gzip
import json
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.customs.chain import rows
from gateway.schema import Schema
from gateway.serve.buffer import Buffer
from gateway.serve.desk import MAX_REPORTS, Desk, Ledger
from gateway.serve.front import MAX_REFUSALS
from gateway.serve.types import Head
from policies.canonical import digest
from policies.errors import CasemateError
from policies.events import EventLogError
from policies.vocabulary import Component
from tests.gateway.kit import AUTHORITY, SAMPLE_SCHEMA, Serving, birth, make_output, make_plan, start

Start = Callable[..., Serving]
POST = f"POST /mcp/writes HTTP/1.1\r\nHost: {AUTHORITY}\r\nContent-Type: application/json\r\n"
HEAD = Head(version=None, method=None, name=None)


def message(name: str, arguments: dict[str, Any]) -> bytes:
    params = {"name": name, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


def test_a_proposal_is_vouched_for_buffered_and_chained(serving: Start) -> None:
    server = serving(make_output())
    assert stat.S_IMODE(server.socket().stat().st_mode) == 0o660
    for number in range(5):
        server.call("samples", {"prompt": f"row {number}"})
    lines = server.buffer().splitlines()
    assert [event["attrs"]["casemate.write.digest"] for event in server.of("write.proposed")] == list(
        map(digest, lines)
    )
    path = server.root / "buffer" / "draft.jsonl"
    assert [row.id for row in rows(path, "draft", digest(lines[-1]))] == [f"draft-{n}" for n in range(5)]
    assert server.stop() == 0
    assert [event["n"] for event in server.events] == list(range(len(server.events)))


def test_a_proposal_may_name_an_earlier_one(serving: Start) -> None:
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "on": {"type": "string", "format": "proposal-id"}},
        "additionalProperties": False,
    }
    server = serving(make_output(schema=schema, bounds={}, unique=[]))
    first = server.call("samples", {"text": "an issue"})["structuredContent"]["id"]
    assert server.call("samples", {"text": "a comment", "on": first})["structuredContent"]["status"] == "buffered"
    for unknown in ("draft-2", "other-0", "draft-00", "draft", "", "draft-0\n"):
        refused = server.call("samples", {"text": "x", "on": unknown})
        assert refused["isError"] is True
        assert refused["structuredContent"]["error"]["code"] == "CSM-G006"


def test_a_file_of_records_is_promised(serving: Start) -> None:
    server = serving(make_output(per_run=1))
    told = server.call("propose_file", {"output": "samples", "path": "sets/one.jsonl"})["structuredContent"]
    assert told == {"id": "draft-0", "status": "buffered"}
    attrs = server.of("write.proposed")[0]["attrs"]
    assert (attrs["casemate.path"], attrs["casemate.output"]) == ("sets/one.jsonl", "samples")
    line = json.loads(server.buffer())
    assert (line["file"], line["record"]) == ({"path": "sets/one.jsonl"}, {})
    assert server.call("samples", {"prompt": "x"})["structuredContent"]["status"] == "buffered"  # rows count apart


BAD_PATHS = [
    "/etc/passwd", "../x", "a/../b", ".hidden", "a/.git/x", "a//b", "a/", "", "a\x00b", "a b", "a\n", "ä", "a" * 102,
]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_file_has_a_plain_name_below_the_workspace(serving: Start, path: str) -> None:
    server = serving(make_output())
    refused = server.call("propose_file", {"output": "samples", "path": path})
    assert (refused["isError"], server.buffer()) == (True, b"")
    other = server.call("propose_file", {"output": "others", "path": "a.jsonl"})
    assert other["structuredContent"]["error"]["code"] == "CSM-G006"


def test_the_socket_is_the_identity(serving: Start) -> None:
    server = serving(make_output("alpha"), make_output("beta"), stages={"one": ["alpha"], "two": ["beta"]})
    server.call("alpha", {"prompt": "x"}, stage="one")
    refused = server.rpc("tools/call", {"name": "alpha", "arguments": {"prompt": "x"}}, stage="two")
    assert refused["error"]["data"]["code"] == "CSM-G005"
    assert server.rpc("tools/list", stage="two")["result"]["tools"][0]["name"] == "beta"
    assert (server.buffer("two"), len(server.buffer("one").splitlines())) == (b"", 1)
    assert server.of("tool.called")[0]["stage"] == "two"


def test_shards_have_buffers_and_ids_of_their_own(serving: Start) -> None:
    server = serving(make_output(), shards=12)
    for shard in (3, 11):
        told = server.call("samples", {"prompt": "x"}, stage=f"draft.{shard}")["structuredContent"]
        assert told["id"] == f"draft.{shard}-0"
        line = json.loads(server.buffer(f"draft.{shard}"))
        assert (line["stage"], line["shard"], line["seq"]) == ("draft", shard, 0)
    proposed = [(event["stage"], event["shard"]) for event in server.of("write.proposed")]
    assert proposed == [("draft", 3), ("draft", 11)]
    assert server.buffer("draft.0") == b""


def test_quotas_of_rows_and_bytes_hold_over_all_stages(serving: Start) -> None:
    outputs = (make_output("few", per_run=2), make_output("small", max_bytes=1500))
    server = serving(*outputs, stages={"one": ["few", "small"], "two": ["few"]})
    codes = []
    for stage in ("one", "two", "one"):
        result = server.call("few", {"prompt": "x"}, stage=stage)
        codes.append(result["structuredContent"].get("error", {}).get("code"))
    assert codes == [None, None, "CSM-W002"]
    codes = [server.call("small", {"prompt": "y" * 600}, stage="one")["isError"] for _ in range(3)]
    assert codes == [False, True, True]
    assert [event["rule"] for event in server.of("write.proposed")] == [
        None,
        None,
        "CSM-W002",
        None,
        "CSM-G010",
        "CSM-G010",
    ]


def test_reports_are_events(serving: Start) -> None:
    server = serving(make_output())
    server.call("noop", {"reason": "nothing\nto do \u202e"})
    server.call("report_incomplete", {"reason": "tired"})
    assert server.call("noop", {})["isError"]
    reports = [(event["rule"], event["reason"]) for event in server.of("stage.reported")]
    assert reports == [("noop", "nothing\\u{a}to do \\u{202e}"), ("report_incomplete", "tired")]


def test_the_raw_wire(serving: Start) -> None:
    server = serving(make_output())
    good = message("samples", {"prompt": "x"})
    assert server.post(good, {"Host": "evil.example"})[0] == 403
    assert server.post(good, {"Origin": "http://evil.example"})[0] == 403
    assert server.post(gzip.compress(good), {"Content-Encoding": "gzip"})[0] == 415
    assert server.post(good, path="/mcp/other")[1]["error"]["code"] == "CSM-G003"
    assert server.post(good, path="/docs")[0] == 404
    assert server.post(b"", method="GET")[0] == 405
    assert server.post(b"", method="DELETE")[0] == 405
    assert server.post(b"", method="BREW")[0] == 405
    assert server.post(b"[" + good + b"]")[1]["error"]["code"] == -32600
    assert server.post(good.replace(b'"id": 1', b'"id": null'))[1]["error"]["code"] == -32600
    assert server.post(good.replace(b'"id": 1, ', b""))[0] == 400
    assert server.buffer() == b""
    assert {event["verdict"] for event in server.of("tool.called")} == {"deny"}


@pytest.mark.parametrize(
    "head",
    [
        f"{POST}Content-Length: 99999999\r\n\r\n",
        f"{POST}Transfer-Encoding: chunked\r\n\r\n" + ("10000\r\n" + "x" * 65536 + "\r\n") * 17,
    ],
)
def test_a_body_over_the_limit_is_refused_before_it_is_read(serving: Start, head: str) -> None:
    server = serving(make_output())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(30)
        wire.connect(str(server.socket()))
        with suppress(BrokenPipeError):  # it is refused while it is still being sent
            wire.sendall(head.encode())
        answer = b""
        while b"CSM-" not in answer and (more := wire.recv(4096)):
            answer += more
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"CSM-G002" in answer


def test_what_is_not_http_gets_an_event_and_no_more(serving: Start) -> None:
    server = serving(make_output())
    for junk in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
            wire.settimeout(30)
            wire.connect(str(server.socket()))
            wire.sendall(junk)
            assert wire.recv(4096).startswith(b"HTTP/1.1 400")
    assert server.call("samples", {"prompt": "x"})["isError"] is False
    assert [event["rule"] for event in server.of("tool.called")] == ["CSM-G001", "CSM-G001"]


def test_a_crowd_of_open_connections_shuts_out_only_itself(serving: Start) -> None:
    server = serving(make_output("alpha"), make_output("beta"), stages={"one": ["alpha"], "two": ["beta"]})
    crowd = []
    try:
        for _ in range(200):
            wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            wire.connect(str(server.socket("one")))
            crowd.append(wire)
        assert server.call("beta", {"prompt": "x"}, stage="two")["isError"] is False
    finally:
        for wire in crowd:
            wire.close()
    assert server.call("alpha", {"prompt": "x"}, stage="one")["isError"] is False


def test_killed_between_proposals_the_buffer_holds_what_the_log_vouches_for(serving: Start) -> None:
    server = serving(make_output())
    for number in range(3):
        server.call("samples", {"prompt": str(number)})
    server.process.kill()
    server.process.wait(30)
    last = server.vouched()["buffer/draft"]
    path = server.root / "buffer" / "draft.jsonl"
    assert [int(row.id.rpartition("-")[2]) for row in rows(path, "draft", last)] == [0, 1, 2]
    again = start("serve", server.root, birth(server.plan, Component.GATEWAY))
    assert again.wait(30) == 2
    assert again.stderr is not None
    assert b"CSM-G012" in again.stderr.read()
    again.stderr.close()
    assert again.stdout is not None
    again.stdout.close()


def wrong_births() -> list[Any]:
    good = birth(make_plan(make_output()), Component.GATEWAY)
    return [
        pytest.param(good.replace(b'\\"per_run\\":100', b'\\"per_run\\":101'), id="slice changed"),
        pytest.param(good.replace(b'"plan": "sha256:', b'"plan": "sha256:0', 1)[:-1] + b"}", id="digest changed"),
        pytest.param(good[:-5], id="cut off"),
        pytest.param(b"", id="empty"),
        pytest.param(b"x" * (16 * 1024 * 1024 + 1), id="too long"),
        pytest.param(birth(make_plan(make_output()), Component.CUSTOMS), id="of customs"),
        pytest.param(birth(make_plan(make_output()), Component.GATEWAY, secrets={"k": "v"}), id="with a secret"),
        pytest.param(
            birth(make_plan(make_output(schema={"$ref": "http://127.0.0.1:1/s"})), Component.GATEWAY),
            id="remote schema",
        ),
        pytest.param(
            birth(make_plan(make_output(schema={"pattern": "(?=a)(a+)+$"})), Component.GATEWAY), id="backtracking"
        ),
    ]


@pytest.mark.parametrize("data", wrong_births())
def test_a_wrong_birth_binds_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "doors" / "draft").mkdir(parents=True)
    (tmp_path / "buffer").mkdir()
    process = start("serve", tmp_path, data)
    assert process.stdout is not None
    assert process.stderr is not None
    said, error = process.stdout.read(), process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert (process.wait(30), said) == (2, b"")
    assert error.startswith((b"CSM-R010", b"CSM-C017"))
    assert list((tmp_path / "doors" / "draft").iterdir()) == []


class Log:
    """An event log that breaks when it is told to: the outermost seam."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.broken = False

    def __call__(self, event: Any, **fields: Any) -> None:
        if self.broken:
            raise EventLogError("no space")
        self.events.append({"event": event, **fields})


def desk(path: Path, log: Log, **changes: Any) -> Desk:
    output = make_output(**changes)
    schemas = {"samples": Schema(SAMPLE_SCHEMA, "samples")}
    return Desk("draft", [output], schemas, Ledger(), Buffer(path / "draft.jsonl", "draft"), log)


def test_what_stages_proposed_before_a_crash_counts() -> None:
    ledger = Ledger({"used/samples": "3 40", "proposals/draft": "2", "proposals/work.1": "1", "other": "1"})
    assert (ledger.used("samples").rows, ledger.used("samples").size) == (3, 40)
    assert ledger.knows("draft-1", "final")
    assert not ledger.knows("draft-2", "final")
    assert ledger.knows("work.1-0", "final")
    assert ledger.knows("work.1-0", "work.1")
    assert not ledger.knows("work.1-0", "work.2")  # what other shards do is not theirs to know
    assert Ledger({}).used("samples").rows == 0
    for broken in ({"used/samples": "3"}, {"used/samples": "a b"}, {"proposals/draft": "x"}):
        with pytest.raises(CasemateError, match="CSM-R010"):
            Ledger(broken)


def test_without_an_event_nothing_is_buffered(tmp_path: Path) -> None:
    log = Log()
    mine = desk(tmp_path, log)
    log.broken = True
    with pytest.raises(EventLogError):
        mine.answer(HEAD, message("samples", {"prompt": "x"}))
    assert (tmp_path / "draft.jsonl").read_bytes() == b""


def test_a_line_that_cannot_be_written_ends_the_process(serving: Start) -> None:
    # No file of this process may pass one block: the disk is full at the first large line.
    server = serving(make_output(), wrap=("sh", "-c", 'ulimit -f 1 && exec "$@"', "sh"))
    server.call("samples", {"prompt": "small"})
    assert server.post(message("samples", {"prompt": "x" * 5000})) == (503, None)
    assert server.process.wait(30) == 1
    proposed = server.of("write.proposed")
    assert len(proposed) == 2
    path = server.root / "buffer" / "draft.jsonl"
    with pytest.raises(CasemateError) as refused:
        list(rows(path, "draft", server.vouched()["buffer/draft"]))
    assert refused.value.code == "CSM-W007"


def test_a_buffer_that_is_not_a_new_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "used.jsonl").write_bytes(b"{}\n")
    (tmp_path / "link.jsonl").symlink_to("elsewhere")
    for path in (Path("/dev/full"), tmp_path / "used.jsonl", tmp_path / "link.jsonl", tmp_path / "no" / "folder.jsonl"):
        with pytest.raises(CasemateError) as refused:
            Buffer(path, "draft")
        assert refused.value.code == "CSM-G012"


def test_after_too_many_refusals_the_door_closes_with_one_last_event(tmp_path: Path) -> None:
    log = Log()
    mine = desk(tmp_path, log)
    for _ in range(MAX_REFUSALS + 50):
        mine.answer(HEAD, b"{}")
    reply = mine.answer(HEAD, b"{}")
    assert reply.status == 403
    assert json.loads(reply.body)["error"]["code"] == "CSM-G011"
    assert mine.answer(HEAD, message("samples", {"prompt": "x"})).status == 403
    assert len(log.events) == MAX_REFUSALS + 1
    assert log.events[-1]["rule"] == "CSM-G011"
    assert (tmp_path / "draft.jsonl").read_bytes() == b""


def test_reports_are_bounded(tmp_path: Path) -> None:
    log = Log()
    mine = desk(tmp_path, log)
    replies = [json.loads(mine.answer(HEAD, message("noop", {"reason": "x"})).body) for _ in range(MAX_REPORTS + 1)]
    assert [reply["result"]["isError"] for reply in replies] == [False] * MAX_REPORTS + [True]


def test_a_refusal_names_places_but_no_values(tmp_path: Path) -> None:
    log = Log()
    reply = desk(tmp_path, log).answer(HEAD, message("samples", {"prompt": 1, "score": "my-private-value", "zzz": 1}))
    told = json.loads(reply.body)["result"]["structuredContent"]["error"]
    assert "my-private-value" not in reply.body.decode() + str(log.events)
    assert {"/prompt: type", "/score: type"} <= set(told["where"].split(", "))


def test_an_agent_that_hangs_up_half_way_harms_nobody(serving: Start) -> None:
    server = serving(make_output())
    for cut in (10, 60, 150):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
            wire.connect(str(server.socket()))
            wire.sendall(f"{POST}Content-Length: 500\r\n\r\n{{".encode()[:cut])
    assert server.call("samples", {"prompt": "x"})["isError"] is False
    assert len(server.buffer().splitlines()) == 1
    assert server.stop() == 0

"""The strict envelope: every message has one reading or none. Pure, as a table; then as a fuzz against a whole desk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.schema import Schema
from gateway.serve.buffer import Buffer
from gateway.serve.desk import Desk, Ledger
from gateway.serve.envelope import MAX_BODY, check_head, read_message
from gateway.serve.types import Head, RefusedError
from tests.gateway.kit import SAMPLE_SCHEMA, make_output

AUTHORITIES = frozenset({"127.0.0.1:5000", "localhost:5000"})
GOOD_HEAD = {"host": "127.0.0.1:5000", "content-type": "application/json", "content-length": "2"}
LEGACY = Head(version="2025-06-18", method=None, name=None)
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def head(method: str = "POST", path: str = "/mcp/writes", **changes: str | None) -> Head:
    """Check a head that differs from a good one in the given fields; `_` stands for `-`."""
    fields: dict[str, str | None] = {**GOOD_HEAD, **{name.replace("_", "-"): value for name, value in changes.items()}}
    raw = [(name.encode(), value.encode()) for name, value in fields.items() if value is not None]
    return check_head(method, path, raw, AUTHORITIES)


def test_a_good_head_passes() -> None:
    assert head(mcp_protocol_version="2025-06-18") == LEGACY
    assert head(host="localhost:5000", origin="http://127.0.0.1:5000").version is None
    assert head(content_type="application/json; charset=utf-8").version is None


@pytest.mark.parametrize(
    ("changes", "code", "status"),
    [
        ({"host": None}, "CSM-G007", 403),
        ({"host": "127.0.0.1"}, "CSM-G007", 403),
        ({"host": "127.0.0.1:5000.evil.example"}, "CSM-G007", 403),
        ({"host": "evil.example:5000"}, "CSM-G007", 403),
        ({"host": "LOCALHOST:5000"}, "CSM-G007", 403),
        ({"origin": "http://evil.example"}, "CSM-G007", 403),
        ({"origin": "http://127.0.0.1:5000.evil.example"}, "CSM-G007", 403),
        ({"origin": "null"}, "CSM-G007", 403),
        ({"origin": "https://127.0.0.1:5000"}, "CSM-G007", 403),
        ({"path": "/mcp/write"}, "CSM-G003", 404),
        ({"path": "/mcp/writes/"}, "CSM-G003", 404),
        ({"path": "/mcp/%77rites"}, "CSM-G003", 404),
        ({"path": "/mcp/writes?stage=other"}, "CSM-G003", 404),
        ({"path": "/"}, "CSM-G003", 404),
        ({"method": "GET"}, "CSM-G004", 405),
        ({"method": "DELETE"}, "CSM-G004", 405),
        ({"method": "BREW"}, "CSM-G004", 405),
        ({"mcp_session_id": "x"}, "CSM-G001", 404),
        ({"content_encoding": "gzip"}, "CSM-G001", 415),
        ({"content_encoding": "identity"}, "CSM-G001", 415),
        ({"content_type": "text/plain"}, "CSM-G001", 415),
        ({"content_type": None}, "CSM-G001", 415),
        ({"content_length": str(MAX_BODY + 1)}, "CSM-G002", 413),
        ({"content_length": "9" * 40}, "CSM-G002", 413),
        ({"content_length": "-1"}, "CSM-G002", 413),
    ],
)
def test_heads_that_are_refused(changes: dict[str, Any], code: str, status: int) -> None:
    with pytest.raises(RefusedError) as refused:
        head(**changes)
    assert (refused.value.refusal.code, refused.value.refusal.status) == (code, status)


@pytest.mark.parametrize("version", ["2023-01-01", "2026-07-28 ", "2031-01-01", ""])
def test_a_revision_that_is_not_known_is_refused_with_the_id_and_what_is_supported(version: str) -> None:
    asked = head(mcp_protocol_version=version)
    with pytest.raises(RefusedError) as refused:
        read_message(asked, b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}')
    refusal = refused.value.refusal
    assert (refusal.code, refusal.status, refusal.rpc, refusal.id) == ("CSM-G008", 400, -32022, 7)
    assert refusal.more["supported"] == ["2026-07-28"]


def test_a_header_that_decides_must_not_come_twice() -> None:
    for name in ("host", "mcp-method", "mcp-name", "content-type"):
        raw = [(key.encode(), value.encode()) for key, value in {**GOOD_HEAD, name: GOOD_HEAD.get(name, "x")}.items()]
        with pytest.raises(RefusedError) as refused:
            check_head("POST", "/mcp/writes", [*raw, (name.upper().encode(), b"other")], AUTHORITIES)
        assert refused.value.refusal.code == "CSM-G001"


@pytest.mark.parametrize(
    ("body", "rpc"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xef\xbb\xbf{}", -32700),
        (b"\xff\xfe{}", -32700),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":-Infinity}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":1e999}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\\ud800"}}', -32700),
        (b'{"jsonrpc":"2.0","id":' + b"9" * 500 + b',"method":"ping"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 100 + b"1" + b"}" * 101, -32700),
        (b"[" * 100_000, -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b'"ping"', -32600),
        (b"null", -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.0,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}', -32700),
        (b'{"jsonrpc":"2.0","id":"' + b"x" * 300 + b'","method":"ping"}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","extra":1}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":7}}', -32602),
    ],
)
def test_bodies_that_are_refused(body: bytes, rpc: int) -> None:
    with pytest.raises(RefusedError) as refused:
        read_message(LEGACY, body)
    assert (refused.value.refusal.rpc, refused.value.refusal.code) == (rpc, "CSM-G001")


def modern(method: str | None, name: str | None, version: str | None = "2026-07-28") -> Head:
    return Head(version=version, method=method, name=name)


@pytest.mark.parametrize(
    ("given_head", "meta", "rpc"),
    [
        (modern("tools/call", "samples"), META, None),
        (modern("tools/call", "=?base64?c2FtcGxlcw==?="), META, None),
        (modern("tools/call", "noop"), META, -32020),
        (modern("tools/call", "=?base64?!!?="), META, -32020),
        (modern("tools/call", None), META, -32020),
        (modern(None, "samples"), META, -32020),
        (modern("tools/list", "samples"), META, -32020),
        (modern("tools/call", "samples"), {**META, "io.modelcontextprotocol/protocolVersion": "2025-06-18"}, -32020),
        (modern("tools/call", "samples"), {}, -32602),
        (modern(None, None, "2025-06-18"), META, -32020),
        (modern(None, None, None), META, -32020),
        (modern("ping", None, "2025-06-18"), {}, -32020),
        (modern(None, "noop", "2025-06-18"), {}, -32020),
        (modern(None, None, None), {}, None),
    ],
)
def test_header_and_body_must_agree(given_head: Head, meta: dict[str, Any], rpc: int | None) -> None:
    params = {"name": "samples", "arguments": {}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
    if rpc is None:
        assert read_message(given_head, body).method == "tools/call"
        return
    with pytest.raises(RefusedError) as refused:
        read_message(given_head, body)
    assert (refused.value.refusal.rpc, refused.value.refusal.id) == (rpc, 7)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_messages = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0"]) | _json,
        "id": st.integers() | st.text(max_size=5) | _json,
        "method": st.sampled_from(["tools/call", "tools/list", "initialize", "ping", "server/discover"]) | st.text(),
        "params": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["samples", "noop", "write_status", "report_incomplete"]) | _json,
                # Never a record that fits: `prompt` is required, and only these keys are given.
                "arguments": st.dictionaries(st.sampled_from(["score", "n", "reason", "x"]), _json, max_size=3) | _json,
                "_meta": _json,
                "cursor": _json,
            },
        )
        | _json,
    },
)


@settings(max_examples=300)
@given(
    body=st.binary(max_size=200) | _messages.map(lambda value: json.dumps(value).encode()),
    version=st.sampled_from([None, "2024-11-05", "2025-11-25", "2026-07-28"]),
    method=st.none() | st.sampled_from(["tools/call", "ping"]),
)
def test_whatever_comes_is_answered_and_nothing_is_buffered(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, version: str | None, method: str | None
) -> None:
    path: Path = tmp_path_factory.mktemp("fuzz") / "draft.jsonl"
    events: list[dict[str, Any]] = []
    desk = Desk(
        "draft",
        [make_output()],
        {"samples": Schema(SAMPLE_SCHEMA, "samples")},
        Ledger(),
        Buffer(path, "draft"),
        lambda event, **fields: events.append({"event": event, **fields}),
    )
    reply = desk.answer(Head(version=version, method=method, name=None), body)
    assert reply.status in {200, 202, 400, 404}
    assert not reply.body or json.loads(reply.body)["jsonrpc"] == "2.0"
    assert path.read_bytes() == b""
    assert not [event for event in events if event["rule"] == "CSM-G019"]

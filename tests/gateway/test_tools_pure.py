"""What an MCP server may say, which of its tools are there, and what is left of a result: tables."""

from __future__ import annotations

import copy
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.schema import Schema
from gateway.serve.overflow import MAX_BYTES, MAX_FILES, Overflow
from gateway.serve.pins import compare
from gateway.serve.results import MAX_RESULT, Unusable, clean
from gateway.serve.servers.peer import (
    CHANGED,
    MAX_NOISE,
    MAX_NOISE_BYTES,
    Answer,
    Noise,
    Said,
    ServerFailed,
    question,
    read,
)
from policies.canonical import StrictJsonError, strict_loads
from policies.plan import Pin
from tests.gateway.hostile import LISTS, TOKEN, TOOLS
from tests.gateway.tool_kit import PINS

# ---- pins


@pytest.mark.parametrize(
    ("live", "gone"),
    [
        (TOOLS, {}),
        (TOOLS[::-1], {}),
        (LISTS["more"], {}),
        (LISTS["lying"], {}),
        ([dict(reversed(TOOLS[0].items())), TOOLS[1]], {}),
        (LISTS["description"], {"look": "its definition has changed"}),
        (LISTS["hidden-description"], {"look": "its definition has changed"}),
        (LISTS["schema"], {"look": "its definition has changed"}),
        (LISTS["annotation"], {"look": "its definition has changed"}),
        ([{**TOOLS[0], "title": "Look"}, TOOLS[1]], {"look": "its definition has changed"}),
        ([{**TOOLS[0], "outputSchema": {"type": "object"}}, TOOLS[1]], {"look": "its definition has changed"}),
        ([{**TOOLS[0], "_meta": {}}, TOOLS[1]], {"look": "its definition has changed"}),
        ([{k: v for k, v in TOOLS[0].items() if k != "annotations"}, TOOLS[1]], {"look": "its definition has changed"}),
        ([TOOLS[0], TOOLS[0], TOOLS[1]], {"look": "the server has it twice"}),
        (LISTS["twice"], {"look": "the server has it twice"}),
        (LISTS["gone"], {"look": "the server no longer has it"}),
        ([{**TOOLS[0], "name": "l\u043e\u043ek"}, TOOLS[1]], {"look": "the server no longer has it"}),
        ([{**TOOLS[0], "name": "look "}, {"name": None}, {}, TOOLS[1]], {"look": "the server no longer has it"}),
        ([], {"look": "the server no longer has it", "count": "the server no longer has it"}),
    ],
)  # fmt: skip
def test_a_tool_is_there_when_it_is_what_was_approved(live: list[dict[str, Any]], gone: dict[str, str]) -> None:
    found = compare(["look", "count"], PINS, live)
    assert found.gone == gone
    assert [found.tools[name].definition for name in found.tools] == [t for t in TOOLS[:2] if t["name"] not in gone]


@pytest.mark.parametrize("name", ["drop", "steal"])
def test_what_is_no_approved_read_is_not_there_whatever_the_server_says(name: str) -> None:
    live = [*LISTS["lying"], *LISTS["more"][3:]]
    assert compare([name], PINS, live).gone == {name: "it is not pinned as a tool that only reads"}
    pins = [Pin(name=tool["name"], reads=True, definition=tool) for tool in live]
    assert compare([name], pins, live).gone == {}, "the control: pinned as a read, it is"


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container inside a definition, with each of its keys or indexes."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


@given(st.data())
def test_any_one_change_is_another_tool(data: st.DataObject) -> None:
    definition = copy.deepcopy(TOOLS[0])
    container, key = data.draw(st.sampled_from(_places(definition)))
    before = container[key]
    container[key] = data.draw(st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.text(max_size=9)))
    assert (not compare(["look"], PINS, [definition]).gone) is (
        container[key] == before and type(container[key]) is type(before)
    )


# ---- results

WORDS = st.text(
    st.characters(
        codec="utf-8", categories=("L", "N", "P", "Z"), exclude_characters="\u2028\u2029\u3164\u115f\u1160\uffa0"
    )
)


def washed(text: str, secrets: tuple[str, ...] = (TOKEN,)) -> tuple[str, int, int]:
    cleaned = clean({"content": [{"type": "text", "text": text}]}, None, secrets)
    return cleaned.result["content"][0]["text"], cleaned.hidden, cleaned.secrets


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a\u200bb", "ab"), ("\ufeffa", "a"), ("a\u2060b", "ab"), ("a\u00adb", "ab"), ("a\u3164b", "ab"),
        ("a\u180eb", "ab"),
        ("a\u202eb", "ab"), ("a\u2066b\u2069", "ab"), ("a\u200fb", "ab"), ("a\u061cb", "ab"), ("a\u2028b", "ab"),
        ("a\U000e0041\U000e0042b", "ab"), ("a\u200db", "ab"), ("x\u200c", "x"),
        ("a\ufe01\ufe0fb", "ab"), ("a\ufe05b", "ab"), ("\ufe05b", "b"), ("a\U000e0101b", "ab"),
        ("\u2764\ufe0f\ufe01", "\u2764"),
        ("\U0001f600\u200d\u200d\U0001f600", "\U0001f600\U0001f600"),
        ("\x1b[31mred\x1b[0m", "red"), ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;https://evil.example\x1b\\link", "link"),
        ("a\x1b[2J\x1b[1;1Hb", "ab"), ("a\x9b31mb", "a31mb"), ("a\x07\x08\x7fb", "ab"), ("a\x00b", "ab"),
        ("over\rwritten", "over\rwritten"),
        ("\x1b]no end", ""), ("\x1b", ""),
    ],
)  # fmt: skip
def test_what_nobody_sees_is_taken_out_and_counted(text: str, left: str) -> None:
    if "\r" in text:
        assert washed(text) == (left, 0, 0)
        return
    got, hidden, _ = washed(text)
    assert got == left
    assert hidden > 0


@pytest.mark.parametrize(
    "text",
    [
        "Съешь ещё этих мягких французских булок", "日本語のテキスト", "葛\U000e0100城市", "עברית", "العربية",
        "می\u200cخواهم", "क्\u200dष",
        "👩\u200d👩\u200d👧\u200d👦 ❤\ufe0f 🏳\ufe0f\u200d🌈 1\ufe0f⃣ ©\ufe0f", "naïve café é", "a\tb\nc", "½ € → ∑",
        "한국어",
    ],
)  # fmt: skip
def test_honest_text_is_left_alone(text: str) -> None:
    assert washed(text) == (text, 0, 0)


@given(WORDS)
def test_text_of_any_language_is_left_alone(text: str) -> None:
    assert washed(text) == (text, 0, 0)


@given(st.text())
def test_what_was_washed_is_clean(text: str) -> None:
    once, _, _ = washed(text)
    assert washed(once) == (once, 0, 0)


@pytest.mark.parametrize(
    ("result", "count"),
    [
        ({"content": [{"type": "text", "text": f"a {TOKEN} b {TOKEN}"}]}, 2),
        ({"content": [{"type": "text", "text": f"{TOKEN[:3]}\u200b\x1b[0m{TOKEN[3:]}"}]}, 1),
        ({"content": [{"type": "resource_link", "uri": f"https://x.example/?{TOKEN}", "name": TOKEN}]}, 2),
        ({"content": [{"type": "resource", "resource": {"uri": "file:///x",
        "text": TOKEN, "_meta": {TOKEN: 1}}}]}, 2),
        ({"content": [{"type": "image", "data": TOKEN, "mimeType": "image/png"}]}, 1),
        ({"content": [], "structuredContent": {"a": [{"b": TOKEN}]}}, 1),
        ({"content": [], "structuredContent": {TOKEN: 1}}, 1),
        ({"content": [{"type": "text", "text": "none"}], "_meta": {"token": TOKEN}}, 0),
        ({"content": [{"type": "text", "text": "none",
        "_meta": {"token": TOKEN}, "annotations": {"x": TOKEN}}]}, 0),
    ],
)  # fmt: skip
def test_a_secret_of_ours_is_blanked_wherever_it_is(result: dict[str, Any], count: int) -> None:
    cleaned = clean(result, None, (TOKEN, ""))
    assert TOKEN not in json.dumps(cleaned.result)
    assert cleaned.secrets == count
    assert cleaned.touched is (count > 0)
    if count:
        assert TOKEN in json.dumps(clean(result, None, ()).result).replace("\\u200b\\u001b[0m", ""), "the control"


@pytest.mark.parametrize(
    "result",
    [
        {"content": "text"}, {"content": {}}, {"content": None}, {"content": ["text"]}, {"content": [None]},
        {"content": [[]]},
        {"content": [{}]}, {"content": [{"type": "text"}]}, {"content": [{"type": "text", "text": 1}]},
        {"content": [{"type": "html", "html": "<script>"}]}, {"content": [{"type": ["text"], "text": "x"}]},
        {"content": [{"type": "image", "data": "x"}]},
        {"content": [{"type": "image", "data": {"a": 1}, "mimeType": "image/png"}]},
        {"content": [{"type": "resource", "resource": "x"}]},
        {"content": [{"type": "resource_link", "uri": 1, "name": "x"}]},
        {"content": [], "structuredContent": []}, {"content": [], "structuredContent": "x"},
        {"content": [{"type": "tool_use", "id": "1", "name": "drop", "input": {}}]},
    ],
)  # fmt: skip
def test_a_result_of_another_shape_is_none(result: dict[str, Any]) -> None:
    with pytest.raises(Unusable):
        clean(result, None)


def test_structured_content_is_held_against_its_schema() -> None:
    schema = Schema(TOOLS[1]["outputSchema"], "tool")
    assert clean({"content": [], "structuredContent": {"n": 1}}, schema).result["structuredContent"] == {"n": 1}
    brokens: tuple[Any, ...] = ({"n": "1"}, {}, [], None)
    for broken in brokens:
        with pytest.raises(Unusable):
            clean({"content": [], "structuredContent": broken}, schema)
    with pytest.raises(Unusable):
        clean({"content": []}, schema)
    assert clean({"content": [], "isError": True}, schema).result == {"content": [], "isError": True}


@pytest.mark.parametrize("value", [None, 0, 1, "true", []])
def test_only_true_is_an_error(value: Any) -> None:
    assert clean({"content": [], "isError": value}, None).result["isError"] is False


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "text", "text": "é" * MAX_RESULT}]},
        {"content": [{"type": "text", "text": "\U0001f600" * MAX_RESULT}]},
        {"content": [{"type": "text", "text": '"\\' * MAX_RESULT}]},
        {"content": [{"type": "text", "text": "x"}] * 100_000},
        {"content": [{"type": "image", "data": "A" * MAX_RESULT, "mimeType": "image/png"}]},
        {"content": [], "structuredContent": {"a": ["x" * 1000] * 1000}},
        {"content": [], "structuredContent": {"a": [{}] * 2_000_000}},
        {"content": [{"type": "resource", "resource": {"a": [{}] * 2_000_000}}]},
        {"content": [{"type": "text", "text": "\x1b[" * 2_000_000}]},
        {"content": [{"type": "text", "text": "\x1b[" + "0" * 4_000_000}]},
        {"content": [{"type": "text", "text": "\u200d" * 2_000_000}]},
        {"content": [{"type": "text", "text": "\x1b]" * 2_000_000}]},
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_too_large_is_cut_and_said_to_be(result: dict[str, Any]) -> None:
    cleaned = clean(result, None, (TOKEN,))  # what looked at all of it again for each character would not come back
    assert len(json.dumps(cleaned.result, ensure_ascii=False).encode()) < 2 * MAX_RESULT + 1000
    assert cleaned.touched
    assert not cleaned.cut or "[cut" in cleaned.result["content"][-1]["text"]


def test_a_result_at_the_limit_is_whole() -> None:
    cleaned = clean({"content": [{"type": "text", "text": "x" * (MAX_RESULT - 100)}]}, None)
    assert not cleaned.touched


def test_a_secret_at_the_edge_of_the_cut_is_blanked_first() -> None:
    text = "x" * (MAX_RESULT // 4 - 5) + TOKEN + "y" * MAX_RESULT
    assert TOKEN[:4] not in json.dumps(clean({"content": [{"type": "text", "text": text}]}, None, (TOKEN,)).result)


# ---- messages


REFUSAL = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"not offered"}}'


def answered(number: int, result: dict[str, Any]) -> Said:
    return Said(id=number, answer=Answer(result))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', answered(1, {})),
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":null}', answered(1, {})),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no"}}',
        Said(id=1, answer=Answer(None, -32000, "no"))),
        (b'{"jsonrpc":"2.0","id":1,"error":{}}', Said(id=1, answer=Answer(None))),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":"x","message":{}}}', Said(id=1, answer=Answer(None))),
        (b'{"jsonrpc":"2.0","id":"1","result":{}}', Said()),
        (b'{"jsonrpc":"2.0","id":true,"result":{}}', Said()),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700}}', Said()),
        (b'{"jsonrpc":"2.0","id":1.5,"result":{}}', Said()),
        (b'{"jsonrpc":"2.0","id":[1],"result":{}}', Said()),
        (b'{"jsonrpc":"2.0","result":{}}', Said()),
        (b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}', Said(note=("notifications/message", {}))),
        (b'{"jsonrpc":"2.0","method":"notifications/message","params":[]}', Said()),
        (b'{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{}}', Said()),
        (b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}', Said(stale=True)),
        (b'{"jsonrpc":"2.0","method":5}', Said()),
        (b'{"jsonrpc":"2.0","id":{"a":1},"method":"sampling/createMessage"}', Said()),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","result":{"tools":[]}}', Said(refuse=REFUSAL)),
    ],
)  # fmt: skip
def test_a_message_has_one_reading(data: bytes, said: Said) -> None:
    assert read(data) == said


@pytest.mark.parametrize("method", ["sampling/createMessage", "roots/list", "elicitation/create", "ping", "tasks/get"])
@pytest.mark.parametrize("number", [1, 0, "a"])
def test_a_request_of_a_server_is_refused(method: str, number: Any) -> None:
    said = read(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": {}}).encode())
    assert said.refuse is not None
    assert said.answer is None
    back = json.loads(said.refuse)
    assert (back["id"], back["error"]["code"]) == (number, -32601)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"1", b'"x"', b"[]", b"\xff", b"\xef\xbb\xbf{}", b"{}", b"not json", b'{"jsonrpc":"2.0"',
        b'{"jsonrpc":"1.0","id":1,"result":{}}', b'{"id":1,"result":{}}', b'{"jsonrpc":2.0,"id":1,"result":{}}',
        b'[{"jsonrpc":"2.0","id":1,"result":{}}]', b'{"jsonrpc":"2.0","id":1,"id":2,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}', b'{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":Infinity}}', b'{"jsonrpc":"2.0","id":1,"result":{"a":1e999}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":9007199254740993}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\\udc00"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}{"jsonrpc":"2.0","id":2,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":[]}', b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"result":null}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', b'{"jsonrpc":"2.0","id":1,"error":"no"}',
        b'{"jsonrpc":"2.0","id":1,"result":' + b'{"a":' * 70 + b"1" + b"}" * 71, b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_message_with_no_one_reading_fails_the_server(data: bytes) -> None:
    with pytest.raises(ServerFailed):
        read(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON, "id": st.integers(0, 3) | JSON, "result": JSON, "error": JSON,
        "method": st.just(CHANGED) | JSON,
    },
)  # fmt: skip


def reads(data: bytes) -> None:
    try:
        said = read(data)
    except ServerFailed:
        return
    assert isinstance(said, Said)
    assert said.answer is None or (type(said.id) is int and said.refuse is None)
    assert said.refuse is None or b"\n" not in said.refuse


@given(st.binary())
def test_any_bytes_are_a_message_or_a_failure(data: bytes) -> None:
    reads(data)


@given(MESSAGES)
def test_any_message_is_read_or_a_failure(value: dict[str, Any]) -> None:
    reads(json.dumps(value).encode())


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_any_result_is_cleaned_or_unusable(value: dict[str, Any]) -> None:
    try:
        result = strict_loads(json.dumps({"content": [{"type": "text", "text": "x"}], **value}).encode())
    except StrictJsonError:
        return
    assert isinstance(result, dict)
    try:
        cleaned = clean(result, None, (TOKEN,))
    except Unusable:
        return
    assert cleaned.result.keys() <= {"content", "isError", "structuredContent"}


def failed(act: Callable[[], None]) -> bool:
    try:
        act()
    except ServerFailed:
        return True
    return False


def test_noise_is_bounded_between_answers() -> None:
    noise = Noise()
    for _ in range(3):
        assert not any(failed(lambda: noise.more(10)) for _ in range(MAX_NOISE))
        noise.end()
    assert not any(failed(lambda: noise.more(10)) for _ in range(MAX_NOISE))
    assert failed(lambda: noise.more(10))
    assert failed(lambda: Noise().more(MAX_NOISE_BYTES + 1))


@given(st.text(max_size=20), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_a_question_is_one_line_and_reads_back(method: str, params: dict[str, str]) -> None:
    data = question(7, method, params)
    assert b"\n" not in data
    assert json.loads(data) == {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    assert "id" not in json.loads(question(None, method, None))


def test_what_is_cut_is_kept_whole_and_washed_where_there_is_room(tmp_path: Path) -> None:
    overflow = Overflow(tmp_path)
    text = "x" * MAX_RESULT + TOKEN + "\u200b" + "end"
    cleaned = clean({"content": [{"type": "text", "text": text}]}, None, (TOKEN,), overflow.keep)
    assert (cleaned.cut, cleaned.kept) == (True, True)
    assert cleaned.result["content"][-1]["text"].endswith("the whole of it is in /artifacts/_tools/000.txt]")
    kept = (tmp_path / "000.txt").read_text()
    assert kept == "x" * MAX_RESULT + "[redacted]end"
    assert stat.S_IMODE((tmp_path / "000.txt").stat().st_mode) & 0o333 == 0o200


def test_files_of_results_are_bounded(tmp_path: Path) -> None:
    overflow = Overflow(tmp_path)
    assert [overflow.keep(b"x") for _ in range(MAX_FILES)][-1] == f"/artifacts/_tools/{MAX_FILES - 1:03}.txt"
    assert overflow.keep(b"x") is None
    big = Overflow(tmp_path / "other")
    assert big.keep(b"x") is None  # there is no such folder
    (tmp_path / "third").mkdir()
    third = Overflow(tmp_path / "third")
    assert third.keep(b"x" * MAX_BYTES) is not None
    assert third.keep(b"x") is None
    large = {"content": [{"type": "text", "text": "y" * (2 * MAX_RESULT)}]}
    assert clean(large, None, (), third.keep).result["content"][-1]["text"].endswith("ask for less]")

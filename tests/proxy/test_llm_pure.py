"""Requests, answers, streams and charges of the LLM door, by table."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.plan import Price
from proxy.llm.charges import charge, counted, exceeded, outruns, replaced
from proxy.llm.formats.base import IMAGE_TOKENS
from proxy.llm.formats.chat import CHAT
from proxy.llm.request import read_request
from proxy.llm.response import error_text, read_answer, redact, same_model
from proxy.llm.stream import StreamJudge
from proxy.llm.types import Amount, LlmRequest, Refused, Usage
from tests.proxy.kit import REMOTE, TEACHER

PLAIN = msgspec.structs.replace(REMOTE, alias="plain", provider="openai-compatible")
MODELS = {"teacher": TEACHER, "remote": REMOTE, "plain": PLAIN}
USER = [{"role": "user", "content": "hi"}]


def read(**fields: Any) -> LlmRequest:
    body = {"model": "remote", "messages": USER, **fields}
    return read_request(json.dumps(body).encode(), MODELS, CHAT)


def sent(**fields: Any) -> dict[str, Any]:
    return dict(json.loads(read(**fields).body))


def code(**fields: Any) -> tuple[str, int]:
    with pytest.raises(Refused) as refused:
        read(**fields)
    return refused.value.code, refused.value.status


def test_the_body_is_written_anew_with_the_plans_model_and_ceiling() -> None:
    assert sent() == {"model": "gpt-x", "messages": USER, "max_completion_tokens": 64}
    assert sent(model="teacher") == {"model": "tiny-model", "messages": USER, "max_tokens": 50}


@pytest.mark.parametrize(
    ("asked", "ceiling"),
    [({}, 64), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 5}, 5), ({"max_tokens": 10**9}, 64),
     ({"max_tokens": None}, 64), ({"max_tokens": 9, "max_completion_tokens": 8}, 8)],
)  # fmt: skip
def test_the_output_ceiling_is_the_smallest_that_anybody_named(asked: dict[str, Any], ceiling: int) -> None:
    body = sent(**asked)
    assert body["max_completion_tokens"] == ceiling
    assert "max_tokens" not in body


def test_a_stream_is_asked_for_its_usage() -> None:
    assert sent(stream=True)["stream_options"] == {"include_usage": True}
    assert not read(stream=True).wants_usage
    assert read(stream=True, stream_options={"include_usage": True}).wants_usage
    assert "stream" not in sent(stream=False)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2}, {"n": True}, {"n": "1"}, {"best_of": 2}, {"store": True}, {"metadata": {}}, {"service_tier": "x"},
        {"web_search_options": {}}, {"prediction": {}}, {"modalities": ["audio"]}, {"functions": []}, {"key": "x"},
        {"max_tokens": 0}, {"max_tokens": -1}, {"max_tokens": 1.5}, {"max_tokens": True}, {"max_tokens": "9"},
        {"stream": "yes"}, {"stream": 1}, {"stream_options": {}}, {"stream": True, "stream_options": {"x": 1}},
        {"messages": []}, {"messages": None}, {"messages": "hi"}, {"messages": [1]},
        {"messages": [{"role": "root", "content": "x"}]}, {"messages": [{"role": "user", "content": 1}]},
        {"messages": [{"role": "user", "content": "x", "audio": {}}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://e.example/"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "HTTP://e.example/"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"tools": [{"type": "web_search"}]}, {"tools": [{"type": "mcp", "server_url": "https://e.example"}]},
        {"tools": {}}, {"tools": ["x"]},
    ],
)  # fmt: skip
def test_row_30_what_is_not_known_is_refused(fields: dict[str, Any]) -> None:
    assert code(**fields) == ("CSM-P021", 400)


@pytest.mark.parametrize("alias", ["gpt-x", "TEACHER", "", None, 1, ["teacher"], {"a": 1}])
def test_row_30_a_model_that_is_not_the_stages_is_refused(alias: Any) -> None:
    with pytest.raises(Refused) as refused:
        read(model=alias)
    assert (refused.value.code, refused.value.status) == ("CSM-P022", 403)
    assert refused.value.allowed == ["plain", "remote", "teacher"]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b'{"model":"remote","model":"teacher","messages":[]}', b'{"n":NaN}', b"\xff", b"[" * 100_000],
)
def test_a_body_that_is_not_strict_json_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_request(data, MODELS, CHAT)
    assert refused.value.code == "CSM-P021"


def test_a_model_without_ceiling_or_price_is_refused() -> None:
    for model in (
        msgspec.structs.replace(REMOTE, max_output_tokens=0),
        msgspec.structs.replace(REMOTE, price=Price(input=0, output=0)),
    ):
        with pytest.raises(Refused) as refused:
            read_request(json.dumps({"model": "m", "messages": USER}).encode(), {"m": model}, CHAT)
        assert refused.value.code == "CSM-P028"


def test_images_are_inline_and_are_charged_for() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with_image = read(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, image]}])
    assert with_image.input_tokens > IMAGE_TOKENS


@given(st.text())
def test_the_input_bound_is_at_least_the_bytes_of_the_text(text: str) -> None:
    try:
        request = read(messages=[{"role": "user", "content": text}])
    except Refused:
        return
    assert request.input_tokens > len(text.encode())


@pytest.mark.parametrize(
    ("answered", "same"),
    [("gpt-x", True), ("gpt-x-2026-01-01", True), ("gpt-x-20260101", True), ("gpt-x-0613", True),
     ("gpt-x-001", True), ("models/gpt-x", True),
     ("models/gpt-x-001", True), ("models/gpt-y", False), ("gpt-x-1", False), ("gpt-x-mini", False),
     ("gpt-x-2026-01-01-mini", False), ("gpt", False), ("GPT-X", False), ("", False), (None, False), (1, False)],
)  # fmt: skip
def test_the_answering_model_is_the_plans_or_a_dated_release_of_it(answered: object, same: bool) -> None:
    assert same_model(answered, msgspec.structs.replace(REMOTE, names=["models/gpt-x"])) is same


def answer(**fields: Any) -> bytes:
    message = {"role": "assistant", "content": "hello"}
    body = {"model": "gpt-x", "choices": [{"index": 0, "message": message}], **fields}
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("data", "code"),
    [(answer(model="gpt-y"), "CSM-P026"), (answer(model=None), "CSM-P026"), (answer(choices=[]), "CSM-P029"),
     (b"<html>", "CSM-P029"), (b"[]", "CSM-P029"), (b'{"a":1,"a":2}', "CSM-P029")],
)  # fmt: skip
def test_an_answer_that_cannot_be_judged_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        read_answer(data, read(), CHAT, None)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("usage", "known"),
    [({"prompt_tokens": 1, "completion_tokens": 2}, True), ({"prompt_tokens": 1}, False), (None, False),
     ({"prompt_tokens": -1, "completion_tokens": 2}, False), ({"prompt_tokens": 1.0, "completion_tokens": 2}, False)],
)  # fmt: skip
def test_usage_is_believed_only_if_it_is_a_count(usage: Any, known: bool) -> None:
    judged = read_answer(answer(usage=usage), request := read(model="plain"), CHAT, None)
    assert judged.usage == (Usage(input=1, output=2, complete=True) if known else counted(request.worst, len("hello")))


def test_a_key_is_taken_out_before_text_is_cut() -> None:
    key = "sk-secret-key"
    assert redact(b"x" + key.encode() + b"y", key) == b"x[redacted]y"
    assert "sk-s" not in error_text(b"a" * 295 + key.encode(), key)


def judge(wants_usage: bool = False, max_output: int = 64, key: str | None = None) -> StreamJudge:
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    return StreamJudge(read(model="plain", stream=True, max_tokens=max_output, **options), CHAT, key)


def piece(delta: dict[str, Any] | None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta}]
    return b"data: " + json.dumps({"model": "gpt-x", "choices": choices, **more}).encode() + b"\n\n"


USAGE = {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}
DONE = b"data: [DONE]\n\n"


@given(st.lists(st.integers(min_value=1, max_value=40), min_size=1), st.booleans())
def test_a_stream_reads_the_same_however_it_is_cut_into_segments(sizes: list[int], crlf: bool) -> None:
    whole = piece({"role": "assistant"}) + piece({"content": "héllo"}) + b": ping\n\n" + piece(None, **USAGE) + DONE
    data = whole.replace(b"\n", b"\r\n") if crlf else whole
    judged, out, at = judge(), b"", 0
    for size in sizes:
        out += judged.feed(data[at : at + size])
        at += size
    out += judged.feed(data[at:]) + judged.end()
    assert out == whole.replace(piece(None, **USAGE), b"")  # the agent did not ask for it
    assert judged.charge() == Usage(input=5, output=2, complete=True)


def test_usage_goes_on_when_it_was_asked_for() -> None:
    assert judge(wants_usage=True).feed(piece(None, **USAGE)) == piece(None, **USAGE)


def test_a_last_event_without_its_empty_line_still_ends_the_stream() -> None:
    judged = judge()
    assert judged.feed(piece({"content": "x"}) + b"data: [DONE]") == piece({"content": "x"})
    assert judged.end() == DONE


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (piece({"content": "x"}, model="gpt-y"), "CSM-P026"),
        (b'data: {"choices": []}\n\n', "CSM-P026"),
        (b"data: nonsense\n\n", "CSM-P029"),
        (b'data: {"error": {"message": "overloaded"}}\n\n', "CSM-P025"),
        (b"data: " + b"x" * 2_000_000, "CSM-P029"),
        (DONE + piece({"content": "after the end"}), "CSM-P029"),
        (b": comment\rdata: hidden\n\n", "CSM-P029"),
        (piece({"content": "x"}) * 81, "CSM-P027"),
        (piece({"content": "x" * 128 * 81}), "CSM-P027"),
        (piece({"tool_calls": [{"function": {"arguments": "x" * 128 * 81}}]}), "CSM-P027"),
        (piece({"reasoning_content": "x" * 128 * 81}), "CSM-P027"),
    ],
    ids=["model", "no_model", "junk", "error", "endless", "after_done", "lone_cr", "chunks", "bytes", "tool", "reason"],
)
def test_a_stream_is_cut(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        judge().feed(data)
    assert refused.value.code == code


def test_a_stream_that_ends_early_is_not_taken_for_complete() -> None:
    judged = judge()
    judged.feed(piece({"content": "abc"}))
    with pytest.raises(Refused):
        judged.end()
    assert judged.charge() == counted(judged._request.worst, 3)


def test_trap_8_an_unfinished_stream_is_never_charged_less_than_what_was_seen() -> None:
    judged = judge()
    judged.feed(piece({"content": "abc"}, usage={"prompt_tokens": 1, "completion_tokens": 9}))
    charge = judged.charge()
    assert (charge.output, charge.complete) == (9, False)
    assert charge.input > 1


def test_a_key_in_a_stream_is_taken_out() -> None:
    assert b"sk-1" not in judge(key="sk-1").feed(piece({"content": "my key is sk-1"}))


AMOUNTS = st.builds(Amount, calls=st.integers(0, 9), tokens=st.integers(0, 99), usd_nanos=st.integers(0, 999))


@given(AMOUNTS, AMOUNTS, AMOUNTS)
def test_charges_add_up(spent: Amount, reserved: Amount, actual: Amount) -> None:
    nothing = Amount(calls=0, tokens=0, usd_nanos=0)
    after = replaced(replaced(spent, nothing, reserved), reserved, actual)
    assert after == replaced(spent, nothing, actual)
    assert exceeded(spent, nothing, spent) is None
    for name in ("calls", "tokens", "usd_nanos"):
        more = Amount(**{"calls": 0, "tokens": 0, "usd_nanos": 0, name: 1})
        assert exceeded(spent, more, spent) == name


def test_costs_are_exact() -> None:
    price = Price(input=3, output=7)
    assert charge(Usage(input=10, output=5, complete=False), price) == Amount(calls=1, tokens=15, usd_nanos=65)
    assert charge(Usage(input=2, output=1, complete=True), price) == Amount(calls=1, tokens=3, usd_nanos=13)
    assert not outruns(80, 0, 64)
    assert outruns(81, 0, 64)
    assert not outruns(0, 128 * 81 - 1, 64)


@pytest.mark.parametrize(
    ("price", "nanos"),
    [
        # 100 in, of which 40 read, 20 written and 10 written for an hour; 5 out
        (Price(input=100, output=400), 30 * 100 + 40 * 100 + 20 * 125 + 10 * 200 + 5 * 400),
        (Price(input=100, output=400, cache_read=10, cache_write=130, cache_write_1h=250),
         30 * 100 + 40 * 10 + 20 * 130 + 10 * 250 + 5 * 400),
        (Price(input=1, output=0), 30 + 40 + 25 + 20),
        (Price(input=3, output=0, cache_read=0), 90 + 0 + 75 + 60),
    ],
)  # fmt: skip
def test_what_is_read_from_or_written_to_a_cache_has_its_own_rate(price: Price, nanos: int) -> None:
    usage = Usage(input=100, output=5, complete=True, cached=40, written=20, written_1h=10)
    assert charge(usage, price) == Amount(calls=1, tokens=105, usd_nanos=nanos)
    worst = Usage(input=100, output=5, complete=False, written_1h=100)
    assert charge(worst, price).usd_nanos >= nanos


@pytest.mark.parametrize(
    ("fields", "output"),
    [({"model": "remote"}, 64), ({"model": "plain", "reasoning_effort": "low"}, 64), ({"model": "plain"}, 3),
     ({"model": "plain", "reasoning_effort": None}, 3), ({"model": "teacher"}, 3)],
)  # fmt: skip
def test_reasoning_that_is_not_shown_is_owed_where_there_may_have_been_some(
    fields: dict[str, Any], output: int
) -> None:
    request = read(stream=True, **fields)
    judged = StreamJudge(request, CHAT, None)
    judged.feed(piece({"content": "abc"}, model=request.model.model))
    with pytest.raises(Refused):
        judged.end()
    assert judged.charge().output == output

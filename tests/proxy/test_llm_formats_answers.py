"""What providers answer in Anthropic Messages and OpenAI Responses, and what it costs, by table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.llm.formats import messages, responses
from proxy.llm.formats.messages import MESSAGES
from proxy.llm.formats.responses import RESPONSES
from proxy.llm.response import read_answer
from proxy.llm.stream import StreamJudge
from proxy.llm.types import Refused, Usage
from tests.proxy.test_llm_formats_pure import read


@pytest.mark.parametrize(
    ("pieces", "total"),
    [
        ([{"input_tokens": 5, "output_tokens": 1}, {"output_tokens": 9}], (5, 9)),
        ([{"input_tokens": 5, "cache_creation_input_tokens": 8, "cache_read_input_tokens": 7, "output_tokens": 1}],
         (20, 1, 7, 0, 8)),
        ([{"input_tokens": 5, "cache_creation_input_tokens": 9, "output_tokens": 1,
           "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 4}}], (14, 1, 0, 5, 4)),
        ([{"input_tokens": 5, "output_tokens": 4}, {"input_tokens": 6, "output_tokens": 2}], (6, 4)),
        ([{"input_tokens": 5, "cache_read_input_tokens": 9, "output_tokens": 4}, {"cache_read_input_tokens": 12}],
         (14, 4, 12)),
        ([{"input_tokens": 5, "output_tokens": 4}, None, {}], (5, 4)),
        ([{"input_tokens": 5, "cache_read_input_tokens": -9, "output_tokens": 4}], (5, 4)),
        ([{"input_tokens": True, "output_tokens": 4}], None), ([{"output_tokens": 4}], None), ([None], None),
    ],
)  # fmt: skip
def test_usage_of_messages_comes_in_pieces_and_never_shrinks(pieces: list[Any], total: Any) -> None:
    so_far = None
    for piece in pieces:
        so_far = messages.usage(piece, so_far)
    if total is None:
        assert so_far is None
    else:
        given, made, cached, written, written_1h = (*total, 0, 0, 0)[:5]
        assert so_far == Usage(
            input=given, output=made, complete=True, cached=cached, written=written, written_1h=written_1h
        )


def test_cached_tokens_of_responses_are_inside_and_repeated_text_is_not_counted_twice() -> None:
    usage = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 3}
    ended = responses.event({"type": "response.completed", "response": {"model": "gpt-x", "usage": usage}}, None)
    assert (ended.ended, ended.usage) == (True, Usage(input=9, output=3, complete=True, cached=8))
    for kind, size in (("delta", 3), ("done", 0)):
        said = {"type": f"response.output_text.{kind}", "delta": "abc", "text": "abc", "obfuscation": "xxxx"}
        assert responses.event(said, None).output_bytes == size


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


START = event("message_start", message={"model": "opus-x", "usage": {"input_tokens": 5, "output_tokens": 1}})
TEXT = event("content_block_delta", delta={"type": "text_delta", "text": "abc"})
END = event("message_delta", usage={"output_tokens": 9}) + event("message_stop")


@given(st.lists(st.integers(min_value=1, max_value=60), min_size=1))
def test_a_stream_of_messages_reads_the_same_however_it_is_cut(sizes: list[int]) -> None:
    whole, out, at = START + event("ping") + TEXT + END, b"", 0
    judged = StreamJudge(read(MESSAGES, stream=True), MESSAGES, None)
    for size in sizes:
        out += judged.feed(whole[at : at + size])
        at += size
    assert out + judged.feed(whole[at:]) + judged.end() == whole
    assert judged.charge() == Usage(input=5, output=9, complete=True)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (TEXT, "CSM-P026"),
        (START.replace(b"opus-x", b"opus-y"), "CSM-P026"),
        (START + TEXT.replace(b"event: content", b"event: other"), "CSM-P029"),
        (START + b'data: {"delta": "x"}\n\n', "CSM-P029"),
        (START + b"data: [DONE]\n\n", "CSM-P029"),
        (START + END + TEXT, "CSM-P029"),
        (START + event("content_block_delta", delta={"thinking": "x" * 128 * 4200}), "CSM-P027"),
        (START + event("content_block_delta", delta={"partial_json": "x" * 128 * 4200}), "CSM-P027"),
        (START + event("content_block_new", anything="x" * 128 * 4200), "CSM-P027"),
        (event("error", error={"type": "overloaded_error"}), "CSM-P025"),
    ],
    ids=["nameless", "model", "two_names", "no_type", "done", "after", "thinking", "json", "unknown", "error"],
)
def test_a_stream_of_messages_is_cut(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        StreamJudge(read(MESSAGES, stream=True), MESSAGES, None).feed(data)
    assert refused.value.code == code


def test_a_stream_of_responses_may_end_twice() -> None:
    judged = StreamJudge(read(RESPONSES, stream=True), RESPONSES, None)
    end = event("response.completed", response={"model": "gpt-x", "output": []})
    assert judged.feed(end + b"data: [DONE]\n\n") + judged.end() == end
    assert judged.charge() == judged._request.worst  # it did not say what it cost


def test_an_answer_that_failed_is_the_providers_failure() -> None:
    said = {"object": "response", "model": "gpt-x", "status": "failed", "error": {"message": "key sk-1"}, "output": []}
    with pytest.raises(Refused) as refused:
        read_answer(json.dumps(said).encode(), read(RESPONSES), RESPONSES, "sk-1")
    assert (refused.value.code, "sk-1" in refused.value.hint) == ("CSM-P025", False)

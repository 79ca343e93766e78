"""What agents may ask in Anthropic Messages and OpenAI Responses, by table."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from policies.plan import Price
from proxy.llm.charges import charge
from proxy.llm.formats.base import IMAGE_TOKENS, Format
from proxy.llm.formats.messages import COUNT_TOKENS, MESSAGES
from proxy.llm.formats.messages_input import TOOL_TOKENS
from proxy.llm.formats.responses import RESPONSES
from proxy.llm.formats.table import ROUTES, SPOKEN, routes
from proxy.llm.request import read_request
from proxy.llm.types import LlmRequest, Refused, Usage
from tests.proxy.kit import REMOTE

CLAUDE = msgspec.structs.replace(REMOTE, alias="claude", provider="anthropic", model="opus-x", max_output_tokens=4096)
MODELS = {"claude": CLAUDE, "remote": REMOTE}
USER = [{"role": "user", "content": "hi"}]


def read(form: Format, headers: dict[str, str] | None = None, query: str = "", **fields: Any) -> LlmRequest:
    said = {"model": "remote", "input": "hi"} if form is RESPONSES else {"model": "claude", "messages": USER}
    return read_request(json.dumps({**said, **fields}).encode(), MODELS, form, headers, query)


def sent(form: Format, **fields: Any) -> dict[str, Any]:
    return dict(json.loads(read(form, **fields).body))


def user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def item(*parts: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(parts)}]}


CODE = {  # what Claude Code sends, and must reach the provider as it is
    "system": [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "redacted_thinking", "data": "eA=="},
            {"type": "tool_use", "id": "t1", "name": "Read", "input": {"z": 1, "a": {"y": 2, "b": 3}}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "is_error": False, "content": [
                {"type": "text", "text": "ok"}, {"type": "tool_reference", "tool_name": "Read"}]},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}]},
    ],
    "tools": [{"name": "Read", "description": "d", "input_schema": {"type": "object"}, "eager_input_streaming": True},
              {"type": "custom", "name": "x", "input_schema": {"type": "object"}, "defer_loading": True}],
    "tool_choice": {"type": "auto"}, "thinking": {"type": "adaptive", "display": "summarized"},
    "metadata": {"user_id": "u"}, "stop_sequences": ["a"], "temperature": 1, "top_p": 0.9, "top_k": 5,
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"}, "max_tokens": 4000, "stream": True,
}  # fmt: skip
CODEX = {
    "instructions": "be", "stream": True, "parallel_tool_calls": True, "tool_choice": "auto", "prompt_cache_key": "k",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "eA=="},
        {"type": "function_call", "call_id": "c", "name": "shell", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "ok"},
        {"type": "custom_tool_call", "call_id": "d", "name": "apply_patch", "input": "p"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "ok"}]},
        {"type": "message", "role": "assistant", "phase": "final", "content": [{"type": "output_text", "text": "x"}]},
    ],
    "tools": [{"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": False},
              {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark"}},
              {"type": "namespace", "name": "n", "description": "d", "tools": [{"type": "function", "name": "f"}]}],
    "reasoning": {"effort": "high", "summary": "auto"}, "include": ["reasoning.encrypted_content"],
    "text": {"verbosity": "low"}, "truncation": "disabled", "metadata": {}, "max_output_tokens": 60,
}  # fmt: skip


@pytest.mark.parametrize(("form", "asked"), [(MESSAGES, CODE), (RESPONSES, CODEX)], ids=["messages", "responses"])
def test_what_agents_send_goes_on_in_the_same_words_and_order(form: Format, asked: dict[str, Any]) -> None:
    body = read(form, **asked).body
    got = json.loads(body)
    assert got.pop("model") == ("opus-x" if form is MESSAGES else "gpt-x")
    assert got.pop("store", False) is False
    assert got == asked
    for key, value in asked.items():  # a cache at the provider goes by bytes
        assert json.dumps(value, separators=(",", ":")).encode() in body, key


def test_what_costs_nothing_to_leave_out_is_left_out() -> None:
    for form, dropped in (
        (MESSAGES, {"service_tier": "auto", "mcp_servers": [], "container": None}),
        (COUNT_TOKENS, {"mcp_servers": []}),
        (RESPONSES, {"service_tier": "default", "client_metadata": {"a": "b"}, "background": False, "store": True}),
    ):
        assert not sent(form, **dropped).keys() & (dropped.keys() - {"store"})
    assert sent(RESPONSES, store=True)["store"] is False


URL = {"type": "url", "url": "https://e.example/x"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "AA=="}


@pytest.mark.parametrize(
    "fields",
    [
        {"speed": "fast"}, {"inference_geo": "us"}, {"service_tier": "priority"}, {"container": "c"}, {"n": 1},
        {"mcp_servers": [{"type": "url", "url": "https://e.example"}]}, {"metadata": {"email": "x"}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, {"tools": {}}, {"tools": ["x"]},
        {"tools": [{"type": "code_execution_20250825", "name": "c"}]}, {"tools": [{"type": "web_fetch_20250910"}]},
        {"tools": [{"type": "mcp_toolset"}]}, {"tools": [{"type": "tool_search_tool_regex_20251119"}]},
        {"tools": [{"name": "x", "allowed_callers": ["code_execution_20250825"]}]},
        {"tools": [{"name": "x", "url": 1}]},
        {"tools": [{"type": ["custom"]}]}, {"tools": [{"type": "bash_20250124;web_search"}]},
        user({"type": "image", "source": URL}), user({"type": "document", "source": URL}),
        user({"type": "image", "source": {"type": "file", "file_id": "f"}}), user({"type": "document", "source": PDF}),
        user({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": URL}]}),
        user({"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": URL}]}}),
        user({"type": "container_upload", "file_id": "f"}), user({"type": "server_tool_use"}), user("x"), user({}),
        user({"type": ["text"]}), user({"type": "text", "text": "x", "url": "u"}),
        {"system": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}]},
        {"system": 1}, {"messages": []}, {"messages": "x"}, {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user"}]}, {"messages": [{"role": "user", "content": "x", "name": "y"}]},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}}, {"context_management": []},
        {"context_management": {"edits": [], "x": 1}}, {"output_config": {"x": 1}}, {"output_config": 1},
        {"thinking": 1}, {"thinking": {"type": "enabled", "x": 1}}, {"stream": 1},
        {"max_tokens": 0}, {"max_tokens": True}, {"max_tokens": "9"}, {"max_tokens": -1},
        {"max_tokens": 1000, "thinking": {"type": "enabled", "budget_tokens": 2000}},
    ],
)  # fmt: skip
def test_row_30_messages_refuses_what_is_not_known(fields: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        read(MESSAGES, **fields)
    assert (refused.value.code, refused.value.status) == ("CSM-P021", 400)


@pytest.mark.parametrize(
    "fields",
    [
        {"background": True}, {"previous_response_id": "r"}, {"conversation": "c"}, {"prompt": {"id": "p"}},
        {"service_tier": "priority"}, {"service_tier": "flex"}, {"background": 0}, {"context_management": []},
        {"prompt_cache_retention": "24h"}, {"n": 1}, {"messages": USER}, {"store": "no"}, {"stream": 1},
        *({"tools": [{"type": kind}]} for kind in (
            "web_search", "web_search_preview", "file_search", "mcp", "code_interpreter", "computer_use_preview",
            "computer", "image_generation", "local_shell", "shell", "namespace", "tool_search", None, [])),
        {"tools": {}}, {"tools": ["x"]}, {"tools": [{"type": "function", "name": "x", "server_url": "u"}]},
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]},
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "namespace", "name": "m", "tools": []}]}]},
        {"tool_choice": {"type": "web_search"}}, {"tool_choice": "any"}, {"tool_choice": {"type": "mcp", "name": "x"}},
        {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "file_search"}]}},
        {"include": ["web_search_call.results"]}, {"include": "x"}, {"include": [1]},
        {"input": ""}, {"input": []}, {"input": 1}, {"input": [1]}, {"input": [{"role": "root", "content": "x"}]},
        {"input": [{"type": "item_reference", "id": "x"}]}, {"input": [{"type": "web_search_call"}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]}]},
        {"input": [{"type": "function_call", "url": "u"}]}, {"input": [{"type": ["message"]}]},
        item({"type": "input_image", "image_url": "https://e.example/x"}), item({"type": "input_image"}),
        item({"type": "input_image", "file_id": "f"}), item({"type": "input_file", "file_url": "https://e.example"}),
        item({"type": "input_audio"}), item("x"), item({"type": "input_text", "text": "x", "url": "u"}),
        {"max_output_tokens": 0}, {"max_output_tokens": 1.5}, {"max_output_tokens": True},
        {"stream_options": {}}, {"stream": True, "stream_options": {"include_usage": True}},
    ],
)  # fmt: skip
def test_row_30_responses_refuses_what_is_not_known(fields: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        read(RESPONSES, **fields)
    assert (refused.value.code, refused.value.status) == ("CSM-P021", 400)


@pytest.mark.parametrize("form", [MESSAGES, COUNT_TOKENS, RESPONSES])
def test_an_unknown_field_is_named(form: Format) -> None:
    with pytest.raises(Refused, match="'surprise'") as refused:
        read(form, surprise=1)
    assert "'surprise'" in refused.value.hint


def test_the_output_ceiling_is_set_and_thinking_is_fitted_under_it() -> None:
    assert sent(MESSAGES)["max_tokens"] == sent(MESSAGES, max_tokens=10**6)["max_tokens"] == 4096
    assert sent(RESPONSES)["max_output_tokens"] == sent(RESPONSES, max_output_tokens=10**6)["max_output_tokens"] == 64
    thinking = {"type": "enabled", "budget_tokens": 31999}
    assert sent(MESSAGES, max_tokens=32000, thinking=thinking)["thinking"] == {**thinking, "budget_tokens": 4095}
    assert read(MESSAGES, thinking=thinking).hidden
    assert not read(MESSAGES, thinking={"type": "disabled"}).hidden


def test_what_the_bytes_do_not_bound_is_reserved_too() -> None:
    plain = read(MESSAGES).input_tokens
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    inside = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    assert read(MESSAGES, **user(image, inside)).input_tokens > plain + 2 * IMAGE_TOKENS
    assert read(MESSAGES, tools=[{"type": "bash_20250124", "name": "bash"}]).input_tokens > plain + 2 * TOOL_TOKENS
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    assert read(RESPONSES, **item(picture)).input_tokens > IMAGE_TOKENS


@pytest.mark.parametrize(
    ("block", "rates"),
    [
        ({}, (100, 100)),
        ({"cache_control": {"type": "ephemeral"}}, (125, 130)),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, (200, 250)),
    ],
)
def test_writing_to_the_cache_is_reserved(block: dict[str, Any], rates: tuple[int, int]) -> None:
    said = '"cache_control":{ "ttl":"1h"'  # the agent's words are not the request's keys
    request = read(MESSAGES, **user({"type": "text", "text": said, **block}))
    listed = Price(input=100, output=0, cache_read=10, cache_write=130, cache_write_1h=250)
    for price, rate in zip((Price(input=100, output=0), listed), rates, strict=True):
        assert charge(request.worst, price).usd_nanos == request.input_tokens * rate


def test_a_count_reserves_a_call_and_nothing_else() -> None:
    request = read(COUNT_TOKENS, **user({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}))
    assert request.worst == Usage(input=0, output=0, complete=False)
    for field in ("max_tokens", "stream", "metadata"):
        with pytest.raises(Refused):
            read(COUNT_TOKENS, **{field: 1})


@pytest.mark.parametrize(("query", "passed"), [("beta=true", "beta=true"), ("beta=true&key=x", ""), ("key=x", "")])
def test_only_what_is_known_of_query_and_headers_goes_on(query: str, passed: str) -> None:
    request = read(MESSAGES, {"anthropic-version": "2024-01-01", "anthropic-beta": "a,b", "x-api-key": "k"}, query)
    assert request.query == passed
    assert request.headers == {"anthropic-version": "2024-01-01", "anthropic-beta": "a,b"}
    assert (read(RESPONSES, {"anthropic-beta": "a"}, query).headers, read(RESPONSES, query=query).query) == ({}, "")
    for value in ("", "a\r\nb: c", "é", "a" * 2001, "context-1m-2025-08-07", "a, context-1m-2025-08-07"):
        with pytest.raises(Refused):
            read(MESSAGES, {"anthropic-beta": value})


def test_every_provider_speaks_and_every_route_is_spoken() -> None:
    for provider, forms in SPOKEN.items():
        assert forms
        assert [route.removeprefix("POST ") for route in routes(provider)] == [
            route for form in forms for route, one in ROUTES.items() if one is form
        ]
    assert {form.name for form in ROUTES.values()} == {form.name for forms in SPOKEN.values() for form in forms}
    assert routes("unheard-of") == []

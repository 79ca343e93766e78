"""From what an agent asks to what a provider is asked: parsed, checked against an allow list, written anew. Pure.

Threats: a field that spends more than was reserved (`n`, hosted tools, `service_tier`), that keeps data at the provider
(`store`), that makes the provider fetch a URL for the agent (an egress of its own), or that two parsers read in two
ways. So there is no field here that is not known, and nothing of the agent's bytes is forwarded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from policies.canonical import Json, StrictJsonError, strict_loads
from policies.events import clean
from policies.plan import Model
from proxy.llm.types import ChatRequest, Refused

IMAGE_TOKENS = 50_000
"""An upper bound for one image at the highest detail that providers document; its bytes say nothing about it."""

OVERHEAD_TOKENS = 64

_PASSED = frozenset(
    {
        "messages",
        "temperature",
        "top_p",
        "stop",
        "seed",
        "tools",
        "tool_choice",
        "response_format",
        "presence_penalty",
        "frequency_penalty",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "user",
        "parallel_tool_calls",
        "reasoning_effort",
        "verbosity",
    }
)
_REWRITTEN = frozenset({"model", "n", "stream", "stream_options", "max_tokens", "max_completion_tokens"})
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_MESSAGE = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "reasoning_content"})


def read_chat(data: bytes, models: Mapping[str, Model]) -> ChatRequest:
    """Return the checked request; raise `Refused` (P021, P022, P028). `models` are those of the stage, by alias."""
    try:
        body = strict_loads(data)
    except StrictJsonError as error:
        raise Refused("CSM-P021", f"not JSON: {clean(str(error), 120)}", status=400, hint="send strict JSON") from error
    if not isinstance(body, dict):
        _malformed("the body is not an object")
    alias = body.get("model")
    model = models.get(alias) if isinstance(alias, str) else None
    if model is None or not isinstance(alias, str):
        name = clean(alias, 80) if isinstance(alias, str) else ""
        raise Refused(
            "CSM-P022", f"model {name!r} is not this stage's", allowed=sorted(models), hint="use an allowed alias"
        )
    _check_fields(body)
    images = _check_messages(body.get("messages"))
    _check_tools(body.get("tools"))
    stream = _flag(body, "stream")
    return _build(body, alias, model, stream=stream, wants_usage=_wants_usage(body, stream=stream), images=images)


def _build(
    body: dict[str, Json], alias: str, model: Model, *, stream: bool, wants_usage: bool, images: int
) -> ChatRequest:
    max_output = _max_output(body, model)
    sent: dict[str, Json] = {key: body[key] for key in sorted(_PASSED & body.keys())}
    sent["model"] = model.model
    sent["max_completion_tokens" if model.provider == "openai" else "max_tokens"] = max_output
    if stream:
        sent["stream"] = True
        sent["stream_options"] = {"include_usage": True}
    encoded = json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()
    return ChatRequest(
        alias=alias,
        model=model,
        body=encoded,
        stream=stream,
        wants_usage=wants_usage,
        input_tokens=input_bound(encoded, images),
        max_output=max_output,
    )


def input_bound(body: bytes, images: int) -> int:
    """Return an upper bound of a request's input tokens.

    Tokenizers in use work on bytes or fall back to them, so a token stands for at least one byte of text, and the
    JSON around each message is longer than the template tokens that a model puts around it.
    """
    return len(body) + OVERHEAD_TOKENS + images * IMAGE_TOKENS


def _max_output(body: dict[str, Json], model: Model) -> int:
    free = model.local is not None
    if model.max_output_tokens == 0 or (not free and model.price.input == 0 and model.price.output == 0):
        raise Refused("CSM-P028", "the plan has no output ceiling or no price", hint="give the model both")
    asked = [body[key] for key in ("max_tokens", "max_completion_tokens") if body.get(key) is not None]
    numbers = [number for number in asked if isinstance(number, int) and not isinstance(number, bool) and number > 0]
    if len(numbers) != len(asked):
        _malformed("max_tokens is not a positive integer")
    return min([*numbers, model.max_output_tokens])


def _check_fields(body: dict[str, Json]) -> None:
    for key in sorted(body):
        if key not in _PASSED and key not in _REWRITTEN:
            _malformed(f"field {clean(key, 60)!r} is not allowed")
    if body.get("n") not in (None, 1) or isinstance(body.get("n"), bool):
        _malformed("n must be 1: each choice costs a whole answer")


def _check_messages(messages: Json) -> int:
    """Check every message; return how many images they contain."""
    if not isinstance(messages, list) or not messages:
        _malformed("messages must be a list that is not empty")
    images = 0
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            _malformed("a message has no known role")
        if unknown := sorted(message.keys() - _MESSAGE):
            _malformed(f"message field {clean(unknown[0], 60)!r} is not allowed")
        content = message.get("content")
        if isinstance(content, list):
            images += sum(_check_part(part) for part in content)
        elif content is not None and not isinstance(content, str):
            _malformed("content is neither text nor a list of parts")
    return images


def _check_part(part: Json) -> int:
    """Check one part of a message; return 1 for an image, else 0."""
    match part:
        case {"type": "text", "text": str()} | {"type": "refusal", "refusal": str()}:
            return 0
        case {"type": "image_url", "image_url": {"url": str() as url}} if url.startswith("data:image/"):
            return 1
        case {"type": "image_url"}:
            # the provider would fetch it: an egress that no rule of the stage has allowed
            return _malformed("images must be data: URLs")
        case _:
            return _malformed("a content part is neither text nor an image")


def _check_tools(tools: Json) -> None:
    if tools is None:
        return
    if not isinstance(tools, list) or not all(isinstance(t, dict) and t.get("type") == "function" for t in tools):
        # hosted tools (search, code, remote MCP) run at the provider, with an egress and a price of their own
        _malformed("only tools of type function are allowed")


def _flag(body: dict[str, Json], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        _malformed(f"{key} is neither true nor false")
    return value is True


def _wants_usage(body: dict[str, Json], *, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream or not isinstance(options, dict) or options.keys() - {"include_usage", "include_obfuscation"}:
        _malformed("stream_options has an unknown field, or no stream")
    return _flag(options, "include_usage")


def _malformed(reason: str) -> NoReturn:
    raise Refused("CSM-P021", reason, status=400, hint=f"{reason}; see the chat completions that this door allows")

"""OpenAI Chat Completions. Pure."""

from __future__ import annotations

from policies.canonical import Json
from policies.plan import Model
from proxy.llm.formats.base import (
    Draft,
    Format,
    Object,
    Said,
    flag,
    inline_image,
    known,
    malformed,
    max_output,
    openai_error,
    text_bytes,
    usage_of,
    word,
)
from proxy.llm.types import Usage

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


def read(body: Object, model: Model) -> Draft:
    """Return the checked request; raise `Refused` (P021, P028)."""
    known(body, _PASSED | _REWRITTEN, "field")
    if body.get("n") not in (None, 1) or isinstance(body.get("n"), bool):
        malformed("n must be 1: each choice costs a whole answer")
    images = _check_messages(body.get("messages"))
    _check_tools(body.get("tools"))
    stream = flag(body, "stream")
    wants_usage = _wants_usage(body, stream=stream)
    ceiling = max_output(body, model, "max_tokens", "max_completion_tokens")
    sent: Object = {key: body[key] for key in sorted(_PASSED & body.keys())}
    sent["max_completion_tokens" if model.provider == "openai" else "max_tokens"] = ceiling
    if stream:
        sent["stream"] = True
        sent["stream_options"] = {"include_usage": True}
    return Draft(
        sent=sent,
        stream=stream,
        max_output=ceiling,
        wants_usage=wants_usage,
        extra_tokens=images,
        # reasoning is billed and not shown: by whoever was asked for it, and by a provider that may do so unasked
        hidden=model.provider == "openai" or sent.get("reasoning_effort") is not None,
    )


def _check_messages(messages: Json) -> int:
    """Check every message; return the tokens of the images in them."""
    if not isinstance(messages, list) or not messages:
        malformed("messages must be a list that is not empty")
    images = 0
    for message in messages:
        if not isinstance(message, dict) or not word(message.get("role"), _ROLES):
            malformed("a message has no known role")
        known(message, _MESSAGE, "message field")
        content = message.get("content")
        if isinstance(content, list):
            images += sum(_check_part(part) for part in content)
        elif content is not None and not isinstance(content, str):
            malformed("content is neither text nor a list of parts")
    return images


def _check_part(part: Json) -> int:
    """Check one part of a message; return the tokens of an image, else 0."""
    match part:
        case {"type": "text", "text": str()} | {"type": "refusal", "refusal": str()}:
            return 0
        case {"type": "image_url", "image_url": {"url": url}}:
            return inline_image(url)
        case _:
            return malformed("a content part is neither text nor an image")


def _check_tools(tools: Json) -> None:
    if tools is None:
        return
    if not isinstance(tools, list) or not all(isinstance(t, dict) and t.get("type") == "function" for t in tools):
        # hosted tools (search, code, remote MCP) run at the provider, with an egress and a price of their own
        malformed("only tools of type function are allowed")


def _wants_usage(body: Object, *, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream or not isinstance(options, dict) or options.keys() - {"include_usage", "include_obfuscation"}:
        malformed("stream_options has an unknown field, or no stream")
    return flag(options, "include_usage")


def _usage(body: Object) -> Usage | None:
    return usage_of(body.get("usage"), "prompt_tokens", "completion_tokens")


def _written(choices: list[Json]) -> int:
    return text_bytes([c.get("delta", c.get("message")) for c in choices if isinstance(c, dict)])


def answer(body: Object) -> Said | None:
    """Read a whole answer; None where it is none."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    return Said(names=True, model=body.get("model"), usage=_usage(body), output_bytes=_written(choices))


def event(body: Object, so_far: Usage | None) -> Said:
    """Read one event; the stream ends with `[DONE]`. A chunk without choices is the usage that we asked for."""
    choices = body.get("choices")
    return Said(
        names=True,
        model=body.get("model"),
        usage=_usage(body) or so_far,
        output_bytes=_written(choices) if isinstance(choices, list) else 0,
        passes=bool(choices),
        failed=body.get("error", "an error") if "error" in body else None,
    )


CHAT = Format(
    name="chat completions",
    operation="chat",
    path="/chat/completions",
    read=read,
    answer=answer,
    event=event,
    error=openai_error,
    named=False,
)

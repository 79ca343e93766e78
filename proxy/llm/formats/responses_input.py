"""OpenAI Responses: what an agent may ask. Pure.

`store` is forced to false, so nothing that names something stored has a meaning; hosted tools run at the provider, with
an egress and a price of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from policies.canonical import Json
from policies.events import clean
from policies.plan import Model
from proxy.llm.formats.base import Draft, Object, flag, inline_image, known, malformed, max_output, only, word

_PASSED = frozenset(
    {"input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "include",
     "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "text", "temperature", "top_p", "top_logprobs",
     "truncation", "metadata", "user", "stream_options"}
)  # fmt: skip
_DROPPED = frozenset({"store", "service_tier", "client_metadata", "background", "previous_response_id", "conversation"})
_REWRITTEN = frozenset({"model", "max_output_tokens", "stream"})
_INCLUDED = frozenset({"reasoning.encrypted_content", "message.output_text.logprobs"})
_TOOLS: Mapping[str, frozenset[str]] = {
    "function": frozenset({"name", "description", "parameters", "strict"}),
    "custom": frozenset({"name", "description", "format"}),
    "namespace": frozenset({"name", "description", "tools"}),  # a folder of the other two
}
_CALL = frozenset({"id", "call_id", "name", "namespace", "status"})
_ITEMS: Mapping[str, frozenset[str]] = {
    "message": frozenset({"role", "content", "id", "status", "phase", "end_turn"}),
    "function_call": _CALL | {"arguments"},
    "function_call_output": _CALL | {"output"},
    "custom_tool_call": _CALL | {"input"},
    "custom_tool_call_output": _CALL | {"output"},
    "reasoning": frozenset({"id", "summary", "content", "encrypted_content", "status"}),
}
_PARTS: Mapping[str, frozenset[str]] = {
    "input_text": frozenset({"text"}),
    "output_text": frozenset({"text", "annotations", "logprobs"}),
    "refusal": frozenset({"refusal"}),
    "summary_text": frozenset({"text"}),
    "reasoning_text": frozenset({"text"}),
    "text": frozenset({"text"}),
    "input_image": frozenset({"image_url", "detail"}),
}
_ROLES = frozenset({"user", "assistant", "system", "developer"})


def read(body: Object, model: Model) -> Draft:
    """Return the checked request; raise `Refused` (P021, P028)."""
    known(body, _PASSED | _DROPPED | _REWRITTEN, "field")
    flag(body, "store")  # whatever it says, it is sent as false
    only(body, "background", False)
    only(body, "previous_response_id")
    only(body, "conversation")
    only(body, "service_tier", "auto", "default")
    only(body, "prompt_cache_retention", "in-memory", "in_memory")
    images = _check_input(body.get("input"))
    _check_tools(body.get("tools"))
    _check_choice(body.get("tool_choice"))
    _check_include(body.get("include"))
    stream = flag(body, "stream")
    options = body.get("stream_options")
    if options is not None and (
        not stream or not isinstance(options, dict) or options.keys() - {"include_obfuscation"}
    ):
        malformed("stream_options has an unknown field, or no stream")
    ceiling = max_output(body, model, "max_output_tokens")
    sent: Object = {key: body[key] for key in sorted(_PASSED & body.keys())}
    sent["max_output_tokens"] = ceiling
    sent["store"] = False
    if stream:
        sent["stream"] = True
    return Draft(sent=sent, stream=stream, max_output=ceiling, extra_tokens=images, hidden=True)


def _check_input(items: Json) -> int:
    """Check every item of the input; return the tokens of the images in it."""
    if isinstance(items, str) and items:
        return 0
    if not isinstance(items, list) or not items:
        malformed("input must be text or a list, and not empty")
    return sum(_check_item(item) for item in items)


def _check_item(item: Json) -> int:
    kind = item.get("type", "message") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(kind, str) or kind not in _ITEMS:
        malformed(f"an input item is not one of {', '.join(_ITEMS)}")
    known(item, _ITEMS[kind] | {"type"}, f"{kind} field")
    if kind == "message" and not word(item.get("role"), _ROLES):
        malformed("a message has no known role")
    return sum(_check_content(item.get(key)) for key in ("content", "output", "summary"))


def _check_content(content: Json) -> int:
    if content is None or isinstance(content, str):
        return 0
    if not isinstance(content, list):
        malformed("content is neither text nor a list of parts")
    return sum(_check_part(part) for part in content)


def _check_part(part: Json) -> int:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str) or kind not in _PARTS:
        malformed(f"a content part is not one of {', '.join(_PARTS)}")  # files and audio: no bound, or a fetch
    known(part, _PARTS[kind] | {"type"}, f"{kind} field")
    return inline_image(part.get("image_url")) if kind == "input_image" else 0


def _check_tools(tools: Json, kinds: frozenset[str] = frozenset(_TOOLS)) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        malformed("tools is not a list")
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(tool, dict) or not isinstance(kind, str) or kind not in kinds:
            named = clean(kind, 60) if isinstance(kind, str) else "none"
            malformed(f"tool type {named!r}: only function and custom are allowed, which run in the cell")
        known(tool, _TOOLS[kind] | {"type"}, "tool field")
        if kind == "namespace":
            _check_tools(tool.get("tools", "none"), kinds - {"namespace"})


def _check_choice(choice: Json) -> None:
    match choice:
        case None | "none" | "auto" | "required":
            return
        case {"type": ("function" | "custom"), "name": str(), **rest} if not rest:
            return
        case {"type": "allowed_tools", "mode": ("auto" | "required"), "tools": list() as tools, **rest} if not rest:
            for tool in tools:
                _check_choice(tool)
        case _:
            malformed("tool_choice names something else than the request's own tools")


def _check_include(include: Json) -> None:
    if include is None:
        return
    if not isinstance(include, list) or not all(isinstance(one, str) and one in _INCLUDED for one in include):
        malformed(f"include is not a list of {', '.join(sorted(_INCLUDED))}")

"""Anthropic Messages: what an agent may ask. Pure.

What runs at the provider (search, code, remote MCP, containers, compaction) has an egress or a price of its own, and
what it would fetch or keep (URLs, files) is an egress that no rule of the stage has allowed: all of it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from policies.canonical import Json
from policies.plan import Model
from proxy.llm.formats.base import IMAGE_TOKENS, Draft, Object, flag, known, malformed, max_output, only, word

TOOL_TOKENS = 1024
"""An upper bound of what the provider adds to the input for tools, and for each tool that it has defined itself."""

MIN_THINKING = 1024

_COUNTED = frozenset(
    {"messages", "system", "tools", "tool_choice", "thinking", "context_management", "output_config", "output_format",
     "cache_control"}
)  # fmt: skip
_PASSED = _COUNTED | {"metadata", "stop_sequences", "temperature", "top_p", "top_k"}
_DROPPED = frozenset({"mcp_servers", "container", "service_tier"})
_REWRITTEN = frozenset({"model", "max_tokens", "stream"})
_MESSAGE = frozenset({"role", "content"})
_CLIENT_TOOL = re.compile(r"(?:bash|text_editor|memory|computer)_\d{8}")
_TOOL = frozenset(
    {"type", "name", "description", "input_schema", "cache_control", "strict", "defer_loading", "allowed_callers",
     "input_examples", "eager_input_streaming", "max_characters", "display_width_px", "display_height_px",
     "display_number", "enable_zoom"}
)  # fmt: skip
_BLOCKS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"text", "citations"}),
    "image": frozenset({"source"}),
    "document": frozenset({"source", "title", "context", "citations"}),
    "search_result": frozenset({"source", "title", "content", "citations"}),
    "tool_use": frozenset({"id", "name", "input", "caller"}),
    "tool_result": frozenset({"tool_use_id", "content", "is_error"}),
    "tool_reference": frozenset({"tool_name"}),
    "thinking": frozenset({"thinking", "signature"}),
    "redacted_thinking": frozenset({"data"}),
}
_COMMON = frozenset({"type", "cache_control"})
_EDITS = frozenset({"clear_tool_uses_20250919", "clear_thinking_20251015"})


def read(body: Object, model: Model) -> Draft:
    """Return the checked request; raise `Refused` (P021, P028)."""
    known(body, _PASSED | _DROPPED | _REWRITTEN, "field")
    extra = _check(body)
    only(body, "service_tier", "auto", "standard_only")
    if isinstance(metadata := body.get("metadata"), dict):
        known(metadata, frozenset({"user_id"}), "metadata field")
    ceiling = max_output(body, model, "max_tokens")
    stream = flag(body, "stream")
    sent: Object = {key: body[key] for key in sorted(_PASSED & body.keys())}
    hidden = _fit_thinking(sent, ceiling)
    sent["max_tokens"] = ceiling
    if stream:
        sent["stream"] = True
    return Draft(sent=sent, stream=stream, max_output=ceiling, extra_tokens=extra, hidden=hidden)


def read_count(body: Object, model: Model) -> Draft:
    """Return the checked question for a count, which costs no token; raise `Refused` (P021)."""
    del model
    known(body, _COUNTED | _DROPPED | {"model"}, "field")
    _check(body)
    sent: Object = {key: body[key] for key in sorted(_COUNTED & body.keys())}
    return Draft(sent=sent, stream=False, max_output=0)


def _check(body: Object) -> int:
    """Check what both questions have; return the tokens of input that its bytes do not bound."""
    only(body, "mcp_servers", [])
    only(body, "container")
    extra = _check_tools(body.get("tools"))
    extra += _check_content(body["system"], _system) if body.get("system") is not None else 0
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        malformed("messages must be a list that is not empty")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant", "system"):
            malformed("a message has no known role")
        known(message, _MESSAGE, "message field")
        extra += _check_content(message.get("content"), _BLOCKS)
    _check_context(body.get("context_management"))
    config = body.get("output_config")
    if config is not None:
        if not isinstance(config, dict):
            malformed("output_config is not an object")
        known(config, frozenset({"effort", "format", "task_budget"}), "output_config field")
    return extra


_system = {"text": _BLOCKS["text"]}


def _check_content(content: Json, blocks: Mapping[str, frozenset[str]]) -> int:
    if isinstance(content, str):
        return 0
    if not isinstance(content, list):
        malformed("content is neither text nor a list of blocks")
    return sum(_check_block(block, blocks) for block in content)


def _check_block(block: Json, blocks: Mapping[str, frozenset[str]]) -> int:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(block, dict) or not isinstance(kind, str) or kind not in blocks:
        malformed(f"a content block is not one of {', '.join(blocks)}")
    known(block, blocks[kind] | _COMMON, f"{kind} field")
    match kind:
        case "image":
            return _check_image(block.get("source"))
        case "document":
            return _check_document(block.get("source"))
        case "tool_result" | "search_result" if block.get("content") is not None:
            return _check_content(block["content"], _BLOCKS)
        case _:
            return 0


def _check_image(source: Json) -> int:
    match source:
        case {"type": "base64", "media_type": str(), "data": str()}:
            return IMAGE_TOKENS
        case _:
            return malformed("the source of an image must be base64: a url or a file is fetched by the provider")


def _check_document(source: Json) -> int:
    match source:
        case {"type": "text", "data": str()}:
            return 0
        case {"type": "content", "content": content}:
            return _check_content(content, _BLOCKS)
        case _:
            # a PDF's tokens are not bounded by its bytes, so they could not be reserved
            return malformed("the source of a document must be text or content, neither url, file nor PDF")


def _check_tools(tools: Json) -> int:
    if tools is None:
        return 0
    if not isinstance(tools, list):
        malformed("tools is not a list")
    extra = TOOL_TOKENS
    for tool in tools:
        kind = tool.get("type", "custom") if isinstance(tool, dict) else ""
        if not isinstance(tool, dict) or (kind is not None and not isinstance(kind, str)):
            malformed("a tool is not an object with a type")
        if kind not in (None, "custom"):
            if not _CLIENT_TOOL.fullmatch(kind):
                malformed(f"tool type {kind[:60]!r} runs at the provider: an egress or a price of its own")
            extra += TOOL_TOKENS
        known(tool, _TOOL, "tool field")
        only(tool, "allowed_callers", ["direct"])
    return extra


def _check_context(context: Json) -> None:
    if context is None:
        return
    edits = context.get("edits", []) if isinstance(context, dict) else None
    if not isinstance(context, dict) or context.keys() - {"edits"} or not isinstance(edits, list):
        malformed("context_management is not an object with edits")
    for edit in edits:
        if not isinstance(edit, dict) or not word(edit.get("type"), _EDITS):
            malformed("a context_management edit is not one that only takes away")  # compaction is a second answer


def _fit_thinking(sent: Object, ceiling: int) -> bool:
    """Fit the thinking budget under the output ceiling; return whether there is thinking that may not be shown."""
    thinking = sent.get("thinking")
    if thinking is None:
        return False
    if not isinstance(thinking, dict):
        malformed("thinking is not an object")
    known(thinking, frozenset({"type", "budget_tokens", "display"}), "thinking field")
    budget = thinking.get("budget_tokens")
    if isinstance(budget, int) and budget >= ceiling:
        if ceiling <= MIN_THINKING:
            malformed(f"an output ceiling of {ceiling} tokens leaves no room for thinking")
        sent["thinking"] = {**thinking, "budget_tokens": ceiling - 1}
    return thinking.get("type") != "disabled"

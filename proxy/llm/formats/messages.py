"""Anthropic Messages, and count_tokens. Pure.

Usage comes in pieces: the input with `message_start`, the output, cumulative, with `message_delta`. Tokens written to
or read from the cache are not among `input_tokens`; writing costs a quarter more than input, or as much again where it
is for an hour.
"""

from __future__ import annotations

from policies.canonical import Json
from proxy.llm.formats.base import Format, Object, Said, count, text_bytes
from proxy.llm.formats.messages_input import read, read_count
from proxy.llm.types import Usage

_NOT_WRITTEN = frozenset({"role", "id", "type", "name", "tool_use_id", "caller", "index"})
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
HEADERS = {"anthropic-version": "2023-06-01", "anthropic-beta": None}


def beta_query(query: str) -> str:
    """The one query that goes on, and then only alone."""
    return query if query == "beta=true" else ""


def usage(said: Json, so_far: Usage | None) -> Usage | None:
    """Return the usage so far; a piece never makes it less, and None is not a count."""
    fields = said if isinstance(said, dict) else {}
    fresh, made = count(fields.get("input_tokens")), count(fields.get("output_tokens"))
    if so_far is None and (fresh is None or made is None):
        return None
    before = so_far or Usage(input=0, output=0, complete=True)
    written, read_back = (count(fields.get(f"cache_{what}_input_tokens")) or 0 for what in ("creation", "read"))
    brief = min(_brief(fields.get("cache_creation")), written)
    most = max(before.input, (fresh or 0) + written + read_back)
    written_5m, written_1h = max(before.written, brief), max(before.written_1h, written - brief)
    return Usage(
        input=most,
        output=max(before.output, made or 0),
        complete=True,
        # a discount, so it is never more than what is left
        cached=max(0, min(max(before.cached, read_back), most - written_5m - written_1h)),
        written=min(written_5m, most - written_1h),
        written_1h=written_1h,
    )


def _brief(kinds: Json) -> int:
    """Return how much was written to be kept for minutes; what no kind is named for counts as the dearest."""
    fields = kinds if isinstance(kinds, dict) else {}
    return count(fields.get("ephemeral_5m_input_tokens")) or 0


def answer(body: Object) -> Said | None:
    """Read a whole answer; None where it is none."""
    content = body.get("content")
    if body.get("type") != "message" or not isinstance(content, list):
        return None
    written = text_bytes(content, _NOT_WRITTEN)
    return Said(names=True, model=body.get("model"), usage=usage(body.get("usage"), None), output_bytes=written)


def event(body: Object, so_far: Usage | None) -> Said:
    """Read one event of a stream."""
    match body:
        case {"type": "message_start", "message": dict() as message}:
            return Said(names=True, model=message.get("model"), usage=usage(message.get("usage"), so_far))
        case {"type": "content_block_start", "content_block": block}:
            return Said(usage=so_far, output_bytes=text_bytes(block, _NOT_WRITTEN))
        case {"type": "content_block_delta", "delta": {"type": "citations_delta"}}:
            return Said(usage=so_far)  # the input's words, not the model's
        case {"type": "content_block_delta", "delta": delta}:
            return Said(usage=so_far, output_bytes=text_bytes(delta, _NOT_WRITTEN))
        case {"type": "message_delta"}:
            return Said(usage=usage(body.get("usage"), so_far))
        case {"type": "message_stop"}:
            return Said(usage=so_far, ended=True)
        case {"type": "error"}:
            return Said(usage=so_far, failed=body.get("error") or "an error")
        case _:
            return Said(usage=so_far, output_bytes=text_bytes(body, _NOT_WRITTEN) if body.get("type") != "ping" else 0)


def answer_count(body: Object) -> Said | None:
    """Read a count: it costs nothing, and names no model."""
    if count(body.get("input_tokens")) is None:
        return None
    return Said(usage=Usage(input=0, output=0, complete=True))


def error(body: dict[str, object], status: int) -> dict[str, object]:
    """Put our fields where Anthropic's clients look for an error."""
    ours = body["error"]
    fields = ours if isinstance(ours, dict) else {}
    return {"type": "error", "error": {"type": _ERRORS.get(status, "api_error"), **fields}}


MESSAGES = Format(
    name="messages",
    operation="chat",
    path="/messages",
    read=read,
    answer=answer,
    event=event,
    error=error,
    headers=HEADERS,
    query=beta_query,
)
COUNT_TOKENS = Format(
    name="count_tokens",
    operation="count_tokens",
    path="/messages/count_tokens",
    read=read_count,
    answer=answer_count,
    event=event,
    error=error,
    headers=HEADERS,
    query=beta_query,
    free=True,
)

"""OpenAI Responses. Pure.

The text of an answer comes as deltas; every later event repeats it, so only deltas are counted. Usage comes with the
end.
"""

from __future__ import annotations

from policies.canonical import Json
from proxy.llm.formats.base import Format, Object, Said, openai_error, text_bytes, usage_of
from proxy.llm.formats.responses_input import read
from proxy.llm.types import Usage

_NOT_WRITTEN = frozenset({"role", "id", "type", "call_id", "name", "status", "item_id"})


def answer(body: Object) -> Said | None:
    """Read a whole answer; None where it is none."""
    output = body.get("output")
    if body.get("object") != "response" or not isinstance(output, list):
        return None
    return Said(
        names=True,
        model=body.get("model"),
        usage=_usage(body),
        output_bytes=text_bytes(output, _NOT_WRITTEN),
        failed=(body.get("error") or "an error") if body.get("status") == "failed" else None,
    )


def event(body: Object, so_far: Usage | None) -> Said:
    """Read one event of a stream."""
    match body:
        case {"type": "response.failed", "response": dict() as response}:
            return Said(usage=_usage(response) or so_far, failed=response.get("error") or "an error")
        case {"type": "error"}:
            return Said(usage=so_far, failed=body)
        case {"type": str() as kind, "response": dict() as response}:
            ended = kind in ("response.completed", "response.incomplete")
            return Said(names=True, model=response.get("model"), usage=_usage(response) or so_far, ended=ended)
        case {"type": str() as kind, "delta": delta} if kind.endswith(".delta"):
            return Said(usage=so_far, output_bytes=text_bytes(delta))
        case _:
            return Said(usage=so_far)


def _usage(response: dict[str, Json]) -> Usage | None:
    return usage_of(response.get("usage"), "input_tokens", "output_tokens")


RESPONSES = Format(
    name="responses",
    operation="chat",
    path="/responses",
    read=read,
    answer=answer,
    event=event,
    error=openai_error,
)

"""Gemini generateContent, streamGenerateContent (as server-sent events), and countTokens. Pure.

The alias stands in the path of the door, and the plan's model in that of the provider. Usage comes with every event and
is cumulative; cached tokens are inside the prompt's; thoughts are billed as output, shown or not. A stream has no event
that ends it: it may end once a candidate has a reason to.
"""

from __future__ import annotations

from dataclasses import replace

from policies.canonical import Json
from policies.plan import Model
from proxy.llm.formats.base import Draft, Format, Object, Said, count, malformed, text_bytes
from proxy.llm.formats.gemini_input import read, read_count
from proxy.llm.types import Usage

_NOT_WRITTEN = frozenset({"role", "id", "name", "thoughtSignature"})
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def read_stream(body: Object, model: Model) -> Draft:
    """Return the checked request for a stream; raise `Refused` (P021, P028)."""
    return replace(read(body, model), stream=True)


def sse_query(query: str) -> str:
    """Return the provider's query; raise `Refused` (P021) for the other form of a stream, one array of JSON."""
    if "alt=sse" not in query.split("&"):
        malformed("a stream must be asked for with ?alt=sse; as one JSON array it cannot be judged as it passes")
    return "alt=sse"


def usage(said: Json, so_far: Usage | None) -> Usage | None:
    """Return the usage so far; an event never makes it less, and what is in the total only is output."""
    fields = said if isinstance(said, dict) else {}
    given = count(fields.get("promptTokenCount"))
    if given is None:
        return so_far
    total, shown, thought, tools = (
        count(fields.get(f"{what}TokenCount")) for what in ("total", "candidates", "thoughts", "toolUsePrompt")
    )
    if total is None and shown is None:
        return so_far
    tokens_in = given + (tools or 0)
    tokens_out = max((shown or 0) + (thought or 0), (total or 0) - tokens_in)
    before = so_far or Usage(input=0, output=0, complete=True)
    most = max(before.input, tokens_in)
    cached = min(count(fields.get("cachedContentTokenCount")) or 0, given)
    return Usage(input=most, output=max(before.output, tokens_out), complete=True, cached=cached)


def _candidates(body: Object) -> list[Object]:
    candidates = body.get("candidates")
    return [one for one in candidates if isinstance(one, dict)] if isinstance(candidates, list) else []


def _written(body: Object) -> int:
    return text_bytes([candidate.get("content") for candidate in _candidates(body)], _NOT_WRITTEN)


def answer(body: Object) -> Said | None:
    """Read a whole answer; None where it is none. A prompt that was blocked has no candidate, and is an answer."""
    if not _candidates(body) and not isinstance(body.get("promptFeedback"), dict):
        return None
    said = usage(body.get("usageMetadata"), None)
    return Said(names=True, model=body.get("modelVersion"), usage=said, output_bytes=_written(body))


def event(body: Object, so_far: Usage | None) -> Said:
    """Read one event of a stream."""
    return Said(
        names="modelVersion" in body,
        model=body.get("modelVersion"),
        usage=usage(body.get("usageMetadata"), so_far),
        output_bytes=_written(body),
        may_end=any(one.get("finishReason") for one in _candidates(body)) or "promptFeedback" in body,
        failed=(body["error"] or "an error") if "error" in body else None,
    )


def answer_count(body: Object) -> Said | None:
    """Read a count: it costs nothing, and names no model."""
    if count(body.get("totalTokens")) is None:
        return None
    return Said(usage=Usage(input=0, output=0, complete=True))


def error(body: dict[str, object], status: int) -> dict[str, object]:
    """Put our fields where Google's clients look: `code` is a number there, so ours is the `reason`."""
    ours = body["error"]
    fields = ours if isinstance(ours, dict) else {}
    reason = fields.get("code", "")
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "casemate"}
    return {
        "error": {
            **fields,
            "code": status,
            "status": _STATUS.get(status, "UNAVAILABLE" if status >= 500 else "FAILED_PRECONDITION"),
            "message": f"{reason}: {fields.get('message', '')}: {fields.get('hint', '')}",
            "reason": reason,
            "details": [detail],
        }
    }


GENERATE = Format(
    name="generateContent",
    operation="generate_content",
    path="/models/{model}:generateContent",
    read=read,
    answer=answer,
    event=event,
    error=error,
    named=False,
)
STREAM = Format(
    name="streamGenerateContent",
    operation="generate_content",
    path="/models/{model}:streamGenerateContent",
    read=read_stream,
    answer=answer,
    event=event,
    error=error,
    query=sse_query,
    named=False,
)
COUNT = Format(
    name="countTokens",
    operation="count_tokens",
    path="/models/{model}:countTokens",
    read=read_count,
    answer=answer_count,
    event=event,
    error=error,
    named=False,
    free=True,
)

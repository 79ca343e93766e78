"""What a provider answers, judged: its model, its usage, its errors. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from policies.canonical import Json, StrictJsonError, strict_loads
from policies.events import clean
from proxy.llm.types import Refused, Usage

REDACTED = b"[redacted]"
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer that was judged. `usage` is None where the provider gave none."""

    body: bytes
    model: str
    usage: Usage | None
    output_bytes: int


def redact(data: bytes, key: str | None) -> bytes:
    """Return `data` without the provider's key. Threat: a provider, or its error page, that echoes it to the agent."""
    if not key:
        return data
    return data.replace(key.encode(), REDACTED)


def same_model(answered: object, configured: str) -> bool:
    """Whether a provider answered as the configured model, or as a dated release of it."""
    if not isinstance(answered, str):
        return False
    return answered == configured or bool(
        answered.startswith(configured) and _DATED.fullmatch(answered[len(configured) :])
    )


def other_model(answered: object) -> Refused:
    """Return the refusal of an answer by another model than the plan's: another price, another lineage."""
    name = clean(answered, 80) if isinstance(answered, str) else "no name"
    return Refused("CSM-P026", f"the provider answered as {name}", status=502, hint="the plan names another model")


def error_text(data: bytes, key: str | None) -> str:
    """Return the beginning of a provider's error page, its key taken out before anything is cut off."""
    return clean(redact(data, key).decode("utf-8", "replace"), 300)


def read_answer(data: bytes, configured: str) -> Answer:
    """Judge a whole answer; raise `Refused` (P026, P029)."""
    body = read_object(data)
    if not same_model(body.get("model"), configured):
        raise other_model(body.get("model"))
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _unusable("no choices")
    return Answer(body=data, model=str(body["model"]), usage=usage_of(body), output_bytes=text_bytes(choices))


def read_object(data: bytes) -> dict[str, Json]:
    """Return a provider's JSON object; raise `Refused` (P029)."""
    try:
        body = strict_loads(data)
    except StrictJsonError as error:
        raise _unusable("not JSON") from error
    if not isinstance(body, dict):
        raise _unusable("not an object")
    return body


def usage_of(body: dict[str, Json]) -> Usage | None:
    """Return the provider's count of tokens, if it gave one that can be believed to be a count."""
    match body.get("usage"):
        case {"prompt_tokens": int() as given, "completion_tokens": int() as made} if given >= 0 and made >= 0:
            return Usage(input=min(given, 2**40), output=min(made, 2**40), complete=True)
        case _:
            return None


def text_bytes(choices: list[Json]) -> int:
    """Return how many bytes a model wrote, in whatever field: text, refusal, reasoning, tool calls."""
    total, stack = 0, [c.get("delta", c.get("message")) for c in choices if isinstance(c, dict)]
    while stack:
        match stack.pop():
            case str() as text:
                total += len(text.encode("utf-8", "replace"))
            case dict() as fields:
                stack.extend(value for name, value in fields.items() if name not in ("role", "id", "type"))
            case list() as items:
                stack.extend(items)
            case _:
                pass
    return total


def _unusable(reason: str) -> Refused:
    return Refused("CSM-P029", f"the provider's answer: {reason}", status=502, hint="try again later")

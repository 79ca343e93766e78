"""What a provider answers, judged: its model, its usage, its errors. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from policies.canonical import Json, StrictJsonError, strict_loads
from policies.events import clean
from policies.plan import Model
from proxy.llm.charges import counted
from proxy.llm.formats.base import Format
from proxy.llm.types import LlmRequest, Refused, Usage

REDACTED = b"[redacted]"
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|\d{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer that was judged. `usage` is counted here where the provider gave none."""

    body: bytes
    model: str | None
    usage: Usage


def redact(data: bytes, key: str | None) -> bytes:
    """Return `data` without the provider's key. Threat: a provider, or its error page, that echoes it to the agent."""
    if not key:
        return data
    return data.replace(key.encode(), REDACTED)


def same_model(answered: object, planned: Model) -> bool:
    """Whether a provider answered as the planned model: by its name, one that the registry has for it, or a dated
    release of it."""
    if not isinstance(answered, str):
        return False
    return any(
        answered == name or (answered.startswith(name) and _DATED.fullmatch(answered[len(name) :]) is not None)
        for name in (planned.model, *planned.names)
    )


def other_model(answered: object, planned: Model) -> Refused:
    """Return the refusal of an answer by another model than the plan's: another price, another lineage.

    Both names go into the event; the agent is told neither.
    """
    name = clean(answered, 80) if isinstance(answered, str) else "no name"
    reason = f"the provider answered as {name}, not as {planned.model}"
    return Refused("CSM-P026", reason, status=502, hint="the plan names another model", names=(planned.model, name))


def error_text(data: bytes, key: str | None) -> str:
    """Return the beginning of a provider's error page, its key taken out before anything is cut off."""
    return clean(redact(data, key).decode("utf-8", "replace"), 300)


def failed(error: Json, key: str | None) -> Refused:
    """Return the refusal of an answer that a provider gave up, with its words."""
    text = error_text(json.dumps(error, ensure_ascii=False).encode("utf-8", "replace"), key)
    return Refused("CSM-P025", "the provider failed during the answer", status=502, hint=f"the provider said: {text}")


def read_answer(data: bytes, request: LlmRequest, form: Format, key: str | None) -> Answer:
    """Judge a whole answer; raise `Refused` (P025, P026, P029)."""
    said = form.answer(body := read_object(data))
    named = body.get("modelVersion", body.get("model"))  # what is no answer may still name who gave it
    if said is None and not same_model(named, request.model) and not form.free:
        raise other_model(named, request.model)
    if said is None:
        raise _unusable("no answer in it")
    if said.failed is not None:
        raise failed(said.failed, key)
    if said.names and not same_model(said.model, request.model):
        raise other_model(said.model, request.model)
    usage = said.usage or counted(request.worst, said.output_bytes, hidden=request.hidden)
    return Answer(body=redact(data, key), model=str(said.model) if said.names else None, usage=usage)


def read_object(data: bytes) -> dict[str, Json]:
    """Return a provider's JSON object; raise `Refused` (P029)."""
    try:
        body = strict_loads(data)
    except StrictJsonError as error:
        raise _unusable("not JSON") from error
    if not isinstance(body, dict):
        raise _unusable("not an object")
    return body


def _unusable(reason: str) -> Refused:
    return Refused("CSM-P029", f"the provider's answer: {reason}", status=502, hint="try again later")

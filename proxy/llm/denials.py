"""What an agent is told when it is refused: the one shape of every door, as each format's clients read it. Pure."""

from __future__ import annotations

import json

from policies.errors import denial
from policies.events import clean
from policies.vocabulary import Verdict
from proxy.llm.formats.base import Format
from proxy.llm.types import Refused


def shape(refused: Refused, form: Format | None = None, denied: str = "llm", **more: str) -> dict[str, object]:
    """Return the JSON of a refusal."""
    hint = clean(refused.hint or refused.reason)
    body = denial(refused.code, denied, hint=hint, allowed=refused.allowed, **refused.more, **more)
    try:
        return form.error(body, refused.status) if form is not None else body
    except Exception:  # noqa: BLE001 - a refusal that cannot be put in a client's words is still one
        return body


def cut(refused: Refused, form: Format) -> bytes:
    """Return the last event of a stream that was cut."""
    body = shape(refused, form, verdict=Verdict.DENY.value)
    head = b"event: error\n" if form.named else b""
    return head + b"data: " + json.dumps({"type": "error", **body} if form.named else body).encode() + b"\n\n"

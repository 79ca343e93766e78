"""What a tool's result may carry to an agent: bounded, without hidden characters, without our own secrets. Pure.

Nothing is fetched: a link stays a link. What was taken out is counted, so that a reviewer sees that there was some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.schema import Schema
from policies.canonical import Json, canonical

MAX_RESULT = 256 * 1024
"""Bytes of a result, all its parts together."""
REDACTED = "[redacted]"
_HIDDEN = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    r"|[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
_FIELDS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"text"}),
    "image": frozenset({"data", "mimeType"}),
    "audio": frozenset({"data", "mimeType"}),
    "resource_link": frozenset({"uri", "name", "title", "description", "mimeType", "size"}),
    "resource": frozenset({"resource"}),
}


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The result as the agent gets it, and what was done to it: characters taken out, secrets blanked, parts cut."""

    result: dict[str, Any]
    hidden: int
    secrets: int
    cut: bool

    @property
    def touched(self) -> bool:
        """Whether the agent gets something else than what the server said."""
        return bool(self.hidden or self.secrets or self.cut)


class Unusable(Exception):  # noqa: N818 - the word for it
    """The result is none; `reason` holds nothing of it."""


def clean(result: Mapping[str, Json], output: Schema | None, secrets: Sequence[str] = ()) -> Cleaned:
    """Return what may go on; raise `Unusable` for a result of another shape, or that breaks its own schema."""
    content = result.get("content", [])
    if not isinstance(content, list):
        raise Unusable("its content is no list")
    washer = _Washer(secrets)
    structured = result.get("structuredContent")
    if output is not None and result.get("isError") is not True:
        if not isinstance(structured, dict) or output.problems(structured):
            raise Unusable("its structured content does not fit its schema")
    elif structured is not None and not isinstance(structured, dict):
        raise Unusable("its structured content is no object")
    parts: list[Any] = []
    left = MAX_RESULT
    cut = False
    for part in content:
        washed = washer.wash(_known(part))
        size = len(canonical(washed))
        if size > left:
            cut = True
            if isinstance(washed, dict) and washed.get("type") == "text" and left > 100:
                parts.append({"type": "text", "text": str(washed["text"])[: left // 4]})
            break
        left -= size
        parts.append(washed)
    told: dict[str, Any] = {"content": parts, "isError": result.get("isError") is True}
    if structured is not None:
        washed = washer.wash(structured)
        if len(canonical(washed)) <= MAX_RESULT:
            told["structuredContent"] = washed
        else:
            cut = True
    if cut:
        note = f"[cut: the result was over {MAX_RESULT} bytes; ask for less]"
        told["content"].append({"type": "text", "text": note})
    return Cleaned(told, washer.hidden, washer.secrets, cut)


def _known(part: Json) -> dict[str, Json]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str) or kind not in _FIELDS:
        raise Unusable("a part of its content is of no known type")
    if kind == "text" and not isinstance(part.get("text"), str):
        raise Unusable("a text without text")
    return {key: value for key, value in part.items() if key == "type" or key in _FIELDS[kind]}


class _Washer:
    def __init__(self, secrets: Sequence[str]) -> None:
        self._values, self.hidden, self.secrets = [value for value in secrets if value], 0, 0

    def wash(self, value: Json) -> Json:
        match value:
            case str():
                return self._text(value)
            case dict():
                return {self._text(key): self.wash(inner) for key, inner in value.items()}
            case list():
                return [self.wash(inner) for inner in value]
            case _:
                return value

    def _text(self, text: str) -> str:
        text, found = _HIDDEN.subn("", text)
        self.hidden += found
        for secret in self._values:
            self.secrets += text.count(secret)
            text = text.replace(secret, REDACTED)
        return text

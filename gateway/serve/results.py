"""What a tool's result may carry to an agent: bounded, without hidden characters, without our own secrets. Pure.

Nothing is fetched: a link stays a link. What was taken out is counted, so that a reviewer sees that there was some.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.schema import Schema
from policies.canonical import Json

MAX_RESULT = 256 * 1024
"""Bytes of the parts of a result together, and again of its structured content."""
MAX_KEPT = 4 << 20
"""Characters of what is kept of a result that is cut."""
REDACTED = "[redacted]"
_JOINED = "\u0600-\u0dff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff"
"""What a joiner honestly stands between: Arabic and Indic letters, and pictures."""
_HIDDEN = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    r"|[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164]"
    r"|[\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
    rf"|(?<![{_JOINED}])[\u200c\u200d]|[\u200c\u200d](?![{_JOINED}])"
    # A selector changes the picture before it. Two in a row, or one behind a letter, spell out hidden bytes.
    r"|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}|(?<=[^0-9#*\u00a9-\U000dffff])[\ufe00-\ufe0f]|\A[\ufe00-\ufe0f]"
    r"|(?<![\u3400-\u9fff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"
)
_FIELDS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"text"}),
    "image": frozenset({"data", "mimeType"}),
    "audio": frozenset({"data", "mimeType"}),
    "resource_link": frozenset({"uri", "name", "title", "description", "mimeType", "size"}),
    "resource": frozenset({"resource"}),
}
_NEEDED: Mapping[str, Mapping[str, type]] = {
    "text": {"text": str},
    "image": {"data": str, "mimeType": str},
    "audio": {"data": str, "mimeType": str},
    "resource_link": {"uri": str, "name": str},
    "resource": {"resource": dict},
}


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The result as the agent gets it, and what was done to it: characters taken out, secrets blanked, parts cut (and
    `kept`, as a file that it can read)."""

    result: dict[str, Any]
    hidden: int
    secrets: int
    cut: bool
    kept: bool = False

    @property
    def touched(self) -> bool:
        """Whether the agent gets something else than what the server said."""
        return bool(self.hidden or self.secrets or self.cut)


class Unusable(Exception):  # noqa: N818 - the word for it
    """The result is none; `reason` holds nothing of it."""


Keep = Callable[[bytes], str | None]
"""Keeps what an answer has no room for; returns the path under which the agent finds it, if there is room there."""


def clean(
    result: Mapping[str, Json], output: Schema | None, secrets: Sequence[str] = (), keep: Keep | None = None
) -> Cleaned:
    """Return what may go on; raise `Unusable` for a result of another shape, or that breaks its own schema."""
    content = result.get("content", [])
    if not isinstance(content, list):
        raise Unusable("its content is no list")
    washer = Washer(secrets)
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
        checked = known(part)
        # What is too large is not washed first: millions of small parts would hold the process for seconds.
        washed = washer.wash(checked) if checked["type"] == "text" or size_of(checked) <= left else None
        if isinstance(washed, dict) and (size := size_of(washed)) <= left:
            left -= size
            parts.append(washed)
            continue
        cut = True
        if isinstance(washed, dict) and left > 100:
            parts.append({"type": "text", "text": str(washed["text"])[: left // 4]})
        break
    told: dict[str, Any] = {"content": parts, "isError": result.get("isError") is True}
    if structured is not None:
        if size_of(structured) <= MAX_RESULT:
            told["structuredContent"] = washer.wash(structured)
        else:
            cut = True
            # A client holds an answer against the output schema, unless it is an error; half of it would not fit.
            told["isError"] = told["isError"] or output is not None
    path = keep(_whole(content, structured, washer)) if cut and keep is not None else None
    if cut:
        rest = f"the whole of it is in {path}" if path is not None else "ask for less"
        told["content"].append({"type": "text", "text": f"[cut: the result was over {MAX_RESULT} bytes; {rest}]"})
    return Cleaned(told, washer.hidden, washer.secrets, cut, path is not None)


def _whole(content: Sequence[Json], structured: Json, washer: Washer) -> bytes:
    """Return the texts of a result and its structured content, washed, as one text. A server bounds neither, we do."""
    texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    whole = "\n".join(str(text) for text in texts)[:MAX_KEPT]
    if structured is not None:
        whole += "\n" + msgspec.json.encode(structured).decode()[:MAX_KEPT]
    return str(washer.wash(whole)).encode("utf-8", "replace")


def size_of(value: Json) -> int:
    """Return the bytes of a value as JSON."""
    return len(msgspec.json.encode(value))


def known(part: Json) -> dict[str, Json]:
    """Return the fields that a part of content may have; raise `Unusable` for one of another shape."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str) or kind not in _FIELDS:
        raise Unusable("a part of its content is of no known type")
    if not all(isinstance(part.get(key), wanted) for key, wanted in _NEEDED[kind].items()):
        raise Unusable("a part of its content lacks what its type needs")
    return {key: value for key, value in part.items() if key == "type" or key in _FIELDS[kind]}


class Washer:
    """Takes hidden characters and our own secrets out of texts, and counts them."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._values, self.hidden, self.secrets = [value for value in secrets if value], 0, 0

    def wash(self, value: Json) -> Json:
        """Return `value` with every text in it washed."""
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

"""Resources, prompts and completions: texts that a server gives to a model, as far as the plan lists them. Pure.

Threats: a resource that nobody listed, by a URI with two readings; a listing that names what was not given; text that
hides, floods, or carries a secret of ours. So a URI is compared as it is written, what could be read another way is
none, and every answer is written anew from the fields that it may have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.serve.results import MAX_RESULT, Unusable, Washer, known, size_of
from policies.canonical import Json

LISTS: Final = {
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    "prompts/list": "prompts",
}
_ASKS: Final = {
    "resources/read": frozenset({"uri"}),
    "prompts/get": frozenset({"name", "arguments"}),
    "completion/complete": frozenset({"ref", "argument", "context"}),
}
_ABOUT = ("name", "title", "description", "mimeType")
_ITEM = {
    "resources": ("uri", "size", *_ABOUT),
    "resourceTemplates": ("uriTemplate", *_ABOUT),
    "prompts": ("name", "title", "description"),
}
_CONTENT = ("uri", "mimeType", "text", "blob")
MAX_VALUES = 100
"""Values of one completion, as the protocol has it."""
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-\[\]-~]+")
_TWO_READINGS = re.compile(r"(^|[/:])\.{1,2}([/?#]|$)|%(2e|2f|5c|00)|//.*//", re.IGNORECASE)


class Texts:
    """What one stage may have of one server beside tools. A resource ending in `*` stands for all that begin so."""

    def __init__(self, resources: Sequence[str] = (), prompts: Sequence[str] = ()) -> None:
        self._resources, self.prompts = tuple(resources), tuple(prompts)
        self.given = (*self._resources, *self.prompts)

    @property
    def offers(self) -> dict[str, dict[str, bool]]:
        """What a server says of them: nothing where none were given."""
        found: dict[str, dict[str, bool]] = {}
        if self._resources:
            found["resources"] = {"subscribe": False, "listChanged": False}
        if self.prompts:
            found["prompts"] = {"listChanged": False}
        return {**found, "completions": {}} if found else {}

    def serves(self, method: str) -> bool:
        """Whether there is such a method for this stage."""
        if method == "completion/complete":
            return bool(self.given)
        known = method in LISTS or method in _ASKS
        return known and bool(self.prompts if method.startswith("prompts/") else self._resources)

    def question(self, method: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """Return the parameters for the server, and what is asked for; raise `ValueError` for what is malformed."""
        asked = {key: value for key, value in params.items() if key != "_meta"}
        if asked.keys() - _ASKS[method]:
            raise ValueError("an unknown parameter")
        match method, asked:
            case "resources/read", {"uri": str(uri)}:
                return {"uri": uri}, uri
            case "prompts/get", {"name": str(name)} if _texts(asked.get("arguments", {})):
                return {"name": name, "arguments": asked.get("arguments", {})}, name
            case "completion/complete", {"ref": dict(ref), "argument": {"name": str(name), "value": str(value)}}:
                subject = ref.get("name" if ref.get("type") == "ref/prompt" else "uri")
                context = asked.get("context", {})
                values = context.get("arguments", {}) if isinstance(context, dict) else None
                if isinstance(subject, str) and _texts(values):
                    kind = "ref/prompt" if ref.get("type") == "ref/prompt" else "ref/resource"
                    more = {"context": {"arguments": values}} if values else {}
                    named = {"type": kind, "name" if kind == "ref/prompt" else "uri": subject}
                    return {"ref": named, "argument": {"name": name, "value": value}, **more}, subject
            case _:
                pass
        raise ValueError("a parameter that is missing or malformed")

    def allows(self, method: str, params: Mapping[str, Any], subject: str) -> bool:
        """Whether what is asked for was given to the stage."""
        if method == "resources/read":
            return self._readable(subject)
        if method == "prompts/get" or params["ref"]["type"] == "ref/prompt":
            return subject in self.prompts
        return self._template(subject) or self._readable(subject)

    def listed(self, method: str, items: Sequence[Mapping[str, Json]], washer: Washer) -> list[Json]:
        """Return what of a listing the stage may see."""
        kind = LISTS[method]
        found = [item for item in items if self._shown(kind, item)]
        made = [
            washer.wash({key: item[key] for key in _ITEM[kind] if key in item} | _arguments(item)) for item in found
        ]
        if size_of(made) > MAX_RESULT:
            raise Unusable("its list is too large")
        return made

    def _shown(self, kind: str, item: Mapping[str, Json]) -> bool:
        if kind == "prompts":
            return item.get("name") in self.prompts
        uri = item.get("uri" if kind == "resources" else "uriTemplate")
        return isinstance(uri, str) and (self._readable(uri) if kind == "resources" else self._template(uri))

    def _readable(self, uri: str) -> bool:
        if not _URI.fullmatch(uri) or _TWO_READINGS.search(uri):
            return False
        return any(uri == given or (given[-1] == "*" and uri.startswith(given[:-1])) for given in self._resources)

    def _template(self, template: str) -> bool:
        """Whether whatever is put into a template is a resource of the stage."""
        fixed, brace, _ = template.partition("{")
        return bool(brace) and any(given[-1] == "*" and fixed.startswith(given[:-1]) for given in self._resources)


def answered(method: str, result: Mapping[str, Json], washer: Washer) -> tuple[dict[str, Json], bool]:
    """Return the result as the agent gets it, and whether it was cut; raise `Unusable`."""
    match method, result:
        case "resources/read", {"contents": [*contents]}:
            made, cut = _bounded([_content(item) for item in contents], washer)
            return {"contents": made}, cut
        case "prompts/get", {"messages": [*messages]}:
            made, cut = _bounded([_message(message) for message in messages], washer)
            described = result.get("description")
            about: dict[str, Json] = {"description": washer.wash(described)} if isinstance(described, str) else {}
            return {**about, "messages": made}, cut
        case "completion/complete", {"completion": {"values": [*values]}}:
            texts = [value for value in values[:MAX_VALUES] if isinstance(value, str)]
            made, cut = _bounded(list(texts), washer)
            return {"completion": {"values": made, "hasMore": cut or len(values) > MAX_VALUES}}, cut
        case _:
            raise Unusable("its answer is of another shape")


def _bounded(items: Sequence[Json], washer: Washer) -> tuple[list[Json], bool]:
    """Return the items that fit, washed; the rest is left out."""
    made: list[Json] = []
    left = MAX_RESULT
    for item in items:
        left -= size_of(item)
        if left < 0:
            return made, True
        made.append(washer.wash(item))
    return made, False


def _content(item: Json) -> dict[str, Json]:
    if not isinstance(item, dict) or not isinstance(item.get("uri"), str):
        raise Unusable("a part of its answer has no uri")
    made = {key: item[key] for key in _CONTENT if isinstance(item.get(key), str)}
    if ("text" in made) == ("blob" in made):
        raise Unusable("a part of its answer is neither text nor bytes")
    return made


def _message(message: Json) -> dict[str, Json]:
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
        raise Unusable("a message of its answer has no role")
    return {"role": message["role"], "content": known(message.get("content"))}


def _arguments(item: Mapping[str, Json]) -> dict[str, Json]:
    """Return the arguments that a prompt says it takes."""
    given = item.get("arguments")
    if not isinstance(given, list):
        return {}
    keys = ("name", "title", "description", "required")
    return {"arguments": [{k: one[k] for k in keys if k in one} for one in given if isinstance(one, dict)]}


def _texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(inner, str) for inner in value.values())

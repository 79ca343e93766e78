"""Whether a JSON Schema can be run over hostile values: self-contained, in linear time, and within a budget. Pure.

Threats: a reference that fetches, a pattern that backtracks, a schema so large that it holds whoever reads it, and a
small one that is a bomb: `a` refers twice to `b`, `b` twice to `c`, and one value is looked at 2ⁿ times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from policies.canonical import MAX_DEPTH as VALUE_DEPTH
from policies.canonical import canonical
from policies.events import clean

MAX_NODES = 2_000
MAX_DEPTH = 20
MAX_BYTES = 256 * 1024
MAX_LOOKS = 10_000
"""How often one part of a value may be looked at, over all references."""

_HERE = ("allOf", "anyOf", "oneOf")
_HERE_ONE = ("not", "if", "then", "else")
_ITEMS = ("items", "contains", "unevaluatedItems")
_REST = ("additionalProperties", "unevaluatedProperties", "propertyNames")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a schema, as a finding says it."""

    code: str
    message: str
    hint: str | None = None


def problems(schema: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what the gateway would refuse to run, or could not run in bounded time."""
    references = list(_references(schema))
    remote = [text for text in references if not text.startswith("#")]
    for text in remote:
        yield Problem(
            "CSM-C018", f'"$ref": "{clean(text, 100)}" leads out of the file', "copy the definition into $defs"
        )
    nodes, depth, size = *_size(schema), len(canonical(schema))
    if nodes > MAX_NODES or depth > MAX_DEPTH or size > MAX_BYTES:
        most = f"at most {MAX_NODES}, {MAX_DEPTH} and {MAX_BYTES}"
        yield Problem("CSM-C046", f"the schema has {nodes} nodes, {depth} deep, in {size} bytes ({most})")
        return
    if remote:
        return
    try:
        options = jsonschema_rs.RegexOptions()
        jsonschema_rs.Draft202012Validator(dict(schema), offline=True, validate_formats=True, pattern_options=options)
        if references:
            _Looks(schema).count()
    except _BombError as error:
        yield Problem("CSM-C046", str(error), "refer to a definition once for each part of a value")
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        text = clean(str(error).splitlines()[0], 200)
        pattern = "pattern" in text or "regex" in text
        hint = "no look-around, no back-reference: patterns run in linear time" if pattern else None
        yield Problem("CSM-C045" if pattern else "CSM-C017", f"the schema is refused: {text}", hint)


class _BombError(Exception):
    pass


class _Looks:
    """Counts how often one part of a value may be looked at, from the schema alone.

    A count is by kind of child: items, a named property, any other property; the largest of them goes on.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root, self._open = schema, set[tuple[int, int]]()
        self._known: dict[tuple[int, int], tuple[int, dict[str | None, int]]] = {}

    def count(self) -> None:
        """Raise `_BombError` when some part of a value would be looked at more than `MAX_LOOKS` times."""
        for depth in range(VALUE_DEPTH):  # from the leaves, so that no recursion of ours is deeper than the schema
            self._looks(self._root, depth)

    def _looks(self, schema: object, depth: int) -> int:
        here, children = self._at(schema, depth)
        looks = here + max(children.values(), default=0)
        if looks > MAX_LOOKS:
            raise _BombError(f"a part of a value would be looked at more than {MAX_LOOKS} times")
        return looks

    def _at(self, schema: object, depth: int) -> tuple[int, dict[str | None, int]]:
        """Return the looks at this part, and those at its children: by property, None for others, [] for items."""
        if not isinstance(schema, dict):
            return 1, {}
        key = (id(schema), depth)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            raise _BombError("a definition refers to itself without going into the value")
        self._open.add(key)
        children = self._children(schema, depth - 1) if depth else {}
        here = 1
        for inner in self._inner(schema):
            more, below = self._at(inner, depth)
            here += more
            if not children:
                children = below  # a bare reference, as most are
                continue
            names = children.keys() | below.keys()
            children = {name: _of(children, name) + _of(below, name) for name in names}
        self._open.discard(key)
        self._known[key] = here, children
        return here, children

    def _inner(self, schema: Mapping[str, Any]) -> Iterator[object]:
        for key in _HERE:
            yield from _list(schema.get(key))
        yield from (schema[key] for key in _HERE_ONE if key in schema)
        dependent = schema.get("dependentSchemas")
        yield from dependent.values() if isinstance(dependent, dict) else ()
        for key in ("$ref", "$dynamicRef"):
            if isinstance(reference := schema.get(key), str):
                yield self._target(reference)

    def _children(self, schema: Mapping[str, Any], depth: int) -> dict[str | None, int]:
        found: dict[str | None, int] = {}
        items = [*_list(schema.get("prefixItems")), *(schema[key] for key in _ITEMS if key in schema)]
        if items:
            found["[]"] = sum(self._looks(inner, depth) for inner in items)
        patterns = schema.get("patternProperties")
        others = [*(patterns.values() if isinstance(patterns, dict) else ())]
        others += [schema[key] for key in _REST if key in schema]
        if others:
            found[None] = sum(self._looks(inner, depth) for inner in others)
        named = schema.get("properties")
        for name, inner in named.items() if isinstance(named, dict) else ():
            found[f".{name}"] = found.get(None, 0) + self._looks(inner, depth)
        return found

    def _target(self, reference: str) -> object:
        if not reference.startswith("#/") and reference != "#":
            raise ValueError("a $ref is a JSON pointer: #/$defs/name")
        at: Any = self._root
        for word in reference.removeprefix("#").split("/")[1:]:
            word = word.replace("~1", "/").replace("~0", "~")
            try:
                at = at[int(word)] if isinstance(at, list) else at[word]
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError("a $ref leads to nothing") from error
        return at


def _of(looks: Mapping[str | None, int], name: str | None) -> int:
    """Return the looks at a child; a property that is not named is one of the others, and an item is not."""
    return looks.get(name, 0 if name == "[]" else looks.get(None, 0))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _references(schema: object) -> Iterator[str]:
    """Yield every reference. A base within the schema would give them another meaning, so it counts as one."""
    stack = [schema]
    while stack:
        match stack.pop():
            case dict() as mapping:
                keys = ("$ref", "$dynamicRef") if mapping is schema else ("$ref", "$dynamicRef", "$id")
                yield from (v for k in keys if isinstance(v := mapping.get(k), str))
                stack.extend(mapping.values())
            case list() as items:
                stack.extend(items)
            case _:
                pass


def _size(schema: object) -> tuple[int, int]:
    nodes, deepest, stack = 0, 0, [(schema, 1)]
    while stack:
        value, depth = stack.pop()
        nodes, deepest = nodes + 1, max(deepest, depth)
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        stack.extend((item, depth + 1) for item in inner)
    return nodes, deepest

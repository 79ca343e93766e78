"""Whether a tool of an MCP server can be judged by its definition, and told apart by its name. Pure.

Threats: a schema that is a bomb; a name that an agent, or whoever reads the log, takes for another tool's; text in a
description that a model reads and a person does not see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from policies.events import clean
from sandbox import schema_rules
from sandbox.schema_rules import Problem

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SELECTORS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Characters that take no room, and yet count as printable."""
_LIKE = (("rn", "m"), ("vv", "w"), ("cl", "d"))


def problems(definition: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what stands against pinning a definition; each problem names the part."""
    name = definition.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        hint = "letters, digits and _ . - only, at most 128: others look like these"
        yield Problem("CSM-C062", f'"{clean(str(name), 100)}" is no name of a tool', hint)
    for part in ("inputSchema", "outputSchema"):
        schema = definition.get(part)
        if schema is None and part == "outputSchema" and part not in definition:
            continue
        if not isinstance(schema, dict) or schema.get("type") != "object":
            yield Problem("CSM-C017", f"{part}: it is no schema of an object")
            continue
        for found in schema_rules.problems(schema):
            yield Problem(found.code, f"{part}: {found.message}", found.hint)


def likeness(name: str) -> str:
    """Return what a plain name looks like at a glance: two tools with the same likeness cannot be told apart."""
    text = name.lower().translate(str.maketrans("1i0-.", "llo__"))
    for pair, one in _LIKE:
        text = text.replace(pair, one)
    return text


def mark(text: str) -> tuple[str, int]:
    """Return `text` with every character that could hide made visible, and how many there were."""
    found = 0
    shown: list[str] = []
    for character in text:
        hides = not character.isprintable() or bool(_SELECTORS.match(character))
        found += hides
        shown.append(f"\\u{{{ord(character):x}}}" if hides else character)
    return "".join(shown), found

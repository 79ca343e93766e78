"""Which of a server's tools are those that a person approved. Pure.

A definition is what a model reads and obeys, so a changed word is another tool: by its description, its schema, or its
name. What differs from the pin vanishes; what nobody pinned was never there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.canonical import canonical
from policies.plan import Pin


@dataclass(frozen=True, slots=True)
class Found:
    """The pins that hold, by name, and the wanted tools that are gone, with the reason."""

    tools: Mapping[str, Pin]
    gone: Mapping[str, str]


def compare(
    wanted: Sequence[str], pins: Sequence[Pin], live: Sequence[Mapping[str, Any]], *, writes: bool = False
) -> Found:
    """Hold what a server offers now (`live` definitions) against the pins of the tools that a stage wants.

    Or a sink: then the pins are those of tools that write.
    """
    offered = {str(definition.get("name")): definition for definition in live}
    times = Counter(str(definition.get("name")) for definition in live)
    pinned = {pin.name: pin for pin in pins if pin.reads is not writes}
    tools: dict[str, Pin] = {}
    gone: dict[str, str] = {}
    for name in wanted:
        if name not in pinned:
            gone[name] = f"it is not pinned as a tool that {'writes' if writes else 'only reads'}"
        elif name not in offered:
            gone[name] = "the server no longer has it"
        elif times[name] > 1:
            gone[name] = "the server has it twice"
        elif canonical(offered[name]) != canonical(pinned[name].definition):
            gone[name] = "its definition has changed"
        else:
            tools[name] = pinned[name]
    return Found(tools, gone)

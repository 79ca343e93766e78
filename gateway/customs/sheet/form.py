"""What a schema asks of a flat record, as tables; None for a schema that asks for more than tables can tell. Pure."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any, Final

from gateway.customs.sheet.lines import KINDS
from policies.canonical import MAX_INT

MAX_FIELDS = 64
_NAME: Final = re.compile(r"[ !#-\[\]-~]+")
"""Names that have one way of being written, but for escapes."""
_ANYTHING: Final = {"title", "description", "$comment", "examples", "default"}
_RECORD: Final = _ANYTHING | {"$schema", "type", "properties", "required", "additionalProperties"}
_FIELD: Final = _ANYTHING | {
    "type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength",
}  # fmt: skip
_LONGEST: Final = 2**31 - 1
_UNKNOWN: Final = 1 << 10


@dataclass(slots=True)
class Form:
    """The fields of a record. A text of a field that is in `words` must be one of those."""

    names: Sequence[str]
    required: int
    kinds: array[int] = field(default_factory=lambda: array("i"))
    low: array[float] = field(default_factory=lambda: array("d"))
    high: array[float] = field(default_factory=lambda: array("d"))
    lengths: list[tuple[int, int]] = field(default_factory=list)
    words: dict[str, frozenset[str]] = field(default_factory=dict)

    def identifies(self, name: str) -> bool:
        """Tell whether every record has this field, with a value that can be written in one way."""
        place = self.names.index(name) if name in self.names else None
        return (
            place is not None
            and bool(self.required >> place & 1)
            and not self.kinds[place] & ~KINDS["integer"] & KINDS["number"]
        )


def form_of(schema: Mapping[str, Any], bounds: Mapping[str, Mapping[str, Any]]) -> Form | None:
    """Return the form of records. `bounds`: schemas that fields must fit too."""
    fields = schema.get("properties", {})
    required = schema.get("required", [])
    known = schema.get("type") == "object" and schema.get("additionalProperties") is False and schema.keys() <= _RECORD
    if not known or not 0 < len(fields) <= MAX_FIELDS or not {*required, *bounds} <= fields.keys():
        return None
    if not all(_NAME.fullmatch(name) for name in fields):
        return None
    form = Form(list(fields), sum(1 << place for place, name in enumerate(fields) if name in required))
    for name, asked in fields.items():
        if not _add(form, name, [asked, *([bounds[name]] if name in bounds else [])]):
            return None
    return form


def _add(form: Form, name: str, asked: Sequence[Any]) -> bool:
    """Add a field that must fit all of some schemas; tell whether tables can hold them."""
    kinds, low, high, shortest, longest = -1, -math.inf, math.inf, 0, _LONGEST
    for schema in asked:
        if not isinstance(schema, Mapping) or "type" not in schema or not schema.keys() <= _FIELD:
            return False
        given = schema["type"]
        kinds &= reduce(or_, (KINDS.get(kind, _UNKNOWN) for kind in ([given] if isinstance(given, str) else given)))
        low = max(low, *_sides(schema, "inimum", -math.inf))
        high = min(high, *_sides(schema, "aximum", math.inf))
        shortest = max(shortest, math.ceil(schema.get("minLength", 0)))
        longest = min(longest, math.floor(schema.get("maxLength", _LONGEST)))
        if "enum" in schema:
            if name in form.words or not all(isinstance(word, str) and _is_text(word) for word in schema["enum"]):
                return False
            form.words[name] = frozenset(schema["enum"])
            kinds &= KINDS["string"]
    if kinds & _UNKNOWN or not max(map(abs, {low, high} - {-math.inf, math.inf}), default=0) <= MAX_INT:
        return False
    form.kinds.append(kinds)
    form.low.append(low)
    form.high.append(high)
    form.lengths.append((min(shortest, _LONGEST), max(longest, -1)))
    return True


def _is_text(word: str) -> bool:
    """Tell whether a word can be written: it has no half of a pair of surrogates."""
    return word.encode("utf-8", "replace").decode() == word


def _sides(schema: Mapping[str, Any], word: str, none: float) -> tuple[float, float]:
    """Return a limit, and the last number before one that is excluded."""
    excluded = schema.get(f"exclusiveM{word}")
    return schema.get(f"m{word}", none), none if excluded is None else math.nextafter(excluded, -none)

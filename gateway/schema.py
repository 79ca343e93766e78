"""The only file that talks to jsonschema-rs: JSON Schema 2020-12 without any fetching and in linear time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from policies.canonical import pointer
from policies.errors import CasemateError
from policies.writes import place_of

MAX_PROBLEMS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One place at which a record does not fit: a JSON pointer and the keyword; never a value."""

    pointer: str
    keyword: str


class Schema:
    """A compiled schema."""

    def __init__(self, schema: Mapping[str, Any], place: str) -> None:
        """Compile; raise CSM-C017 when the schema is invalid, refers to a remote document, or has a pattern that needs
        backtracking (a hostile string could hold the process for minutes)."""
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                dict(schema),
                offline=True,
                validate_formats=True,
                formats={"proposal-id": _is_proposal},
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise CasemateError("CSM-C017", f"schema refused: {str(error).splitlines()[0]}", place=place) from error

    def fits(self, record: Mapping[str, Any] | Sequence[Any]) -> bool:
        """Tell whether `record` fits."""
        return bool(self._validator.is_valid(record))

    def problems(self, record: Mapping[str, Any]) -> list[Problem]:
        """Return up to `MAX_PROBLEMS` places at which `record` does not fit; empty when it fits."""
        if self.fits(record):
            return []
        found: list[Problem] = []
        for error in self._validator.iter_errors(record):
            found.append(Problem(pointer=pointer(error.instance_path), keyword=error.kind.name))
            if len(found) == MAX_PROBLEMS:
                break
        return found or [Problem(pointer="", keyword="schema")]


def _is_proposal(text: str) -> bool:
    return place_of(text) is not None

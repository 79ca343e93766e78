"""Findings: problems that are seen before anything runs, each with a code, a place and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from policies.canonical import pointer
from policies.errors import CODES

Path: TypeAlias = tuple[str | int, ...]


class Severity(StrEnum):
    """An error stops everything; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a file: line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem. `path` leads to the value in the workflow."""

    code: str
    message: str
    place: Place
    path: Path
    hint: str | None = None
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise KeyError(self.code)

    def render(self) -> str:
        """The finding as users see it."""
        where = f"{self.place} ({pointer(self.path)})" if self.path else str(self.place)
        lines = [f"{self.code}: {self.message}", f"  at: {where}"]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The finding for programs."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "message": self.message,
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "path": pointer(self.path),
            "hint": self.hint,
        }


class FindingsError(Exception):
    """Raised when a document cannot be understood any further; carries what was found."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = list(findings)
        super().__init__("; ".join(f.message for f in self.findings))


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a hint that names the closest known word, or lists the known ones."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known here: {', '.join(words[:12])}" if words else None


def has_errors(findings: Iterable[Finding]) -> bool:
    """Tell whether any finding stops the workflow."""
    return any(finding.severity is Severity.ERROR for finding in findings)

"""A record without the secrets that were found in it, fit to be kept for a person to look at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.customs.scan.plane import Path
from gateway.customs.scan.scanner import Finding, Scanner


def redact(record: dict[str, Any], findings: Sequence[Finding], scanner: Scanner) -> dict[str, Any]:
    """Return a copy in which every string, number and key of a finding is replaced by its rule and length.

    If anything is still found in what remains (pieces that make up a secret elsewhere), nothing of the record remains.
    """
    values: dict[Path, str] = {}
    keys: dict[Path, str] = {}
    for finding in findings:
        for place in finding.places:
            mark = f"[redacted: {finding.rule}, {len(place.text)} characters]"
            (keys if place.key else values)[place.path] = mark
    kept = _rebuilt(record, (), values, keys)
    if isinstance(kept, dict) and not scanner.findings(kept):
        return kept
    return {"[redacted]": f"whole record: {', '.join(sorted({finding.rule for finding in findings}))}"}


def _rebuilt(value: object, path: Path, values: dict[Path, str], keys: dict[Path, str]) -> object:
    match value:
        case dict():
            rebuilt: dict[str, object] = {}
            for name, item in value.items():
                where = (*path, name)
                # Two redacted keys may have one mark; a number keeps both.
                shown = f"{keys[where]} #{len(rebuilt)}" if where in keys else name
                rebuilt[shown] = _rebuilt(item, where, values, keys)
            return rebuilt
        case list():
            return [_rebuilt(item, (*path, index), values, keys) for index, item in enumerate(value)]
        case _:
            return values.get(path, value)

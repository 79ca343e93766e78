"""Probes: texts by which a model will be evaluated, and which it must therefore not be taught.

A probe file is JSON lines, where each record is one probe, or a text with one probe a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from policies.canonical import StrictJsonError, strict_loads

LEAST = 24
"""Letters and digits that a probe must have to be told from what anybody says."""


def read_probes(path: str, data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each probe of a file; raise `ValueError` for what is no probe file."""
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record: Any = strict_loads(line) if PurePosixPath(path).suffix == ".jsonl" else line.decode()
        except (StrictJsonError, RecursionError, UnicodeDecodeError) as error:
            raise ValueError(f"line {number}: {error}") from error
        yield number, " ".join(_strings(record))


def tells(text: str) -> bool:
    """Tell whether a probe is long enough."""
    return sum(map(str.isalnum, text)) >= LEAST


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _strings(item)
        case dict():
            for item in value.values():
                yield from _strings(item)
        case _:
            pass

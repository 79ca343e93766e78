"""Invariants of a finished plan: where a sink is. It shares no code with the compiler."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sandbox.plan_hosts import host_problems, network_problems

_AT = {
    "http": r"https://([^/@:?#]+)(:[1-9][0-9]{0,4})?(/[^?#]*)?",
    "mlflow": r"https://([^/@:?#]+)(:[1-9][0-9]{0,4})?(/[^?#]*)?",
    "sql": r"(?:postgresql://(?:[^/@:?#]+@)?([^/@:?#]+)(:[1-9][0-9]{0,4})?/[^/?#]+|sqlite:(?!/)[^?#]+)",
}
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,62}"


def sink_problems(output: dict[str, Any]) -> Iterator[str]:
    """Yield what keeps a sink from being one place that can be named."""
    sink, target = output["sink"], output["target"]
    yield from network_problems(output["addresses"])
    if output["addresses"] and sink in ("dataset", "file", "mcp"):
        yield f"a sink {sink} has no address"
    if sink in _AT:
        found = re.fullmatch(_AT[sink], target.get("url", ""))
        if found is None or ".." in target["url"].removeprefix("sqlite:").split("/"):
            yield f"{target.get('url')!r} is no place of a sink {sink}"
        elif found.group(1) is not None:
            yield from host_problems(found.group(1))
            if "*" in found.group(1):
                yield f"{found.group(1)} is a pattern"
    if sink == "sql":
        if not re.fullmatch(rf"{_NAME}(\.{_NAME})?", target.get("table", "")):
            yield f"{target.get('table')!r} is no table"
        if target.get("mode") == "upsert" and not output["unique"]:
            yield "it updates rows that nothing tells apart"
    if sink == "file":
        field = output["schema"].get("properties", {}).get("text", {})
        if field.get("type") != "string" or "text" not in output["schema"].get("required", []):
            yield "a file is made of a text that its records need not have"

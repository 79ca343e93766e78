"""Invariants of a finished plan: where a sink is. It shares no code with the compiler."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sandbox.plan_check.hosts import host_problems, network_problems

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
    if sink == "mlflow":
        yield from _registry_problems(output)
    if sink == "file":
        field = output["schema"].get("properties", {}).get("text", {})
        if field.get("type") != "string" or "text" not in output["schema"].get("required", []):
            yield "a file is made of a text that its records need not have"
    yield from _repository_problems(output)


_PART = r"(?!.*(?:\.\.|//|/\.|\./|\.lock(?:/|$)))[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}"
_HTTPS = r"https://([a-z0-9.-]+)(:[1-9][0-9]{0,4})?((?:/[A-Za-z0-9_.-]+)*)"


def _repository_problems(output: dict[str, Any]) -> Iterator[str]:
    """Yield what keeps a repository from getting branches of our own at the hosts that are named, and nothing else."""
    git, schema = output["git"], output["schema"]
    if (git is not None) != (output["sink"] == "git"):
        yield "a sink git without what a patch may be, or another one with it"
    if git is None:
        return
    places = [output["target"].get("repository", "")]
    if (pull := git["pull_request"]) is not None:
        places.append(pull["api"])
        if f"/{pull['project']}" != re.sub(r"https://[^/]+|\.git\Z", "", places[0]).rstrip("/"):
            yield "pull requests for another project than the repository's"
        if pull["forge"] == "pagure" and (pull["labels"] or pull["draft"]):
            yield "labels or drafts, which Pagure does not have"
    for place in places:
        found = re.fullmatch(_HTTPS, place)
        if found is None or {".", ".."} & set(found.group(3).split("/")):
            yield f"{place!r} is no place of a sink git"
        else:
            yield from host_problems(found.group(1))
    base, prefix = git["base"], git["prefix"]
    if not re.fullmatch(_PART, base) or not re.fullmatch(_PART, prefix[:-1]) or prefix[-1:] != "/":
        yield "a base or a prefix that is no branch"
    elif f"{base}/".startswith(prefix):
        yield "branches of proposals that may be the base"
    if re.search(r"[<>\x00-\x1f]", git["author"] + git["email"] + git["user"]) or ":" in git["user"]:
        yield "an author or a user with more than one reading"
    fields = schema.get("properties", {})
    texts = all(field.get("type") == "string" for field in fields.values())
    required = {"title", "patch"} <= set(schema.get("required", []))
    if not (texts and required and {"title", "patch"} <= set(fields) <= {"title", "body", "patch"}):
        yield "records that are no patches with a title"


def _registry_problems(output: dict[str, Any]) -> Iterator[str]:
    root, field = output["target"].get("source", ""), output["schema"].get("properties", {}).get("source", {})
    if not re.fullmatch(r"[a-z][a-z0-9+-]*:[^\s?#@%\\]*", root) or ".." in root:
        yield f"{root!r} is no place of models"
    if field.get("type") != "string" or "source" not in output["schema"].get("required", []):
        yield "a version is made of a source that its records need not have"

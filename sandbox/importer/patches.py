"""Patches: the settings of a safe output that writes code, as those of a sink `git`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.compiler.repositories import GLOB
from sandbox.importer.draft import Output
from sandbox.importer.notes import Kind, Ledger
from sandbox.importer.source import mapping, plain, words
from sandbox.language.findings import Path

_MOST_FILES, _MOST_KIB = 1000, 4096
_HELD = "each is held for a person (approval: always)"


def _files(output: Output, value: Any, path: Path, ledger: Ledger) -> None:
    if type(value) is int and 0 < value <= _MOST_FILES:
        output.patch["files"] = value
        ledger.mapped(path, "sink.patch.files")


def size(output: Output, value: Any, path: Path, ledger: Ledger) -> None:
    """Note `max-patch-size`, in KB."""
    if type(value) is int and 0 < value <= _MOST_KIB:
        output.patch["bytes"] = f"{value}KiB"
        ledger.mapped(path, "sink.patch.bytes")
    elif type(value) is int and value > _MOST_KIB:
        ledger.stricter(path, "256 KiB a patch, as sink.patch.bytes has it when nothing is said")


def _paths(output: Output, value: Any, path: Path, ledger: Ledger) -> None:
    globs = words(value) if plain(value) else []
    if globs and all(GLOB.fullmatch(glob) for glob in globs):
        output.patch["paths"] = list(dict.fromkeys(globs))
        ledger.mapped(path, "sink.patch.paths")
    else:
        ledger.blocked(path, "not a list of fixed paths: write them into sink.patch.paths")


def _left_out(output: Output, _value: Any, path: Path, ledger: Ledger) -> None:
    output.hold.append("excluded-files")
    ledger.approximated(path, f"nothing is left out of a patch: {_HELD}, who sees such files")


def _protected(output: Output, value: Any, path: Path, ledger: Ledger) -> None:
    settings = mapping(value) if isinstance(value, dict) else {"policy": value}
    globs = [f"{word}**" if word.endswith("/") else f"**/{word}" for word in words(settings.get("exclude", []))]
    policy = settings.get("policy", "request-review")
    if policy == "allowed":
        globs = ["**"]
    elif policy in ("request-review", "request_review", "fallback-to-issue"):
        output.patch["protected"] = "hold"
    elif policy == "blocked":
        output.patch["protected"] = "reject"
    else:
        ledger.blocked(path, "not a policy that is known: protected paths are rejected")
        return
    if globs and all(GLOB.fullmatch(glob) for glob in globs):
        output.patch["unprotected"] = list(dict.fromkeys(globs))
    ledger.approximated(path, "sink.patch.protected and unprotected; the list of protected paths is ours, and longer")


def _labels(output: Output, value: Any, path: Path, ledger: Ledger) -> None:
    labels = [label for label in words(value) if len(label) <= 50][:20] if plain(value) else []
    if labels:
        output.pull_request["labels"] = list(dict.fromkeys(labels))
        ledger.mapped(path, "sink.pull_request.labels")
    else:
        ledger.lost(path, "not a list of fixed words: write them into sink.pull_request.labels")


def _no_labels(_output: Output, _value: Any, path: Path, ledger: Ledger) -> None:
    ledger.stricter(path, "the agent chooses no labels")


def _draft(output: Output, value: Any, path: Path, ledger: Ledger) -> None:
    output.pull_request["draft"] = value is not False
    ledger.mapped(path, "sink.pull_request.draft")


READERS: dict[str, Callable[[Output, Any, Path, Ledger], None]] = {
    "max-patch-files": _files,
    "max-patch-size": size,
    "allowed-files": _paths,
    "excluded-files": _left_out,
    "protected-files": _protected,
    "allowed-labels": _no_labels,
    "draft": _draft,
}
OF_NEW: dict[str, Callable[[Output, Any, Path, Ledger], None]] = {"labels": _labels}
"""Settings that mean this for a pull request that is opened, and something else for one that is there."""


def defaults(
    settings: dict[str, Any], where: Path, ledger: Ledger, output: Output, *, opens: bool, sized: bool
) -> None:
    """Note what the original does when nothing is said. `opens`: a pull request; `sized`: a size is said somewhere."""
    if opens and "draft" not in settings:
        output.pull_request["draft"] = True
        ledger.implied((*where, "draft"), Kind.MAPPED, "sink.pull_request.draft, as by default")
    if "protected-files" not in settings:
        output.patch["protected"] = "hold"
        text = "a patch of a protected path is held for a person; the list of protected paths is ours, and longer"
        ledger.implied((*where, "protected-files"), Kind.APPROXIMATED, text)
    if not sized:
        ledger.implied((*where, "max-patch-size"), Kind.STRICTER, "20 files, 1,000 added lines and 256 KiB a patch")


def sink(output: Output, repository: str, base: str) -> dict[str, Any]:
    """Return the sink of an output that writes code."""
    patch = {"patch": output.patch} if output.patch else {}
    pull_request = {"pull_request": {"forge": "github", **output.pull_request}}
    return {"kind": "git", "repository": repository, "base": base, **patch, **pull_request}

"""Imports: shared fragments, pinned by digest, with typed parameters. A fragment can narrow, never widen.

A fragment is a YAML file with `fragment: 1`, the parameters that it takes, and

- declarations: `models`, `tools`, `inputs` of its own, under names that the importer does not use. A declaration gives
  nobody anything: only the importer's stages say what they use.
- restrictions: `budget` and `stages` (by name). The smaller number counts; of lists, what both have.

It declares no secret, adds no stage, and gives no stage anything. Parameters replace whole values that read `${name}`,
so that nothing can be smuggled into the middle of another value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from policies.canonical import digest
from policies.errors import CasemateError
from sandbox.language.findings import Finding, FindingsError, Path, did_you_mean
from sandbox.language.source import Document, parse
from sandbox.language.workflow import LimitsSpec

MAX_DEPTH = 5
DECLARATIONS = ("models", "tools", "inputs")
_SECTIONS = {"fragment", "params", "imports", "budget", "stages", *DECLARATIONS}
_TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool}
_PARAMETER = re.compile(r"\$\{([a-z][a-z0-9_-]{0,39})\}\Z")
_ORDER = {"s": 1, "m": 60, "h": 3600, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "/min": 1}

DEFAULT_LIMITS = {k: v for k, v in msgspec.structs.asdict(LimitsSpec()).items() if v is not None}
Read = Callable[[str], bytes]


def expand(document: Document, read: Read) -> tuple[Document, dict[str, str]]:
    """Return the document with its imports worked in, and the digest of every fragment by path.

    `read` returns the bytes of a file of the project or raises `CasemateError`. Raises `FindingsError` (C036, C037).
    """
    if not isinstance(document.data, dict) or not isinstance(document.data.get("imports"), list):
        return document, {}
    merger = _Merger(document, read)
    data = merger.merge({**document.data}, document, (), ("imports",))
    if merger.findings:
        raise FindingsError(merger.findings)
    return replace(document, data=data), merger.digests


class _Merger:
    def __init__(self, document: Document, read: Read) -> None:
        self._document, self._read = document, read
        self.findings: list[Finding] = []
        self.digests: dict[str, str] = {}

    def merge(self, data: dict[str, Any], importer: Document, chain: tuple[str, ...], where: Path) -> dict[str, Any]:
        """Work the imports of `importer` into `data`. Findings stand at the top-level import that led there."""
        for index, entry in enumerate(importer.data.get("imports") or []):
            place: Path = (*where, index) if not chain else where
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("path", "digest")):
                continue  # the schema says what is wrong with it
            path = entry["path"]
            if path in chain or len(chain) >= MAX_DEPTH:
                self._refuse("CSM-C036", f"imports go round: {' → '.join((*chain, path))}", place)
                continue
            fragment = self._load(entry, place)
            if fragment is None:
                continue
            self.digests[path] = fragment.digest
            data = self.merge(data, fragment, (*chain, path), place)
            data = self._work_in(data, fragment, place)
        return data

    def _load(self, entry: dict[str, Any], place: Path) -> Document | None:
        path = entry["path"]
        try:
            text = self._read(path)
        except CasemateError as error:
            self._refuse("CSM-C036", error.message, place)
            return None
        if digest(text) != entry.get("digest"):
            self._refuse("CSM-C036", f'"{path}" is not what was pinned; it is {digest(text)}', place)
            return None
        try:
            fragment = parse(text, path)
        except FindingsError as error:
            self.findings += error.findings
            return None
        if not isinstance(fragment.data, dict) or fragment.data.get("fragment") != 1:
            self._refuse("CSM-C036", f'"{path}" does not say "fragment: 1"', place)
            return None
        for key in fragment.data.keys() - _SECTIONS:
            message = f'{fragment.key((key,))}: a fragment has no "{key}"'
            self._refuse("CSM-C036", message, place, did_you_mean(key, _SECTIONS))
        values = self._arguments(entry.get("with") or {}, fragment, place)
        return replace(fragment, data=_substitute(fragment.data, values, lambda m: self._refuse("CSM-C036", m, place)))

    def _arguments(self, given: dict[str, Any], fragment: Document, place: Path) -> dict[str, Any]:
        declared = fragment.data.get("params") or {}
        if not isinstance(declared, dict):
            self._refuse("CSM-C036", f"{fragment.file}: params is not a mapping", place)
            return {}
        for name in given.keys() - declared.keys():
            hint = did_you_mean(name, declared)
            self._refuse("CSM-C036", f'{fragment.file} takes no parameter "{name}"', place, hint)
        values = {}
        for name, spec in declared.items():
            kind = spec.get("type") if isinstance(spec, dict) else None
            value = given.get(name, spec.get("default") if isinstance(spec, dict) else None)
            if kind not in _TYPES or type(value) is not _TYPES[kind]:
                self._refuse("CSM-C036", f'{fragment.file}: parameter "{name}" should be of type {kind}', place)
                continue
            pattern = spec.get("pattern")
            if isinstance(pattern, str) and isinstance(value, str) and not re.fullmatch(pattern, value):
                self._refuse("CSM-C036", f'{fragment.file}: parameter "{name}" does not match {pattern}', place)
                continue
            values[name] = value
        return values

    def _work_in(self, data: dict[str, Any], fragment: Document, place: Path) -> dict[str, Any]:
        for section in DECLARATIONS:
            mine, theirs = data.get(section) or {}, fragment.data.get(section) or {}
            if not isinstance(theirs, dict) or not isinstance(mine, dict):
                self._refuse("CSM-C036", f"{fragment.file}: {section} is not a mapping", place)
                continue
            for name in theirs.keys() & mine.keys():
                self._refuse("CSM-C037", f'{fragment.file} would replace {section} "{name}"', place)
            if theirs:
                data[section] = {**theirs, **mine}
        if "budget" in fragment.data:
            data["budget"] = self._narrow(data.get("budget"), fragment.data["budget"], "budget", place)
        stages = {s.get("name"): s for s in data.get("stages") or [] if isinstance(s, dict)}
        narrowed = dict(stages)
        for limit in fragment.data.get("stages") or []:
            name = limit.get("name") if isinstance(limit, dict) else None
            if name not in stages:
                self._refuse(
                    "CSM-C037", f'{fragment.file} speaks of the stage "{name}", which the importer lacks', place
                )
                continue
            narrowed[name] = self._narrow(narrowed[name], limit, f"stage {name}", place)
        if narrowed != stages:
            data["stages"] = [narrowed[s["name"]] if isinstance(s, dict) and "name" in s else s for s in data["stages"]]
        return data

    def _narrow(self, mine: Any, theirs: Any, what: str, place: Path) -> Any:
        """Return the narrower of two values: the smaller quantity, what both lists have, key by key."""
        if isinstance(mine, dict) and isinstance(theirs, dict):
            result = dict(mine)
            for key, value in theirs.items():
                if key in mine:
                    result[key] = self._narrow(mine[key], value, f"{what}.{key}", place)
                elif what.endswith(".limits") and key in DEFAULT_LIMITS:
                    result[key] = self._narrow(DEFAULT_LIMITS[key], value, f"{what}.{key}", place)
                elif what.endswith((".limits", ".limits.rate", ".limits.call", "budget.per_day")) or key == "profile":
                    result[key] = value  # a restriction that the importer did not state; the run's ceiling holds anyway
                elif key == "limits":
                    result[key] = self._narrow({}, value, f"{what}.{key}", place)
                else:
                    self._refuse("CSM-C037", f"the fragment would give {what} a {key}", place)
            return result
        if isinstance(mine, list) and isinstance(theirs, list):
            if extra := [item for item in theirs if item not in mine]:
                self._refuse("CSM-C037", f"the fragment would add to {what}: {extra[0]!r}", place)
            return [item for item in mine if item in theirs]
        if mine == theirs:
            return mine
        sizes = [_size(mine), _size(theirs)]
        if None in sizes:
            self._refuse("CSM-C037", f"the fragment would change {what} from {mine!r} to {theirs!r}", place)
            return mine
        return min((mine, theirs), key=lambda value: _size(value) or 0)

    def _refuse(self, code: str, message: str, path: Path, hint: str | None = None) -> None:
        place = self._document.place(path)
        self.findings.append(Finding(code=code, message=message, place=place, path=path, hint=hint))


def _size(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = re.fullmatch(r"([1-9][0-9_]*)(s|m|h|KiB|MiB|GiB|/min)", value) if isinstance(value, str) else None
    return float(int(match[1]) * _ORDER[match[2]]) if match else None


def _substitute(value: Any, values: dict[str, Any], refuse: Callable[[str], None]) -> Any:
    match value:
        case str() if found := _PARAMETER.match(value):
            if found[1] not in values:
                refuse(f"no value for ${{{found[1]}}}")
            return values.get(found[1], value)
        case dict():
            return {key: item if key == "params" else _substitute(item, values, refuse) for key, item in value.items()}
        case list():
            return [_substitute(item, values, refuse) for item in value]
        case _:
            return value

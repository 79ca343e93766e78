"""Source: from YAML text to plain data in which every value's line and column is known.

A workflow is a security boundary, so it has one reading only: duplicate keys, anchors, aliases, merges, tags and
further documents are refused, and scalars follow YAML 1.2's core (`on`, `yes` and `12:30` are strings).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from policies.canonical import digest
from policies.events import clean
from sandbox.language.findings import Finding, FindingsError, Path, Place

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_NODES = 500_000

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml reads ten times as fast, where it is there."""

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9_]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")
HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: plain data, the place of every value and key by path, and the digest of its bytes."""

    file: str
    data: Any
    values: dict[Path, Place]
    keys: dict[Path, Place]
    digest: str

    def place(self, path: Path) -> Place:
        """Return the place of the value at `path`, or of the nearest value around it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Place(file=self.file, line=1, column=1))

    def key(self, path: Path) -> Place:
        """Return the place of the key at `path`, or of its value."""
        return self.keys.get(path) or self.place(path)


def parse(text: bytes, file: str) -> Document:
    """Parse a YAML document. Raises `FindingsError` with C002, C003, C004, C032 or C034."""
    if len(text) > MAX_BYTES:
        raise FindingsError([_finding("CSM-C032", f"larger than {MAX_BYTES} bytes", file)])
    try:
        decoded = text.decode("utf-8")
        builder = _Builder(decoded, file)
        data = builder.document()
    except UnicodeDecodeError as error:
        raise FindingsError([_finding("CSM-C002", f"not UTF-8: {error.reason}", file)]) from error
    except yaml.MarkedYAMLError as error:
        message = clean(" ".join(part for part in (error.context, error.problem) if part))
        raise FindingsError([_finding("CSM-C002", message, file, error.problem_mark)]) from error
    except yaml.YAMLError as error:
        raise FindingsError([_finding("CSM-C002", clean(str(error)), file)]) from error
    except RecursionError as error:
        raise FindingsError([_finding("CSM-C032", "nested too deeply", file)]) from error
    problems = [*builder.findings, *_hidden(decoded, file)]
    if problems:
        raise FindingsError(problems)
    return Document(file=file, data=data, values=builder.values, keys=builder.keys, digest=digest(text))


class _Builder:
    """Builds plain data from the parser's events, and notes where each value and key came from.

    Nothing is built from what is refused: an anchor ends the reading before anything could refer to it.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.values: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        self.findings: list[Finding] = []
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=LOADER)
        self._nodes = 0

    def document(self) -> Any:
        """Return the data of the only document; None for an empty file."""
        data, documents = None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise FindingsError([_finding("CSM-C002", "a second document", self.file, event.start_mark)])
                data = self._value(next(self._events), ())
        return data

    def _value(self, event: yaml.Event, path: Path) -> Any:
        self._refuse(event, path)
        self.values[path] = _place(self.file, event.start_mark)
        match event:
            case yaml.ScalarEvent():
                return _scalar(event.value) if event.implicit[0] else event.value
            case yaml.SequenceStartEvent():
                items: list[Any] = []
                while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
                    items.append(self._value(inner, (*path, len(items))))
                return items
            case yaml.MappingStartEvent():
                return self._mapping(path)
            case _:
                raise TypeError(type(event))

    def _mapping(self, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            self._refuse(event, path)
            if not isinstance(event, yaml.ScalarEvent):
                raise FindingsError([_finding("CSM-C002", "a key must be a plain word", self.file, event.start_mark)])
            name = str(event.value)
            where = (*path, name)
            if name == "<<":
                self.findings.append(_finding("CSM-C004", "merge keys are not allowed", self.file, event.start_mark))
            elif name in result:
                message = f'duplicate key "{clean(name, 80)}", first at line {self.keys[where].line}'
                self.findings.append(_finding("CSM-C003", message, self.file, event.start_mark))
            else:
                self.keys[where] = _place(self.file, event.start_mark)
                result[name] = self._value(next(self._events), where)
                continue
            before = dict(self.values), dict(self.keys)
            self._value(next(self._events), where)  # read on, for what else there is to find
            self.values, self.keys = before
        return result

    def _refuse(self, event: yaml.Event, path: Path) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            hint = "write the value out where it is used"
            message = "anchors and aliases are not allowed"
            raise FindingsError([_finding("CSM-C004", message, self.file, event.start_mark, hint)])
        if getattr(event, "tag", None):
            raise FindingsError([_finding("CSM-C004", "tags are not allowed", self.file, event.start_mark)])
        self._nodes += 1
        if len(path) > MAX_DEPTH or self._nodes > MAX_NODES:
            raise FindingsError([_finding("CSM-C032", "too deep or too many values", self.file, event.start_mark)])


def _scalar(text: str) -> Any:
    """Resolve a plain scalar as YAML 1.2's core does, with `_` allowed between the digits of a number."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) <= 40:
        if _INT.match(text):
            return int(text.replace("_", ""))
        if _FLOAT.match(text):
            return float(text.replace("_", ""))
    return text


def _hidden(text: str, file: str) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), start=1):
        match = HIDDEN.search(line)
        if match:
            place = Place(file=file, line=number, column=match.start() + 1)
            message = f"hidden character U+{ord(match.group()):04X}"
            hint = "a reader would not see it; remove it"
            yield Finding(code="CSM-C034", message=message, place=place, path=(), hint=hint)


def _place(file: str, mark: Any) -> Place:
    return Place(file=file, line=mark.line + 1, column=mark.column + 1) if mark else Place(file=file, line=1, column=1)


def _finding(code: str, message: str, file: str, mark: Any = None, hint: str | None = None) -> Finding:
    return Finding(code=code, message=message, place=_place(file, mark), path=(), hint=hint)

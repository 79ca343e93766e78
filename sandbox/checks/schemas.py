"""Schemas of outputs: closed, self-contained, runnable in bounded time over hostile records, and satisfiable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from policies.events import clean
from sandbox.checks.subject import Subject
from sandbox.findings import Finding

MAX_NODES = 2_000
MAX_DEPTH = 20

_PAIRS = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)


def readable(subject: Subject) -> Iterator[Finding]:
    """C016: a schema's file is missing, or is not strict JSON."""
    for name, output in subject.workflow.outputs.items():
        if problem := subject.facts.problems.get(output.schema):
            yield subject.finding("CSM-C016", problem.message, "outputs", name, "schema", hint=problem.hint)


def closed(subject: Subject) -> Iterator[Finding]:
    """C017: a schema describes an object, and allows nothing else."""
    for name, output in subject.workflow.outputs.items():
        schema = subject.facts.schemas.get(name)
        if output.schema in subject.facts.problems:
            continue
        if not _is_object(schema):
            message = "the schema must be an object with `type: object` and properties"
            yield subject.finding("CSM-C017", message, "outputs", name, "schema")
        elif isinstance(schema, dict) and schema.get("additionalProperties") is not False:
            hint = 'add "additionalProperties": false, so that nothing unexpected is carried out'
            yield subject.finding("CSM-C017", "the schema allows unknown fields", "outputs", name, "schema", hint=hint)


def local(subject: Subject) -> Iterator[Finding]:
    """C018: a schema that would have to fetch something."""
    for name, schema in _objects(subject):
        for reference in _references(schema):
            if not reference.startswith("#"):
                message = f'"$ref": "{clean(reference, 100)}" leads out of the file'
                hint = "copy the definition into $defs"
                yield subject.finding("CSM-C018", message, "outputs", name, "schema", hint=hint)


def runnable(subject: Subject) -> Iterator[Finding]:
    """C017, C045, C046: what the gateway would refuse to run."""
    for name, schema in _objects(subject):
        nodes, depth = _size(schema)
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            message = f"the schema has {nodes} nodes, {depth} deep (at most {MAX_NODES} and {MAX_DEPTH})"
            yield subject.finding("CSM-C046", message, "outputs", name, "schema")
            continue
        try:
            options = jsonschema_rs.RegexOptions()
            jsonschema_rs.Draft202012Validator(schema, offline=True, validate_formats=True, pattern_options=options)
        except jsonschema_rs.ReferencingError:
            continue  # C018 says it better
        except (jsonschema_rs.ValidationError, ValueError) as error:
            text = clean(str(error).splitlines()[0], 200)
            pattern = "pattern" in text or "regex" in text
            hint = "no look-around, no back-reference: patterns run in linear time" if pattern else None
            code = "CSM-C045" if pattern else "CSM-C017"
            yield subject.finding(code, f"the schema is refused: {text}", "outputs", name, "schema", hint=hint)


def satisfiable(subject: Subject) -> Iterator[Finding]:
    """C050: contradictions that need no solver: crossed bounds, empty enums, required fields that are not allowed."""
    for name, schema in _objects(subject):
        for why in _contradictions(schema):
            yield subject.finding("CSM-C050", why, "outputs", name, "schema")


def _contradictions(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required")
    for field in required if isinstance(required, list) else ():
        if field not in schema["properties"] and schema.get("additionalProperties") is False:
            yield f'"{clean(str(field), 80)}" is required but not a property'
    for field, part in schema["properties"].items():
        if part is False or (isinstance(part, dict) and part.get("enum") == []):
            yield f'nothing fits "{clean(field, 80)}"'
        for low, high in _PAIRS if isinstance(part, dict) else ():
            least, most = part.get(low), part.get(high)
            if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
                yield f'nothing fits "{clean(field, 80)}": {low} is above {high}'


def _objects(subject: Subject) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema in subject.facts.schemas.items():
        if isinstance(schema, dict) and _is_object(schema):
            yield name, schema


def _is_object(schema: object) -> bool:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    return isinstance(schema.get("properties"), dict) and bool(schema["properties"])


def _references(schema: object) -> Iterator[str]:
    stack = [schema]
    while stack:
        match stack.pop():
            case dict() as mapping:
                yield from (v for k in ("$ref", "$dynamicRef") if isinstance(v := mapping.get(k), str))
                stack.extend(mapping.values())
            case list() as items:
                stack.extend(items)
            case _:
                pass


def _size(schema: object) -> tuple[int, int]:
    nodes, deepest, stack = 0, 0, [(schema, 1)]
    while stack:
        value, depth = stack.pop()
        nodes, deepest = nodes + 1, max(deepest, depth)
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        stack.extend((item, depth + 1) for item in inner)
    return nodes, deepest


CHECKS = (readable, closed, local, runnable, satisfiable)

"""Schemas of outputs: closed, self-contained, runnable in bounded time over hostile records, and satisfiable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policies.events import clean
from sandbox.checks.subject import Subject
from sandbox.language.findings import Finding
from sandbox.schema_rules import problems

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


def runnable(subject: Subject) -> Iterator[Finding]:
    """C017, C018, C045, C046: what the gateway would refuse to run."""
    for name, schema in _objects(subject):
        for found in problems(schema):
            yield subject.finding(found.code, found.message, "outputs", name, "schema", hint=found.hint)


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


CHECKS = (readable, closed, runnable, satisfiable)

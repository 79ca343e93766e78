"""Outputs: a schema that means something, bounds on fields that exist, a place inside the project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from policies.events import clean
from policies.writes import RESERVED_TOOLS
from sandbox.checks.subject import Subject
from sandbox.findings import Finding, did_you_mean


def names(subject: Subject) -> Iterator[Finding]:
    """C028: an output named like one of the write server's own tools."""
    for name in subject.workflow.outputs:
        if name in RESERVED_TOOLS:
            yield subject.finding("CSM-C028", f'"{name}" is a tool of every write server', "outputs", name, key=True)


def schemas(subject: Subject) -> Iterator[Finding]:
    """C016, C017, C018: schemas that are missing, invalid, open, or that reach out."""
    for name, output in subject.workflow.outputs.items():
        where = ("outputs", name, "schema")
        if problem := subject.facts.problems.get(output.schema):
            yield subject.finding("CSM-C016", problem.message, *where, hint=problem.hint)
            continue
        schema = subject.facts.schemas.get(name)
        if not isinstance(schema, dict) or schema.get("type") != "object" or not schema.get("properties"):
            message = "the schema must be an object with `type: object` and properties"
            yield subject.finding("CSM-C017", message, *where)
            continue
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            yield subject.finding("CSM-C017", f"not a JSON Schema: {clean(error.message, 200)}", *where)
        if schema.get("additionalProperties") is not False:
            hint = 'add "additionalProperties": false, so that nothing unexpected is carried out'
            yield subject.finding("CSM-C017", "the schema allows unknown fields", *where, hint=hint)
        for reference in _references(schema):
            if not reference.startswith("#"):
                message = f'"$ref": "{clean(reference, 100)}" leads out of the file'
                yield subject.finding("CSM-C018", message, *where, hint="copy the definition into $defs")


def _references(schema: object) -> Iterator[str]:
    stack = [schema]
    while stack:
        match stack.pop():
            case dict() as mapping:
                for key in ("$ref", "$dynamicRef", "$schema", "$id"):
                    value = mapping.get(key)
                    if isinstance(value, str) and key in ("$ref", "$dynamicRef"):
                        yield value
                stack.extend(mapping.values())
            case list() as items:
                stack.extend(items)
            case _:
                pass


def fields(subject: Subject) -> Iterator[Finding]:
    """C029: bounds and unique speak of fields that the schema has."""
    for name, output in subject.workflow.outputs.items():
        schema = subject.facts.schemas.get(name)
        properties: dict[str, Any] = schema.get("properties", {}) if isinstance(schema, dict) else {}  # type: ignore[assignment]
        if not properties:
            continue
        for field, bound in output.bounds.items():
            kind = properties.get(field, {}).get("type") if isinstance(properties.get(field), dict) else None
            if kind not in ("number", "integer"):
                message = f'"{field}" is not a numeric field of the schema'
                hint = did_you_mean(field, properties)
                yield subject.finding("CSM-C029", message, "outputs", name, "bounds", field, key=True, hint=hint)
            if bound.min is not None and bound.max is not None and bound.min > bound.max:
                yield subject.finding("CSM-C007", "min is above max", "outputs", name, "bounds", field)
        for position, field in enumerate(output.unique):
            if field not in properties:
                hint = did_you_mean(field, properties)
                message = f'"{field}" is not a field of the schema'
                yield subject.finding("CSM-C029", message, "outputs", name, "unique", position, hint=hint)


def paths(subject: Subject) -> Iterator[Finding]:
    """C021, C033: sinks inside the project, one output a path."""
    seen: set[str] = set()
    for name, output in subject.workflow.outputs.items():
        pure = PurePosixPath(output.sink.path)
        where = ("outputs", name, "sink", "path")
        if (
            pure.is_absolute()
            or ".." in pure.parts
            or "\\" in output.sink.path
            or pure.parts[0] in (".git", ".casemate")
        ):
            yield subject.finding("CSM-C021", f'"{clean(output.sink.path, 100)}" leaves the project', *where)
        if str(pure) in seen:
            yield subject.finding("CSM-C033", f'"{pure}" is written by two outputs', *where)
        seen.add(str(pure))


def proposed(subject: Subject) -> Iterator[Finding]:
    """C013, C031: outputs that are undeclared, or that no stage proposes."""
    workflow = subject.workflow
    used: set[str] = set()
    for index, stage in enumerate(workflow.stages):
        for position, name in enumerate(stage.outputs):
            used.add(name)
            if name not in workflow.outputs:
                hint = did_you_mean(name, workflow.outputs)
                yield subject.finding(
                    "CSM-C013", f'undeclared output "{name}"', "stages", index, "outputs", position, hint=hint
                )
    for name in workflow.outputs.keys() - used:
        yield subject.finding("CSM-C031", f'no stage proposes "{name}"', "outputs", name, key=True)


CHECKS = (names, schemas, fields, paths, proposed)

"""Outputs: sinks that know where they write, bounds on fields that exist, a place inside the project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import msgspec

from policies.events import clean
from policies.writes import RESERVED_TOOLS
from sandbox.anchors import NAME as ANCHORS
from sandbox.checks.egress import host_problem
from sandbox.checks.subject import Subject
from sandbox.findings import Finding, Severity, did_you_mean
from sandbox.placing import TEXT
from sandbox.workflow import OverSpec


def names(subject: Subject) -> Iterator[Finding]:
    """C028: an output named like one of the write server's own tools."""
    for name in subject.workflow.outputs:
        if name in RESERVED_TOOLS:
            yield subject.finding("CSM-C028", f'"{name}" is a tool of every write server', "outputs", name, key=True)


SETTINGS = {
    "dataset": ("path",),
    "file": ("path",),
    "git": ("repository", "branch"),
    "sql": ("url", "table"),
    "mlflow": ("url", "registered_model"),
    "http": ("url",),
    "mcp": ("server", "tool"),
}
"""What each kind of sink needs to know."""

PROTECTED = {".git", ".casemate", "casemate.lock", "approvers"}
"""What an accepted write must never touch: the record, the approvals, and the keys of those who give them."""

_OPTIONAL = {"secret", "mode", "base"}
_VALUES = {
    ("dataset", "partition"): ("run",),
    ("sql", "mode"): ("insert", "upsert"),
    ("http", "mode"): ("idempotent", "once"),
    ("mcp", "mode"): ("idempotent", "once"),
}
"""Settings that have one of a few values, by kind; the others take none of these."""


def sinks(subject: Subject) -> Iterator[Finding]:
    """C039, C049: settings that a sink needs, or does not take."""
    for name, output in subject.workflow.outputs.items():
        sink = output.sink
        given = {key for key, value in msgspec.structs.asdict(sink).items() if value and key != "kind"}
        for wanted in SETTINGS[sink.kind]:
            if wanted not in given:
                yield subject.finding("CSM-C049", f'sink {sink.kind} needs "{wanted}"', "outputs", name, "sink")
        known = {key for kind, key in _VALUES if kind == sink.kind} | set(SETTINGS[sink.kind])
        for extra in sorted(given - _OPTIONAL - known):
            yield subject.finding("CSM-C049", f'sink {sink.kind} takes no "{extra}"', "outputs", name, "sink", extra)
        if sink.kind == "dataset" and sink.path and PurePosixPath(sink.path).suffix not in (".jsonl", ".parquet"):
            message = "a data set is JSON lines or Parquet: end it in .jsonl or .parquet"
            yield subject.finding("CSM-C049", message, "outputs", name, "sink", "path")
        for key, values in [(k, v) for (kind, k), v in _VALUES.items() if kind == sink.kind]:
            if (value := getattr(sink, key)) is not None and value not in values:
                message = f'"{clean(value, 40)}" is not one of: {", ".join(values)}'
                yield subject.finding("CSM-C049", message, "outputs", name, "sink", key)
        if sink.kind == "file" and not _has_text(subject.facts.schemas.get(name)):
            message = f'a file is made of the field "{TEXT}": the schema must require it, as a string'
            yield subject.finding("CSM-C049", message, "outputs", name, "schema")
        if sink.kind == "mcp" and sink.server and sink.server not in subject.workflow.tools:
            hint = did_you_mean(sink.server, subject.workflow.tools)
            message = f'undeclared tool "{sink.server}"'
            yield subject.finding("CSM-C039", message, "outputs", name, "sink", "server", hint=hint)


def _has_text(schema: object) -> bool:
    """Tell whether each record has a text; of a schema that cannot be read, another check speaks."""
    if not isinstance(schema, dict):
        return True
    field = schema.get("properties", {}).get(TEXT)
    return isinstance(field, dict) and field.get("type") == "string" and TEXT in schema.get("required", [])


def approvals(subject: Subject) -> Iterator[Finding]:
    """C047: an approval that is never asked for (a warning)."""
    for name, output in subject.workflow.outputs.items():
        if isinstance(output.approval, OverSpec) and output.approval.over >= output.quota.per_run:
            message = f"more than {output.approval.over} rows never come: the quota is {output.quota.per_run}"
            yield subject.finding("CSM-C047", message, "outputs", name, "approval", severity=Severity.WARNING)


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
            if bound.history is not None and bound.history not in subject.workflow.outputs:
                message = f'history of the undeclared output "{bound.history}"'
                yield subject.finding("CSM-C029", message, "outputs", name, "bounds", field, "history")
            if bound.min is not None and bound.max is not None and bound.min > bound.max:
                yield subject.finding("CSM-C007", "min is above max", "outputs", name, "bounds", field)
        for position, field in enumerate(output.unique):
            if field not in properties:
                hint = did_you_mean(field, properties)
                message = f'"{field}" is not a field of the schema'
                yield subject.finding("CSM-C029", message, "outputs", name, "unique", position, hint=hint)


def anchored(subject: Subject) -> Iterator[Finding]:
    """C061, C064: bounds by a history that cannot be read, or that nobody has signed (a warning: it is held)."""
    problem = subject.facts.problems.get(ANCHORS)
    for name, output in subject.workflow.outputs.items():
        for field, bound in output.bounds.items():
            where = ("outputs", name, "bounds", field)
            if bound.sigma is None:
                continue
            if problem is not None:
                yield subject.finding(problem.code, problem.message, *where, "sigma", hint=problem.hint)
            elif field not in subject.facts.anchors.get(bound.history or name, {}):
                message = f'"{bound.history or name}" has no signed history of "{field}"'
                hint = f"after a run: casemate history anchor WORKFLOW {name} --run RUN"
                yield subject.finding("CSM-C064", message, *where, "sigma", hint=hint, severity=Severity.WARNING)


def scans(subject: Subject) -> Iterator[Finding]:
    """C029, and those of hosts: what becomes of findings, and where links may lead, without the scan that asks."""
    for name, output in subject.workflow.outputs.items():
        for kind in output.findings.keys() - output.scan:
            message = f'"{kind}" is not scanned for'
            yield subject.finding("CSM-C029", message, "outputs", name, "findings", kind, key=True)
        if output.hosts and "links" not in output.scan:
            yield subject.finding("CSM-C029", '"links" is not scanned for', "outputs", name, "hosts", key=True)
        for position, host in enumerate(output.hosts):
            if problem := host_problem(host, wildcard=True):
                yield subject.finding(problem[0], problem[1], "outputs", name, "hosts", position)


def paths(subject: Subject) -> Iterator[Finding]:
    """C021, C033: sinks inside the project, one output a path."""
    seen: set[str] = set()
    for name, output in subject.workflow.outputs.items():
        if not output.sink.path:
            continue
        pure = PurePosixPath(output.sink.path)
        where = ("outputs", name, "sink", "path")
        if pure.is_absolute() or ".." in pure.parts or "\\" in output.sink.path or pure.parts[0] in PROTECTED:
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


CHECKS = (names, fields, anchored, sinks, scans, approvals, paths, proposed)

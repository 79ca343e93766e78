"""Outputs: sinks that know where they write, bounds on fields that exist, a place inside the project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from policies.events import clean
from policies.history import measure_of
from policies.writes import RESERVED_TOOLS
from sandbox.checks.egress import host_problem
from sandbox.checks.subject import Subject
from sandbox.compiler.resolve import key_file
from sandbox.language.findings import Finding, Severity, did_you_mean
from sandbox.language.workflow import ApproversSpec, OverSpec
from sandbox.records.anchors import NAME as ANCHORS
from sandbox.sinks.sqlite import SCHEME as SQLITE


def names(subject: Subject) -> Iterator[Finding]:
    """C028: an output named like one of the write server's own tools."""
    for name in subject.workflow.outputs:
        if name in RESERVED_TOOLS:
            yield subject.finding("CSM-C028", f'"{name}" is a tool of every write server', "outputs", name, key=True)


PROTECTED = {".git", ".casemate", "casemate.lock", "approvers"}
"""What an accepted write must never touch: the record, the approvals, and the keys of those who give them."""


def approvals(subject: Subject) -> Iterator[Finding]:
    """C047: an approval that is never asked for (a warning), or that nobody could give; C022, C023: no such key."""
    for name, output in subject.workflow.outputs.items():
        if isinstance(output.approval, OverSpec) and output.approval.over >= output.quota.per_run:
            message = f"more than {output.approval.over} rows never come: the quota is {output.quota.per_run}"
            yield subject.finding("CSM-C047", message, "outputs", name, "approval", severity=Severity.WARNING)
        if output.approvers is not None:
            yield from _approvers(subject, name, output.approvers)


def _approvers(subject: Subject, name: str, approvers: ApproversSpec) -> Iterator[Finding]:
    place, owners = ("outputs", name, "approvers"), dict[str, str]()
    for position, person in enumerate(approvers.of):
        if problem := subject.facts.problems.get(key_file(person)):
            yield subject.finding(problem.code, problem.message, *place, "of", position, hint=problem.hint)
        elif (other := owners.setdefault(subject.facts.keys[person], person)) != person:
            yield subject.finding("CSM-C047", f"{person} has the key of {other}", *place, "of", position)
    if approvers.need > len(approvers.of):
        message = f"{approvers.need} of {len(approvers.of)} never sign"
        yield subject.finding("CSM-C047", message, *place, "need")


def fields(subject: Subject) -> Iterator[Finding]:
    """C029: bounds and unique speak of fields that the schema has."""
    for name, output in subject.workflow.outputs.items():
        schema = subject.facts.schemas.get(name)
        properties: dict[str, Any] = schema.get("properties", {}) if isinstance(schema, dict) else {}  # type: ignore[assignment]
        if not properties:
            continue
        for field, bound in output.bounds.items():
            measure = measure_of(properties.get(field))
            if measure is None:
                message = f'"{field}" is no number, text or boolean of the schema'
                hint = did_you_mean(field, properties)
                yield subject.finding("CSM-C029", message, "outputs", name, "bounds", field, key=True, hint=hint)
            if bound.history is not None and bound.history not in subject.workflow.outputs:
                message = f'history of the undeclared output "{bound.history}"'
                yield subject.finding("CSM-C029", message, "outputs", name, "bounds", field, "history")
            if measure == "share" and not bound.min is bound.max is None:
                message = f'"{field}" has few values: there is no smallest or largest, only `sigma`'
                yield subject.finding("CSM-C029", message, "outputs", name, "bounds", field)
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
        url = output.sink.url or ""
        path = url.removeprefix(SQLITE) if url.startswith(SQLITE) else output.sink.path
        if not path:
            continue
        pure = PurePosixPath(path)
        where = ("outputs", name, "sink", "path" if output.sink.path else "url")
        if pure.is_absolute() or ".." in pure.parts or "\\" in path or pure.parts[0] in PROTECTED:
            yield subject.finding("CSM-C021", f'"{clean(path, 100)}" leaves the project', *where)
        if output.sink.path and str(pure) in seen:
            yield subject.finding("CSM-C033", f'"{pure}" is written by two outputs', *where)
        if output.sink.path:
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


def probes(subject: Subject) -> Iterator[Finding]:
    """C065, and those of files: probes that cannot be read, or that tell nothing."""
    for name, output in subject.workflow.outputs.items():
        for position, path in enumerate(output.contamination):
            if problem := subject.facts.problems.get(path):
                where = ("outputs", name, "contamination", position)
                yield subject.finding(problem.code, problem.message, *where, hint=problem.hint)
            inputs = [item.path for item in subject.workflow.inputs.values()]
            if same := [other for other in inputs if _same(subject, path, other)]:
                message = f"{path} is an input too ({same[0]}): agents would read what they must not write"
                yield subject.finding("CSM-C065", message, "outputs", name, "contamination", position)


def _same(subject: Subject, path: str, other: str) -> bool:
    files = subject.facts.files
    return path in files and other in files and files[path].digest == files[other].digest


CHECKS = (names, fields, anchored, scans, approvals, probes, paths, proposed)

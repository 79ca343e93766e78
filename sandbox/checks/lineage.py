"""Lineage: a student may not learn from its own initial checkpoint, nor from what is unknown."""

from __future__ import annotations

from collections.abc import Iterator

from policies.events import clean
from sandbox.checks.subject import Subject
from sandbox.language.findings import Finding, Path
from sandbox.language.workflow import Workflow
from sandbox.lineage.case import case_of
from sandbox.lineage.gate import Exposure, LineageVerdict, judge, tell
from sandbox.lineage.grants import Refusal, examine
from sandbox.lineage.graph import HERE
from sandbox.lineage.registry import registry
from sandbox.lineage.types import Case, NodeKind

_STUDENT: Path = ("lineage", "student")
_HINTS = {
    "CSM-L001": "take a teacher of another root; filtering the data does not help",
    "CSM-L002": "name a model of the registry, or data with a verified record",
    "CSM-L004": "name a dated snapshot",
}


def exposure(subject: Subject) -> Iterator[Finding]:
    """L001 to L010: the student, what it is exposed to, and the exceptions."""
    spec = subject.workflow.lineage
    if spec is None:
        return
    facts = subject.facts.lineage
    if facts is None:  # an input that a run wrote would pass for human
        yield subject.finding("CSM-L002", "past runs were not looked at", "lineage", key=True)
        return
    digests = {path: fact.digest for path, fact in subject.facts.files.items()}
    case = case_of(subject.workflow, digests, facts.records)
    whole = judge(case, registry())
    granted: set[str] = set()
    given = {e.target.key for source in (whole.graph.student, HERE) for e in whole.graph.edges.get(source, ())}
    for index, path in enumerate(spec.exceptions):
        document = facts.exceptions.get(path)
        if not isinstance(document, bytes):
            message = f'exception "{clean(path, 100)}" cannot be read'
            yield subject.finding("CSM-L007", message, "lineage", "exceptions", index)
            continue
        result = examine(
            document, facts.approvers, student=case.student.model, datasets=given, today=subject.facts.today
        )
        if isinstance(result, Refusal):
            yield subject.finding(result.code, result.message, "lineage", "exceptions", index)
        else:
            granted.add(result.dataset)
    if whole.problem is None and whole.forged:
        circle = " ← ".join(map(str, whole.forged))
        yield subject.finding("CSM-L005", f"data sets derive from each other in a circle: {circle}", *_STUDENT)
    yield from _refused(subject, case, judge(case, registry(), without=frozenset(granted)) if granted else whole)


def _refused(subject: Subject, case: Case, verdict: LineageVerdict) -> Iterator[Finding]:
    if problem := verdict.problem:
        yield subject.finding(problem.code, problem.message, *_STUDENT, hint=problem.hint)
        return  # without its roots every teacher is a stranger
    for item in verdict.refusals():
        generation = f" (generation {verdict.generation})" if verdict.flywheels else ""
        message = f"{item.node} {item.reason}: {tell(item.path)}{generation}"
        code = item.code()
        yield subject.finding(code, clean(message, 2000), *_where(subject.workflow, case, item), hint=_HINTS[code])


def _where(workflow: Workflow, case: Case, item: Exposure) -> Path:
    """Return the place in the workflow through which an exposure comes in: a model, an input, or a data set."""
    nodes = [edge.target for edge in item.path]
    for alias, model in sorted(workflow.models.items()):
        entry = registry().resolve(model.model)
        if len(nodes) > 2 and nodes[2].kind is NodeKind.MODEL and nodes[2].key in (model.model, entry and entry.id):
            return ("models", alias, "model")
    keys = {node.key for node in nodes}
    for name, spec in sorted(workflow.inputs.items()):
        if any(i.path == spec.path and (i.digest or f"unread {i.path}") in keys for i in case.inputs):
            return ("inputs", name, "path")
    for index, dataset in enumerate(case.datasets):
        if (dataset.digest or f"unread {dataset.path}") in keys:
            return ("lineage", "datasets", index)
    return _STUDENT


CHECKS = (exposure,)

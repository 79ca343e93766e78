"""Semantic checks over a typed workflow, one file a topic, one function a rule; all findings are reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sandbox.checks import (
    egress,
    lineage,
    models,
    outputs,
    repositories,
    schemas,
    servers,
    sinks,
    stages,
    suppress,
    tools,
)
from sandbox.checks import secrets as secrets_
from sandbox.checks.subject import Subject
from sandbox.compiler.resolve import Facts
from sandbox.language.findings import Finding
from sandbox.language.source import Document
from sandbox.language.workflow import Workflow

CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    *stages.CHECKS,
    *models.CHECKS,
    *egress.CHECKS,
    *tools.CHECKS,
    *servers.CHECKS,
    *schemas.CHECKS,
    *outputs.CHECKS,
    *sinks.CHECKS,
    *repositories.CHECKS,
    *secrets_.CHECKS,
    *lineage.CHECKS,
)


def check(workflow: Workflow, document: Document, facts: Facts) -> list[Finding]:
    """Return every finding, in the order of the file."""
    subject = Subject(workflow, document, facts)
    found = suppress.apply(subject, [finding for rule in CHECKS for finding in rule(subject)])
    return sorted(found, key=lambda f: (f.place.line, f.place.column, f.code, f.message))

"""What a check looks at, and how it makes a finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.compiler.resolve import Facts
from sandbox.language.findings import Finding, Path, Severity
from sandbox.language.source import Document
from sandbox.language.workflow import EgressSpec, Workflow


@dataclass(frozen=True, slots=True)
class Subject:
    """A typed workflow, where its values stand, and what the world says about it."""

    workflow: Workflow
    document: Document
    facts: Facts

    def finding(
        self,
        code: str,
        message: str,
        *path: str | int,
        hint: str | None = None,
        key: bool = False,
        severity: Severity = Severity.ERROR,
    ) -> Finding:
        """Make a finding at the value, or with `key` at the key, that `path` leads to."""
        where: Path = tuple(path)
        place = self.document.key(where) if key else self.document.place(where)
        return Finding(code=code, message=message, place=place, path=where, hint=hint, severity=severity)


def every_rule(workflow: Workflow) -> Iterator[tuple[EgressSpec, tuple[str | int, ...]]]:
    """Yield every egress rule, and where it stands."""
    for index, stage in enumerate(workflow.stages):
        yield from ((rule, ("stages", index, "egress", n)) for n, rule in enumerate(stage.egress))
    for name, tool in workflow.tools.items():
        yield from ((rule, ("tools", name, "egress", n)) for n, rule in enumerate(tool.egress))

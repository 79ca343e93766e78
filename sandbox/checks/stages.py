"""Stages: names, needs, inputs, environment, limits, images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath

from sandbox.checks.subject import Subject
from sandbox.findings import Finding, did_you_mean
from sandbox.topology import agent_env

# fmt: off
WEAKENING = frozenset(
    (
        "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "NODE_OPTIONS", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP",
        "PYTHONINSPECT", "PERL5OPT", "PERL5LIB", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS",
        "JDK_JAVA_OPTIONS", "BASH_ENV", "ENV", "GIT_SSH_COMMAND", "GIT_EXEC_PATH", "GCONV_PATH",
        "NODE_TLS_REJECT_UNAUTHORIZED", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_NO_VERIFY", "ALL_PROXY", "all_proxy",
    )
)
# fmt: on
"""Variables with which a workflow could change what a runtime loads, trusts or connects to."""


def duplicate_names(subject: Subject) -> Iterator[Finding]:
    """C028: two stages of one name."""
    seen: set[str] = set()
    for index, stage in enumerate(subject.workflow.stages):
        if stage.name in seen:
            yield subject.finding("CSM-C028", f'stage "{stage.name}" is declared twice', "stages", index, "name")
        seen.add(stage.name)


def needs(subject: Subject) -> Iterator[Finding]:
    """C014, C015: needs of an unknown stage, or in a circle."""
    stages = subject.workflow.stages
    names = {stage.name for stage in stages}
    for index, stage in enumerate(stages):
        for position, need in enumerate(stage.needs):
            if need not in names:
                hint = did_you_mean(need, names - {stage.name})
                yield subject.finding(
                    "CSM-C014", f'unknown stage "{need}"', "stages", index, "needs", position, hint=hint
                )
    graph = {stage.name: [need for need in stage.needs if need in names] for stage in stages}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        index = next(i for i, stage in enumerate(stages) if stage.name == circle[0])
        yield subject.finding("CSM-C015", f"stages need each other: {' → '.join(circle)}", "stages", index, "needs")


def inputs(subject: Subject) -> Iterator[Finding]:
    """C021 to C023: inputs that cannot be read; C028: two of one file name; C007: a stage asks for an unknown one."""
    workflow = subject.workflow
    targets = Counter(PurePosixPath(item.path).name for item in workflow.inputs.values())
    for name, item in workflow.inputs.items():
        problem = subject.facts.problems.get(item.path)
        if problem:
            yield subject.finding(problem.code, problem.message, "inputs", name, "path", hint=problem.hint)
        elif targets[PurePosixPath(item.path).name] > 1:
            message = f"two inputs would both be /inputs/{PurePosixPath(item.path).name}"
            yield subject.finding("CSM-C028", message, "inputs", name, "path")
    for index, stage in enumerate(workflow.stages):
        for position, wanted in enumerate(stage.inputs or []):
            if wanted not in workflow.inputs:
                hint = did_you_mean(wanted, workflow.inputs)
                yield subject.finding(
                    "CSM-C022", f'unknown input "{wanted}"', "stages", index, "inputs", position, hint=hint
                )


def environment(subject: Subject) -> Iterator[Finding]:
    """C027: variables that weaken a runtime, or replace what the cell sets."""
    ours = agent_env("", "")
    for index, stage in enumerate(subject.workflow.stages):
        for name in stage.env:
            if name in WEAKENING or name in ours or name.startswith("LD_"):
                message = f"{name} would change what a runtime loads or where it connects"
                yield subject.finding("CSM-C027", message, "stages", index, "env", name, key=True, hint="remove it")


def limits(subject: Subject) -> Iterator[Finding]:
    """C030: a stage may not have more than the run."""
    budget = subject.workflow.budget
    for index, stage in enumerate(subject.workflow.stages):
        own = stage.limits
        for field, value, ceiling in (
            ("calls", own.calls, budget.calls),
            ("tokens", own.tokens, budget.tokens),
            ("usd", own.usd, budget.usd),
        ):
            if value is not None and value > ceiling:
                message = f"{field} of the stage ({value:g}) is above that of the run ({ceiling:g})"
                yield subject.finding("CSM-C030", message, "stages", index, "limits", field)


def images(subject: Subject) -> Iterator[Finding]:
    """C024: an image that the engine does not have. Silent where no engine was asked."""
    known = subject.facts.images
    for index, stage in enumerate(subject.workflow.stages):
        if stage.image in known and known[stage.image] is None:
            hint = did_you_mean(stage.image, [name for name, found in known.items() if found])
            yield subject.finding("CSM-C024", f'unknown image "{stage.image}"', "stages", index, "image", hint=hint)


CHECKS = (duplicate_names, needs, inputs, environment, limits, images)

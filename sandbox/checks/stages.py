"""Stages: names, needs, inputs, environment, limits, images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath

from policies.cells import MAX_SHARDS
from sandbox.checks.subject import Subject
from sandbox.language.findings import Finding, Severity, did_you_mean
from sandbox.language.workflow import CallSpec, detours, quantity
from sandbox.topology.agent_env import agent_env
from sandbox.topology.shards import SUFFIXES, count_shards

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
        call = own.call or CallSpec()
        for field, value, ceiling in (
            ("tokens", call.tokens, budget.tokens if own.tokens is None else own.tokens),
            ("usd", call.usd, budget.usd if own.usd is None else own.usd),
        ):
            if value is not None and value > ceiling:
                message = f"{field} of one call ({value:g}) is above that of the stage ({ceiling:g})"
                yield subject.finding("CSM-C030", message, "stages", index, "limits", "call", field)


def day(subject: Subject) -> Iterator[Finding]:
    """C030: a day that has less than one run may come to: then no run could ever start."""
    budget = subject.workflow.budget
    for field in ("calls", "tokens", "usd"):
        most, run = getattr(budget.per_day, field, None), getattr(budget, field)
        if most is not None and most < run:
            message = f"{field} of a day ({most:g}) is below that of one run ({run:g}), which is reserved as a whole"
            yield subject.finding("CSM-C030", message, "budget", "per_day", field)


def images(subject: Subject) -> Iterator[Finding]:
    """C024: an image that the engine does not have. Silent where no engine was asked."""
    known = subject.facts.images
    for index, stage in enumerate(subject.workflow.stages):
        if stage.image in known and known[stage.image] is None:
            hint = did_you_mean(stage.image, [name for name, found in known.items() if found])
            yield subject.finding("CSM-C024", f'unknown image "{stage.image}"', "stages", index, "image", hint=hint)


def unpinned(subject: Subject) -> Iterator[Finding]:
    """C025: an image whose name can come to mean another one (a warning): compile pins what it means today."""
    for index, stage in enumerate(subject.workflow.stages):
        if not stage.image.startswith("casemate/") and "@sha256:" not in stage.image:
            message = f'"{stage.image}" may mean another image tomorrow'
            hint = "name it by digest: image@sha256:…"
            where = ("stages", index, "image")
            yield subject.finding("CSM-C025", message, *where, hint=hint, severity=Severity.WARNING)


def host_limits(subject: Subject) -> Iterator[Finding]:
    """C030: more than the engine's host has. Silent where no engine was asked."""
    facts = subject.facts
    for index, stage in enumerate(subject.workflow.stages):
        if facts.host_cpus and stage.limits.cpu > facts.host_cpus:
            message = f"cpu: {stage.limits.cpu:g}, and the host has {facts.host_cpus}"
            yield subject.finding("CSM-C030", message, "stages", index, "limits", "cpu")
        if facts.host_memory and quantity(stage.limits.memory) > facts.host_memory:
            message = f"memory: {stage.limits.memory}, and the host has {facts.host_memory >> 20} MiB"
            yield subject.finding("CSM-C030", message, "stages", index, "limits", "memory")


def hidden(subject: Subject) -> Iterator[Finding]:
    """C034: a prompt with characters that its reader does not see."""
    for name, item in subject.workflow.inputs.items():
        fact = subject.facts.files.get(item.path)
        if fact and fact.hidden:
            line, column, character = fact.hidden
            message = f"{item.path}:{line}:{column} has the hidden character {character}"
            yield subject.finding("CSM-C034", message, "inputs", name, "path", hint="a reader would not see it")


def idle(subject: Subject) -> Iterator[Finding]:
    """C042: a stage that proposes nothing and that no other needs, beside stages that do (a warning)."""
    stages = subject.workflow.stages
    needed = {need for stage in stages for need in stage.needs}
    if any(stage.outputs for stage in stages):
        for index, stage in enumerate(stages):
            if not stage.outputs and stage.name not in needed:
                message = f'"{stage.name}" proposes nothing, and no stage needs it'
                yield subject.finding("CSM-C042", message, "stages", index, "name", severity=Severity.WARNING)


def shards(subject: Subject) -> Iterator[Finding]:
    """C048: shards over an input that the stage does not have, or that has no items, or too many."""
    inputs_ = subject.workflow.inputs
    for index, stage in enumerate(subject.workflow.stages):
        if stage.shards is None:
            continue
        over = stage.shards.over
        if over not in inputs_:
            message = f'shards over the undeclared input "{over}"'
            hint = did_you_mean(over, inputs_)
            yield subject.finding("CSM-C048", message, "stages", index, "shards", "over", hint=hint)
        elif stage.inputs is not None and over not in stage.inputs:
            message = f'"{stage.name}" does not read the input "{over}"'
            yield subject.finding("CSM-C048", message, "stages", index, "shards", "over", hint="add it to inputs")
        elif not inputs_[over].path.endswith(SUFFIXES):
            message = f'"{inputs_[over].path}" is not a file of lines'
            yield subject.finding("CSM-C048", message, "stages", index, "shards", "over", hint="shard over JSON lines")
        elif (fact := subject.facts.files.get(inputs_[over].path)) is not None:
            count = count_shards(fact.items or 0, stage.shards.size)
            if count == 0:
                message = f'"{inputs_[over].path}" has no items'
                yield subject.finding("CSM-C048", message, "stages", index, "shards", "over")
            elif count > MAX_SHARDS:
                message = f"{count:,} shards are more than {MAX_SHARDS:,}"
                yield subject.finding("CSM-C048", message, "stages", index, "shards", "size", hint="make them larger")


def profiles(subject: Subject) -> Iterator[Finding]:
    """C038: what a profile forbids. `explore` reads an untrusted repository; `ci-fork` has no secret at all."""
    workflow = subject.workflow
    for index, stage in enumerate(workflow.stages):
        match stage.profile:
            case "explore":
                if stage.egress:
                    yield subject.finding("CSM-C038", "explore has no egress", "stages", index, "egress")
                if len(stage.outputs) > 1:
                    message = "explore writes nothing but one report"
                    yield subject.finding("CSM-C038", message, "stages", index, "outputs")
                for position, name in enumerate(stage.outputs):
                    output = workflow.outputs.get(name)
                    if output and output.sink.kind not in ("file", "dataset"):
                        message = f"a report is a file, not {output.sink.kind}"
                        yield subject.finding("CSM-C038", message, "stages", index, "outputs", position)
            case "ci-fork":
                yield from _without_secrets(subject, index)
            case _:
                pass


def _without_secrets(subject: Subject, index: int) -> Iterator[Finding]:
    workflow, stage = subject.workflow, subject.workflow.stages[index]
    for position, alias in enumerate(stage.models):
        for reached in sorted(detours(workflow, alias)):
            if not workflow.models[reached].secret:
                continue
            message = f'model "{alias}" has a secret'
            if reached != alias:
                message = f'model "{alias}" may become "{reached}", which has a secret'
            yield subject.finding("CSM-C038", message, "stages", index, "models", position)
    for position, rule in enumerate(stage.egress):
        if rule.credential is not None:
            yield subject.finding(
                "CSM-C038", f"requests to {rule.host} carry a secret", "stages", index, "egress", position
            )
    for name in stage.tools:
        if name in workflow.tools and workflow.tools[name].secret:
            yield subject.finding("CSM-C038", f'tool "{name}" has a secret', "stages", index, "tools", name, key=True)
    for position, name in enumerate(stage.outputs):
        output = workflow.outputs.get(name)
        if output and output.sink.secret:
            yield subject.finding("CSM-C038", f'output "{name}" has a secret', "stages", index, "outputs", position)
        if output and output.approval != "never":
            message = f'output "{name}" waits for an approval that nobody gives to a fork'
            yield subject.finding("CSM-C047", message, "stages", index, "outputs", position)


CHECKS = (
    duplicate_names,
    needs,
    inputs,
    environment,
    limits,
    day,
    images,
    unpinned,
    host_limits,
    hidden,
    idle,
    shards,
    profiles,
)

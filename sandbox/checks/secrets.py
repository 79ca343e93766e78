"""Secrets: names in the workflow, values never."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.secret_rules import find_secrets
from sandbox.checks.subject import Subject, every_rule
from sandbox.language.findings import Finding, Path, did_you_mean
from sandbox.language.workflow import Workflow, sink_destination, tool_destination

_TELLING = re.compile(r"(KEY|TOKEN|SECRET|PASSW(OR)?D|CREDENTIAL)", re.IGNORECASE)


def literal(subject: Subject) -> Iterator[Finding]:
    """C008: a value that looks like a secret, anywhere in the file; or a variable that is named like one."""
    hint = "declare it under secrets: by name, with the place where this host finds its value"
    for path, text in _strings(subject.document.data, ()):
        for rule in find_secrets(text):
            yield subject.finding("CSM-C008", f"this looks like a secret ({rule})", *path, hint=hint)
    for index, stage in enumerate(subject.workflow.stages):
        for name, value in stage.env.items():
            if _TELLING.search(name) and len(value) >= 8:
                message = f"{name} looks like a secret; an agent never gets one"
                yield subject.finding("CSM-C008", message, "stages", index, "env", name, hint=hint)


def declared(subject: Subject) -> Iterator[Finding]:
    """C009, C010: secrets that are used but not declared, or declared but not used."""
    workflow = subject.workflow
    used: set[str] = set()
    for secret, where, _ in _uses(workflow):
        used.add(secret)
        if secret not in workflow.secrets:
            hint = did_you_mean(secret, workflow.secrets)
            yield subject.finding("CSM-C009", f'undeclared secret "{secret}"', *where, hint=hint)
    for name in workflow.secrets.keys() - used:
        hint = "remove it: a run asks the host for every declared secret"
        yield subject.finding("CSM-C010", f'secret "{name}" is used by nothing', "secrets", name, key=True, hint=hint)


def one_destination(subject: Subject) -> Iterator[Finding]:
    """C009: one secret for two destinations would let one of them act as the other's client."""
    seen: dict[str, tuple[str, str]] = {}
    for secret, where, destination in _uses(subject.workflow):
        if seen.setdefault(secret, destination) != destination:
            message = f'secret "{secret}" would go to two destinations'
            yield subject.finding("CSM-C009", message, *where, hint="declare one secret for each")


def _uses(workflow: Workflow) -> Iterator[tuple[str, Path, tuple[str, str]]]:
    """Yield each use of a secret: its name, where it stands, and who would hold it for which destination."""
    for alias, model in workflow.models.items():
        if model.secret is not None:
            yield model.secret, ("models", alias, "secret"), ("llm", model.base_url or model.provider)
    for rule, place in every_rule(workflow):
        if rule.credential is not None:
            yield rule.credential.secret, (*place, "credential", "secret"), ("firewall", rule.host)
    for name, tool in workflow.tools.items():
        if tool.secret is not None:
            yield tool.secret, ("tools", name, "secret"), ("gateway", tool_destination(name, tool))
    for name, output in workflow.outputs.items():
        if output.sink.secret is not None:
            yield output.sink.secret, ("outputs", name, "sink", "secret"), ("customs", sink_destination(output))


def _strings(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    match value:
        case str():
            yield path, value
        case dict():
            for key, item in value.items():
                yield from _strings(item, (*path, key))
        case list():
            for index, item in enumerate(value):
                yield from _strings(item, (*path, index))
        case _:
            pass


def to_an_agent(subject: Subject) -> Iterator[Finding]:
    """C008: a variable of a stage that asks for a declared secret; no agent ever gets one."""
    asked = {text for name, spec in subject.workflow.secrets.items() for text in (name, spec.key)}
    for index, stage in enumerate(subject.workflow.stages):
        for name, value in stage.env.items():
            if value.strip("${} ") in asked:
                message = f"{name} asks for a secret; an agent never gets one"
                yield subject.finding("CSM-C008", message, "stages", index, "env", name, hint="remove it")


CHECKS = (literal, to_an_agent, declared, one_destination)

"""Sinks `git`: a repository at one host, branches of our own, and records that are a title, a body and a patch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from policies.events import clean
from sandbox.checks.sinks import url_finding
from sandbox.checks.subject import Subject
from sandbox.compiler.repositories import BRANCH, GLOB, PREFIX, project_of
from sandbox.language.findings import Finding
from sandbox.language.sinks import PullRequestSpec, SinkSpec, api_of

_AUTHOR = re.compile(r"[^<>@\x00-\x1f\x7f]{1,100} <[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,200}>")
_USER = re.compile(r"[A-Za-z0-9._-]{1,100}")
_PROJECT = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_FIELDS = {"title", "body", "patch"}


def repositories(subject: Subject) -> Iterator[Finding]:
    """C049, and those of hosts: settings of a sink `git`."""
    for name, output in subject.workflow.outputs.items():
        sink, where = output.sink, ("outputs", name, "sink")
        if sink.kind != "git" or not sink.repository:
            continue
        yield from url_finding(subject, sink.repository, ("https",), *where, "repository")
        yield from _branches(subject, sink, *where)
        if sink.author is not None and not _AUTHOR.fullmatch(sink.author):
            yield subject.finding("CSM-C049", 'an author reads "Name <name@host>"', *where, "author")
        if sink.user is not None and not _USER.fullmatch(sink.user):
            yield subject.finding("CSM-C049", "a user is one word of plain letters", *where, "user")
        for field in ("paths", "unprotected") if sink.patch is not None else ():
            for position, glob in enumerate(getattr(sink.patch, field)):
                if not GLOB.fullmatch(glob) or ".." in glob.split("/"):
                    message = f'"{clean(glob, 60)}" matches no path that a patch may have'
                    yield subject.finding("CSM-C049", message, *where, "patch", field, position)
        if sink.pull_request is not None:
            yield from _pull_request(subject, sink, *where)


def proposals(subject: Subject) -> Iterator[Finding]:
    """C049: records of a sink `git` that are no proposals, and what cannot be done with a patch."""
    for name, output in subject.workflow.outputs.items():
        if output.sink.kind != "git":
            continue
        if not _proposes(subject.facts.schemas.get(name)):
            message = "a record is a title and a patch, and perhaps a body: texts, the first two required, nothing else"
            yield subject.finding("CSM-C049", message, "outputs", name, "schema")
        if output.findings.get("pii") == "redact":
            message = "nothing is taken out of a patch: reject or hold"
            yield subject.finding("CSM-C049", message, "outputs", name, "findings", "pii")


def _branches(subject: Subject, sink: SinkSpec, *where: str) -> Iterator[Finding]:
    base, prefix = sink.base or "", sink.prefix or PREFIX
    if base and not BRANCH.fullmatch(base):
        yield subject.finding("CSM-C049", f'"{clean(base, 60)}" is no name of a branch', *where, "base")
    if not BRANCH.fullmatch(prefix.removesuffix("/")) or not prefix.endswith("/"):
        yield subject.finding("CSM-C049", "a prefix of branches is a name that ends in /", *where, "prefix")
    elif f"{base}/".startswith(prefix):
        yield subject.finding("CSM-C049", "the base is one of the branches that proposals get", *where, "base")


def _pull_request(subject: Subject, sink: SinkSpec, *where: str) -> Iterator[Finding]:
    spec, project = sink.pull_request, project_of(sink.repository or "")
    if spec is None:
        return
    yield from url_finding(subject, api_of(sink.repository or "", spec), ("https",), *where, "pull_request")
    depths = {"gitlab": range(1, 20), "pagure": range(2)}.get(spec.forge, range(1, 2))
    if not _PROJECT.fullmatch(project) or project.count("/") not in depths:
        message = f"the path of the repository is no project of {spec.forge}"
        yield subject.finding("CSM-C049", message, *where, "repository")
    if spec.forge == "pagure":
        yield from _pagure(subject, sink, spec, *where)


def _pagure(subject: Subject, sink: SinkSpec, spec: PullRequestSpec, *where: str) -> Iterator[Finding]:
    """What a program cannot ask of Pagure, or without which Pagure takes nothing of it."""
    if sink.user is None:
        message, hint = "Pagure takes a token only with the name of its owner", "say `user: NAME`"
        yield subject.finding("CSM-C049", message, *where, "pull_request", "forge", hint=hint)
    if spec.labels:
        message, hint = "Pagure has no way to attach labels but its pages", "leave `labels` out"
        yield subject.finding("CSM-C049", message, *where, "pull_request", "labels", hint=hint)
    if spec.draft:
        message, hint = "Pagure knows no drafts: anybody who may can merge it", "leave `draft` out"
        yield subject.finding("CSM-C049", message, *where, "pull_request", "draft", hint=hint)


def _proposes(schema: object) -> bool:
    """Tell whether records are proposals; of a schema that cannot be read, another check speaks."""
    if not isinstance(schema, dict):
        return True
    fields: dict[str, Any] = schema.get("properties", {})
    texts = all(isinstance(field, dict) and field.get("type") == "string" for field in fields.values())
    return texts and fields.keys() <= _FIELDS and {"title", "patch"} <= fields.keys() & set(schema.get("required", []))


CHECKS = (repositories, proposals)

"""Sinks: each kind with what it needs and nothing else, at one place that can be named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec

from policies.events import clean
from policies.registered import NAME, ROOT, record_problem
from policies.statements import IDENTIFIER
from sandbox.checks.egress import host_problem, network_problem
from sandbox.checks.subject import Subject
from sandbox.language.findings import Finding, Severity, did_you_mean
from sandbox.language.workflow import OutputSpec
from sandbox.sinks.placing import TEXT
from sandbox.sinks.sqlite import SCHEME as SQLITE

SETTINGS = {
    "dataset": ("path",),
    "file": ("path",),
    "git": ("repository", "base"),
    "sql": ("url", "table"),
    "mlflow": ("url", "registered_model", "source"),
    "http": ("url",),
    "mcp": ("server", "tool"),
}
"""What each kind of sink needs to know."""
_ROW_BY_ROW = ("http", "mcp")

_OPTIONAL = {
    "dataset": {"partition"},
    "git": {"secret", "prefix", "author", "user", "patch", "pull_request", "addresses"},
    "sql": {"secret", "mode", "addresses"},
    "mlflow": {"secret", "auth", "alias", "addresses"},
    "http": {"secret", "auth", "mode", "addresses"},
    "mcp": {"mode"},
}
_VALUES = {
    ("dataset", "partition"): ("run",),
    ("sql", "mode"): ("insert", "upsert"),
    ("http", "mode"): ("idempotent", "once"),
    ("mcp", "mode"): ("idempotent", "once"),
}
"""Settings that have one of a few values, by kind."""


def settings(subject: Subject) -> Iterator[Finding]:
    """C039, C049: settings that a sink needs, or does not take."""
    for name, output in subject.workflow.outputs.items():
        sink = output.sink
        given = {key for key, value in msgspec.structs.asdict(sink).items() if value and key != "kind"}
        for wanted in SETTINGS[sink.kind]:
            if wanted not in given:
                yield subject.finding("CSM-C049", f'sink {sink.kind} needs "{wanted}"', "outputs", name, "sink")
        for extra in sorted(given - _OPTIONAL.get(sink.kind, set()) - set(SETTINGS[sink.kind])):
            yield subject.finding("CSM-C049", f'sink {sink.kind} takes no "{extra}"', "outputs", name, "sink", extra)
        for key, values in [(k, v) for (kind, k), v in _VALUES.items() if kind == sink.kind]:
            if (value := getattr(sink, key)) is not None and value not in values:
                message = f'"{clean(value, 40)}" is not one of: {", ".join(values)}'
                yield subject.finding("CSM-C049", message, "outputs", name, "sink", key)
        for position, text in enumerate(sink.addresses):
            if problem := network_problem(text):
                yield subject.finding("CSM-C051", problem, "outputs", name, "sink", "addresses", position)
        if sink.kind == "mcp" and sink.server and sink.server not in subject.workflow.tools:
            hint = did_you_mean(sink.server, subject.workflow.tools)
            message = f'undeclared tool "{sink.server}"'
            yield subject.finding("CSM-C039", message, "outputs", name, "sink", "server", hint=hint)


def places(subject: Subject) -> Iterator[Finding]:
    """C049, and those of hosts: where a sink is, and whether the records fit it."""
    for name, output in subject.workflow.outputs.items():
        where, sink = ("outputs", name, "sink"), output.sink
        if sink.kind == "dataset" and sink.path and PurePosixPath(sink.path).suffix not in (".jsonl", ".parquet"):
            message = "a data set is JSON lines or Parquet: end it in .jsonl or .parquet"
            yield subject.finding("CSM-C049", message, *where, "path")
        if sink.kind == "file" and not _has_text(subject.facts.schemas.get(name)):
            message = f'a file is made of the field "{TEXT}": the schema must require it, as a string'
            yield subject.finding("CSM-C049", message, "outputs", name, "schema")
        if sink.kind in ("http", "mlflow") and sink.url:
            yield from url_finding(subject, sink.url, ("https",), *where, "url")
        if sink.kind == "sql" and sink.url and not sink.url.startswith(SQLITE):
            yield from url_finding(subject, sink.url, ("postgresql",), *where, "url")
        if sink.kind in _ROW_BY_ROW and output.atomic == "batch":
            message = f"a sink {sink.kind} takes one row after another: what is judged as a batch may arrive in part"
            yield subject.finding("CSM-C049", message, "outputs", name, "atomic", severity=Severity.WARNING)
        if sink.kind == "sql":
            yield from _table(subject, name, output)
        if sink.kind == "mlflow":
            yield from _registered(subject, name, output)


def url_finding(subject: Subject, text: str, schemes: tuple[str, ...], *where: str) -> Iterator[Finding]:
    """C049, and those of hosts: a URL that is no plain place at one host."""
    try:
        url = urlsplit(text)
        port, host = url.port or 443, url.hostname or ""
    except ValueError:
        url, port, host = urlsplit(""), 0, ""
    plain = not (url.password or url.query or url.fragment or (url.username and url.scheme == "https"))
    if url.scheme not in schemes or not port or not plain:
        forms = {"https": "https://host[:port]/path", "postgresql": "postgresql://user@host[:port]/database"}
        message = f"it reads {' or '.join(forms[scheme] for scheme in schemes)}, without a password, query or fragment"
        yield subject.finding("CSM-C049", message, *where)
    elif problem := host_problem(host, wildcard=False):
        yield subject.finding(problem[0], problem[1], *where)


def _table(subject: Subject, name: str, output: OutputSpec) -> Iterator[Finding]:
    sink, schema = output.sink, subject.facts.schemas.get(name)
    columns: Any = schema.get("properties", {}) if isinstance(schema, dict) else {}
    if sink.table and not re.fullmatch(rf"{IDENTIFIER}(\.{IDENTIFIER})?", sink.table):
        message = "a table is a name, or schema.name, of letters, digits and _"
        yield subject.finding("CSM-C049", message, "outputs", name, "sink", "table")
    for column in columns:
        if not re.fullmatch(IDENTIFIER, column):
            message = f'"{clean(column, 60)}" is no name of a column'
            yield subject.finding("CSM-C049", message, "outputs", name, "schema")
    if sink.mode == "upsert" and not output.unique:
        message = "upsert needs `unique`: the fields that a row is known by"
        yield subject.finding("CSM-C049", message, "outputs", name, "sink", "mode")


def _registered(subject: Subject, name: str, output: OutputSpec) -> Iterator[Finding]:
    sink, schema = output.sink, subject.facts.schemas.get(name)
    for key, form in (("registered_model", NAME), ("alias", NAME), ("source", ROOT)):
        value = getattr(sink, key)
        if value and not (re.fullmatch(form, value) and ".." not in value):
            message = f'"{clean(value, 60)}" is no plain {key.replace("_", " ")}'
            yield subject.finding("CSM-C049", message, "outputs", name, "sink", key)
    if isinstance(schema, dict) and (problem := record_problem(schema)):
        yield subject.finding("CSM-C049", problem, "outputs", name, "schema")


def _has_text(schema: object) -> bool:
    """Tell whether each record has a text; of a schema that cannot be read, another check speaks."""
    if not isinstance(schema, dict):
        return True
    field = schema.get("properties", {}).get(TEXT)
    return isinstance(field, dict) and field.get("type") == "string" and TEXT in schema.get("required", [])


CHECKS = (settings, places)

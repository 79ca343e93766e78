"""Verbs about where models and workflows come from: lineage, and the import of other systems' workflows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.cli.base import PATH, as_json_option, say, say_json, warn, workflow_argument
from sandbox.language.findings import FindingsError

if TYPE_CHECKING:
    from sandbox.lineage.gate import LineageVerdict


@click.group()
def lineage() -> None:
    """Which models a student would learn from, directly or through others' data."""


@lineage.command(name="check")
@workflow_argument
@as_json_option
def lineage_check(workflow: Path, as_json: bool) -> int:
    """Say how the student of a workflow stands to its teachers, and why. Exit 4 if the gate refuses."""
    from sandbox.lineage.commands import check_json, check_text

    verdict = _verdict(workflow)
    if as_json:
        say_json(check_json(verdict))
    else:
        say(check_text(verdict))
    return ExitCode.REFUSED if verdict.verdict.refused else ExitCode.DONE


@lineage.command(name="graph")
@workflow_argument
@click.option("--format", "form", type=click.Choice(["text", "dot", "svg"]), default="text", help="How to draw it.")
def lineage_graph(workflow: Path, form: str) -> int:
    """Show who learned from whom, as text, DOT or SVG."""
    from sandbox.lineage.commands import graph_dot, graph_svg, graph_text

    verdict = _verdict(workflow)
    dot = graph_dot(verdict)
    say(graph_text(verdict) if form == "text" else graph_svg(dot) if form == "svg" else dot)
    return ExitCode.DONE


def _verdict(path: Path) -> LineageVerdict:
    from sandbox.compiler.resolve import resolve
    from sandbox.lineage.commands import verdict_of
    from sandbox.lineage.types import LineageFacts
    from sandbox.project import open_project

    project = open_project(path)
    if project.workflow is None:
        raise FindingsError(project.findings)
    facts = resolve(project.workflow, project.root, {}, project.fragments)
    digests = {name: fact.digest for name, fact in facts.files.items()}
    return verdict_of(project.workflow, digests, facts.lineage or LineageFacts())


@click.group(name="import")
def import_() -> None:
    """Workflows of other systems, made ours without dropping a restriction."""


@import_.command(name="gh-aw")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("-o", "--output", type=PATH, help="The folder to write to (beside FILE.md, with its name).")
@click.option("--accept", multiple=True, metavar="KEY", help="A restriction without equivalent that you answer for.")
def gh_aw(file: Path, output: Path | None, accept: tuple[str, ...]) -> int:
    """Turn a GitHub Agentic Workflow into ours, and list what has no equivalent. Exit 3 if a restriction gets lost."""
    from sandbox.files import read_inside
    from sandbox.importer.gh_aw import import_gh_aw, render
    from sandbox.language.source import MAX_BYTES

    def read(name: str) -> bytes | None:
        try:
            return read_inside(file.resolve().parent, name, MAX_BYTES)
        except CasemateError:
            return None

    try:
        text = file.read_bytes()
    except OSError as error:
        raise CasemateError("CSM-C001", f"{file}: {error.strerror}", exit_code=ExitCode.USAGE) from error
    imported = import_gh_aw(text, file.name, read=read)
    warn(render(imported))
    unknown = set(accept) - {note.key for note in imported.notes}
    if unknown:
        message = f"no such key to accept: {', '.join(sorted(unknown))}"
        raise CasemateError("CSM-R018", message, exit_code=ExitCode.USAGE)
    lost = [note.key for note in imported.unaccepted(accept)]
    if lost:
        warn(f"nothing is written: answer for each of these with --accept: {', '.join(lost)}")
        return ExitCode.FINDINGS
    folder = output or file.with_suffix("")
    for name, content in sorted(imported.files.items()):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        say(str(target))
    return ExitCode.DONE


COMMANDS: tuple[click.Command, ...] = (lineage, import_)

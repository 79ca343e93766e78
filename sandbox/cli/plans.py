"""Verbs about what a workflow allows: nothing here starts anything."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.cli.base import (
    PATH,
    as_json_option,
    console,
    either_argument,
    load,
    report_findings,
    say,
    say_json,
    workflow_argument,
)
from sandbox.language.findings import Severity, has_errors

if TYPE_CHECKING:
    from sandbox.plans.diff import Difference


@click.command()
@workflow_argument
@as_json_option
@click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1.0, for a CI host.")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
def check(workflow: Path, as_json: bool, as_sarif: bool, strict: bool) -> int:
    """Say what is wrong with a workflow. Exit 3 if anything is an error. Nothing is started."""
    from sandbox.project import open_project

    findings = open_project(workflow).findings
    if strict:
        findings = [replace(finding, severity=Severity.ERROR) for finding in findings]
    if as_sarif:
        from sandbox.language.sarif import sarif

        say_json(sarif(findings, version("casemate")))
        return ExitCode.FINDINGS if has_errors(findings) else ExitCode.DONE
    code = report_findings(findings, as_json=as_json)
    if not findings and not as_json:
        say(f"{workflow}: no findings")
    return code


@click.command(name="compile")
@workflow_argument
@click.option("-o", "--output", type=PATH, help="Write the plan here, not to the screen.")
def compile_(workflow: Path, output: Path | None) -> int:
    """Compile a workflow to its plan: canonical JSON, the same bytes for the same input."""
    from policies.slices import seal
    from sandbox.project import plan_text

    plan, _ = load(workflow)
    data = plan_text(plan)
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        output.write_bytes(data)
        say(f"{output}: {seal(plan).plan}, {len(data):,} bytes")
    return ExitCode.DONE


@click.command()
@either_argument
@click.option("--stage", help="Only this stage.")
@click.option("--diff", type=PATH, metavar="OLD", help="Say what widened and what narrowed since OLD.")
@as_json_option
def explain(workflow: Path, stage: str | None, diff: Path | None, as_json: bool) -> int:
    """Say in words what each stage may reach, read, spend and propose, and who holds which secret."""
    from sandbox.plans.diff import difference, permissions
    from sandbox.plans.explain import explain as lines
    from sandbox.project import plan_text

    plan, _ = load(workflow)
    if stage is not None and stage not in {s.name for s in plan.stages}:
        raise CasemateError("CSM-R018", f"no stage {stage!r}", exit_code=ExitCode.USAGE)
    if diff is not None:
        _print_difference(difference(permissions(load(diff)[0]), permissions(plan)), as_json=as_json)
    elif as_json:
        sys.stdout.buffer.write(plan_text(plan))
    else:
        for line in lines(plan, stage):
            say(line)
    return ExitCode.DONE


@click.command()
@either_argument
@as_json_option
def lock(workflow: Path, as_json: bool) -> int:
    """Approve what a workflow allows now: write it to casemate.lock, and say what is wider than before."""
    from policies.slices import seal
    from sandbox.plans.lock import approve, path_of

    plan, root = load(workflow)
    _print_difference(approve(plan, root), as_json=as_json)
    if not as_json:
        say(f"{path_of(root)}: approved {plan.name} {seal(plan).plan}")
    return ExitCode.DONE


def _print_difference(change: Difference, *, as_json: bool) -> None:
    if as_json:
        say_json({"widened": change.widened, "narrowed": change.narrowed})
        return
    for mark, statements in (("[red]wider  [/]", change.widened), ("[green]narrower[/]", change.narrowed)):
        for statement in statements:
            console().print(mark, end=" ")
            console().print(statement, markup=False)
    if not (change.widened or change.narrowed):
        say("the same permissions")


COMMANDS: tuple[click.Command, ...] = (check, compile_, explain, lock)

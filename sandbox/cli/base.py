"""What every verb shares: arguments, output, and how a failure is told.

Imports are kept light, and each verb brings its own: `casemate check` answers in a fraction of a second.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.language.findings import Finding, FindingsError, has_errors

if TYPE_CHECKING:
    from rich.console import Console

    from policies.plan import Plan
    from sandbox.records.store import Store

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def workflow_argument(function: F) -> F:
    """The argument of verbs that take a workflow."""
    return click.argument("workflow", type=PATH, metavar="WORKFLOW")(function)


def either_argument(function: F) -> F:
    """The argument of verbs that take a workflow or a compiled plan."""
    return click.argument("workflow", type=PATH, metavar="WORKFLOW|PLAN")(function)


def run_argument(function: F) -> F:
    """The argument of verbs that look at a run."""
    return click.argument("run", default="latest", metavar="RUN")(function)


def say(text: str) -> None:
    """Print plain text."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """Print plain text for people, beside the output."""
    sys.stderr.write(text + "\n")


def say_json(value: object) -> None:
    """Print JSON."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


@cache
def console(*, stderr: bool = False) -> Console:
    """Return a console for tables and colours (none where nobody sees them, or `NO_COLOR` is set)."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=None if stream.isatty() else 140)


def fail(error: CasemateError) -> ExitCode:
    """Print an error; return its exit code."""
    warn(error.render())
    return error.exit_code


def report_findings(findings: Sequence[Finding], *, as_json: bool) -> ExitCode:
    """Print findings; return 3 when one is an error."""
    if as_json:
        say_json([finding.as_json() for finding in findings])
    else:
        for finding in findings:
            warn(finding.render())
    return ExitCode.FINDINGS if has_errors(findings) else ExitCode.DONE


def store(near: Path | None = None) -> Store:
    """Return where runs live: CASEMATE_HOME, or `.casemate` beside the workflow, or here."""
    from sandbox.records.store import Store

    home = os.environ.get("CASEMATE_HOME")
    return Store(Path(home) if home else (near or Path.cwd()) / ".casemate")


def load(path: Path) -> tuple[Plan, Path]:
    """Return a plan and its project's folder, from a workflow or from a plan file."""
    from sandbox.project import compile_project, open_plan, open_project

    if path.suffix == ".json":
        return open_plan(path), path.resolve().parent
    from sandbox.engine.host import connect

    project = open_project(path)
    if has_errors(project.findings):
        raise FindingsError(project.findings)
    for finding in project.findings:
        warn(finding.render())
    return compile_project(project, connect()), project.root

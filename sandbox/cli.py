"""The command line. Each verb reads, calls one function, prints; every failure has a code, a place and a hint."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from policies.errors import CasemateError
from policies.plan import Plan
from policies.slices import seal
from policies.vocabulary import EventName, ExitCode, Verdict
from sandbox.enforce import refuse_unenforced
from sandbox.findings import Finding, FindingsError, Severity, has_errors
from sandbox.project import Project, compile_project, open_plan, open_project, plan_text
from sandbox.store import Store

if TYPE_CHECKING:
    from sandbox.diff import Difference

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
log_app = typer.Typer(no_args_is_help=True, help="The event log of a run.")
images_app = typer.Typer(no_args_is_help=True, help="The trusted images.")
app.add_typer(log_app, name="log")
app.add_typer(images_app, name="images")

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True, highlight=False, soft_wrap=True)

WorkflowArg = Annotated[Path, typer.Argument(help="A workflow (YAML).", metavar="WORKFLOW")]
EitherArg = Annotated[
    Path, typer.Argument(help="A workflow (YAML) or a compiled plan (JSON).", metavar="WORKFLOW|PLAN")
]
RunArg = Annotated[str, typer.Argument(help="A run, or `latest`.", metavar="RUN")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> NoReturn:
    """Run the command line; never show a traceback."""
    try:
        code = app(standalone_mode=False)
    except CasemateError as error:
        code = fail(error)
    except FindingsError as error:
        code = report_findings(error.findings, as_json=False)
    except typer.Exit as done:
        code = done.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - a user sees a code, not our stack
        if hasattr(error, "format_message"):  # an error of the option parser
            err.print(f"CSM-R018: {error.format_message()}", markup=False)
            code = ExitCode.USAGE
        else:
            code = fail(CasemateError("CSM-R019", f"{type(error).__name__}: {error}"))
    sys.exit(int(code or 0))


def fail(error: CasemateError) -> ExitCode:
    """Print an error; return its exit code."""
    err.print(error.render(), markup=False)
    return error.exit_code


def report_findings(findings: list[Finding], *, as_json: bool) -> ExitCode:
    """Print findings; return 3 when one is an error."""
    if as_json:
        out.print_json(json.dumps([finding.as_json() for finding in findings]))
    else:
        for finding in findings:
            err.print(finding.render(), markup=False)
    return ExitCode.FINDINGS if has_errors(findings) else ExitCode.DONE


def _store(near: Path | None = None) -> Store:
    home = os.environ.get("CASEMATE_HOME")
    return Store(Path(home) if home else (near or Path.cwd()) / ".casemate")


def _find(run: str) -> tuple[Store, str]:
    store = _store()
    run = store.latest() if run == "latest" else run
    store.folder(run)
    return store, run


def _plan(path: Path) -> tuple[Plan, Path]:
    """Return a plan and its project's folder, from a workflow or from a plan file."""
    if path.suffix == ".json":
        return open_plan(path), path.resolve().parent
    from sandbox.host import connect

    project = open_project(path)
    if has_errors(project.findings):
        raise FindingsError(project.findings)
    _warn(project)
    return compile_project(project, connect()), project.root


def _warn(project: Project) -> None:
    for finding in project.findings:
        err.print(finding.render(), markup=False)


@app.command()
def check(
    workflow: WorkflowArg,
    as_json: JsonOpt = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="Print SARIF 2.1.0, for a CI host.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Count warnings as errors.")] = False,
) -> int:
    """Say what is wrong with a workflow. Exit 3 if anything is an error. Nothing is started."""
    findings = open_project(workflow).findings
    if strict:
        findings = [replace(finding, severity=Severity.ERROR) for finding in findings]
    if as_sarif:
        from sandbox.sarif import sarif

        out.print_json(json.dumps(sarif(findings, version("casemate"))))
        return ExitCode.FINDINGS if has_errors(findings) else ExitCode.DONE
    code = report_findings(findings, as_json=as_json)
    if not findings and not as_json:
        out.print(f"{workflow}: no findings", markup=False)
    return code


@app.command(name="compile")
def compile_(
    workflow: WorkflowArg,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the plan here, not to the screen.")
    ] = None,
) -> int:
    """Compile a workflow to its plan: canonical JSON, the same bytes for the same input."""
    plan, _ = _plan(workflow)
    data = plan_text(plan)
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        output.write_bytes(data)
        out.print(f"{output}: {seal(plan).plan}, {len(data):,} bytes", markup=False)
    return ExitCode.DONE


@app.command()
def explain(
    workflow: EitherArg,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    diff: Annotated[
        Path | None, typer.Option("--diff", help="Say what widened and what narrowed since OLD.", metavar="OLD")
    ] = None,
    as_json: JsonOpt = False,
) -> int:
    """Say in words what each stage may reach, read, spend and propose, and who holds which secret."""
    from sandbox.diff import difference, permissions
    from sandbox.explain import explain as lines

    plan, _ = _plan(workflow)
    if stage is not None and stage not in {s.name for s in plan.stages}:
        raise CasemateError("CSM-R018", f"no stage {stage!r}", exit_code=ExitCode.USAGE)
    if diff is not None:
        _print_difference(difference(permissions(_plan(diff)[0]), permissions(plan)), as_json=as_json)
    elif as_json:
        sys.stdout.buffer.write(plan_text(plan))
    else:
        for line in lines(plan, stage):
            out.print(line, markup=False)
    return ExitCode.DONE


def _print_difference(change: Difference, *, as_json: bool = False) -> None:
    if as_json:
        out.print_json(json.dumps({"widened": change.widened, "narrowed": change.narrowed}))
        return
    for mark, statements in (("[red]wider  [/]", change.widened), ("[green]narrower[/]", change.narrowed)):
        for statement in statements:
            out.print(f"{mark} ", end="")
            out.print(statement, markup=False)
    if not (change.widened or change.narrowed):
        out.print("the same permissions", markup=False)


@app.command()
def lock(workflow: EitherArg) -> int:
    """Approve what a workflow allows now: write it to casemate.lock, and say what is wider than before."""
    from sandbox.lock import approve, path_of

    plan, root = _plan(workflow)
    _print_difference(approve(plan, root))
    out.print(f"{path_of(root)}: approved {plan.name} {seal(plan).plan}", markup=False)
    return ExitCode.DONE


@app.command()
def run(
    workflow: EitherArg,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Everything but applying.")] = False,
    as_json: JsonOpt = False,
) -> int:
    """Run a workflow: sealed cells, watched doors, validated writes."""
    from sandbox.host import connect
    from sandbox.lock import refuse_widened
    from sandbox.report import Progress, summary, tables
    from sandbox.runner import run_plan

    plan, root = _plan(workflow)
    refuse_unenforced(plan)
    refuse_widened(plan, root)
    progress = Progress(err, plan)
    try:
        result = run_plan(connect(), plan, root, _store(root), progress, dry=dry_run)
    finally:
        progress.close()
    if as_json:
        numbers = summary(result.tally, plan)
        out.print_json(json.dumps({"run": result.run, "outcome": result.outcome.value, **numbers}))
    else:
        for table in tables(result.tally, plan):
            out.print(table)
        out.print(f"run {result.run}: {result.outcome.value}", markup=False)
    if result.error:
        fail(result.error)
    return result.exit_code


@app.command()
def runs(as_json: JsonOpt = False) -> int:
    """List runs, newest first."""
    rows = _store().runs()
    if as_json:
        out.print_json(json.dumps(rows))
        return ExitCode.DONE
    for row in rows:
        code = "" if row["exit_code"] is None else f" (exit {row['exit_code']})"
        out.print(f"{row['run']}  {row['name']}  {row['outcome']}{code}", markup=False)
    return ExitCode.DONE


@app.command()
def show(run: RunArg = "latest", as_json: JsonOpt = False) -> int:
    """Show one run: outcome, cost against ceiling, verdicts with reasons."""
    from sandbox.log import read_events
    from sandbox.report import describe, summary, tables
    from sandbox.tally import Tally

    store, run = _find(run)
    plan, tally = store.plan(run), Tally()
    rejected = []
    for event in read_events(store.folder(run)):
        tally.add(event)
        if event.event is EventName.WRITE_JUDGED and event.verdict is Verdict.REJECT:
            rejected.append(event)
    row: dict[str, Any] = next(r for r in store.runs(limit=100_000) if r["run"] == run)
    if as_json:
        out.print_json(json.dumps({**row, "numbers": summary(tally, plan)}))
        return ExitCode.DONE
    for table in tables(tally, plan):
        out.print(table)
    for event in rejected[:50]:
        out.print("  " + describe(event))
    out.print(f"run {run}: {row['outcome']}", markup=False)
    if row["summary"] and row["summary"]["error"]:
        out.print(row["summary"]["error"], markup=False)
    return ExitCode.DONE


@app.command()
def logs(
    run: RunArg = "latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    denied: Annotated[bool, typer.Option(help="Only what was denied or rejected.")] = False,
    as_json: JsonOpt = False,
) -> int:
    """Print the events of a run."""
    from sandbox.log import read_events
    from sandbox.report import describe
    from sandbox.store import as_json as plain
    from sandbox.store import is_driven

    store, run = _find(run)
    seen = 0
    while True:
        live = is_driven(store.folder(run))
        for event in read_events(store.folder(run)):
            if event.seq < seen:
                continue
            seen = event.seq + 1
            if stage not in (None, event.stage) or (denied and event.verdict not in (Verdict.DENY, Verdict.REJECT)):
                continue
            if as_json:
                sys.stdout.write(json.dumps(plain(event)) + "\n")
            else:
                out.print(describe(event))
        if not (follow and live):
            return ExitCode.DONE
        time.sleep(0.5)


@log_app.command("verify")
def log_verify(run: RunArg = "latest") -> int:
    """Verify a run's log offline: every line, the chain, and the head. Exit 4 if anything was changed."""
    from sandbox.log import verify

    store, run = _find(run)
    count = verify(store.folder(run))
    out.print(f"run {run}: {count} events, chain and head hold", markup=False)
    return ExitCode.DONE


@app.command()
def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Install and start what is missing, where that is possible.")
    ] = False,
    as_json: JsonOpt = False,
) -> int:
    """Look at this host: engine, limits, images, and what cannot be enforced. Exit 1 if something is missing."""
    from sandbox import host
    from sandbox.images import build_all, missing

    engine = host.ensure_engine(_say) if fix else host.connect()
    if fix:
        build_all(engine, _say)
    checks = list(host.doctor(engine, missing(engine)))
    if as_json:
        out.print_json(json.dumps([{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks]))
    else:
        marks = {True: "[green]ok  [/]", None: "[yellow]note[/]", False: "[red]MISS[/]"}
        for item in checks:
            out.print(f"{marks[item.ok]} {item.name}: ", end="")
            out.print(item.detail, markup=False)
    return ExitCode.DONE if all(item.ok is not False for item in checks) else ExitCode.INTERNAL


@images_app.command("build")
def images_build() -> int:
    """Build the trusted images that are missing or out of date."""
    from sandbox.host import ensure_engine
    from sandbox.images import build_all

    for name, digest in build_all(ensure_engine(_say), _say).items():
        out.print(f"{name}  {digest}", markup=False)
    return ExitCode.DONE


@app.command()
def gc() -> int:
    """Remove containers and volumes that crashed runs of this host left behind, by their label."""
    from sandbox.host import connect
    from sandbox.sweep import sweep_orphans

    swept, left = sweep_orphans(connect())
    for run in swept:
        out.print(f"swept {run}", markup=False)
    for name in left:
        err.print(f"could not remove {name}", markup=False)
    out.print(f"{len(swept)} runs swept", markup=False)
    return ExitCode.INTERNAL if left else ExitCode.DONE


_say: Callable[[str], None] = lambda text: err.print(f"· {text}", markup=False)  # noqa: E731

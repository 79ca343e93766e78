"""A project: a workflow file and its folder, read as far as it can be understood."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from policies.errors import CasemateError
from policies.events import clean
from policies.plan import Plan, encode
from policies.vocabulary import ExitCode
from sandbox.checks import check
from sandbox.compiler.compile import compile_plan, wanted_images
from sandbox.compiler.resolve import resolve
from sandbox.files import read_inside
from sandbox.language.findings import Finding, FindingsError, Place, has_errors
from sandbox.language.imports import expand
from sandbox.language.source import MAX_BYTES, Document, parse
from sandbox.language.workflow import Workflow, read
from sandbox.lineage.registry import registry
from sandbox.plan_check.invariants import violations
from sandbox.records.store import as_json, load_plan

if TYPE_CHECKING:  # the engine brings the whole Docker client along, and `check` needs none of it
    from sandbox.engine.docker import Engine

MAX_PLAN = 64 << 20


@dataclass(frozen=True, slots=True)
class Project:
    """A workflow, typed, and everything that is known to be wrong with it."""

    root: Path
    workflow: Workflow | None
    document: Document | None
    fragments: dict[str, str]
    findings: list[Finding]


def open_project(path: Path) -> Project:
    """Read and check a workflow. Problems become findings; nothing is raised."""
    root = path.resolve().parent
    place = Place(file=path.name, line=1, column=1)
    try:
        text = path.read_bytes()
    except OSError as error:
        problem = Finding(code="CSM-C001", message=f"{clean(str(path))}: {error.strerror}", place=place, path=())
        return Project(root, None, None, {}, [problem])
    try:
        document, fragments = expand(parse(text, path.name), lambda name: read_inside(root, name, MAX_BYTES))
        workflow = read(document)
    except FindingsError as error:
        return Project(root, None, None, {}, error.findings)
    findings = check(workflow, document, resolve(workflow, root, {}, fragments))
    return Project(root, workflow, document, fragments, findings)


def compile_project(project: Project, engine: Engine) -> Plan:
    """Return the checked plan of a project. Raises `FindingsError`, or CSM-C040 when plan_check objects."""
    if project.workflow is None or project.document is None or has_errors(project.findings):
        raise FindingsError(project.findings)
    images = {name: engine.image_id(name) for name in wanted_images(project.workflow)}
    info = engine.info()
    facts = replace(
        resolve(project.workflow, project.root, images, project.fragments),
        host_cpus=info.get("NCPU"),
        host_memory=info.get("MemTotal"),
    )
    findings = check(project.workflow, project.document, facts)
    if has_errors(findings):
        raise FindingsError(findings)
    missing = sorted(name for name, digest in images.items() if digest is None)
    if missing:
        message = f"images are missing: {', '.join(missing)}"
        hint = f"casemate images build {' '.join(name for name in missing if name.startswith('casemate/'))}".rstrip()
        raise CasemateError("CSM-R002", message, hint=hint, exit_code=ExitCode.REFUSED)
    plan = compile_plan(project.workflow, project.document, facts, dict(registry()))
    refuse_violations(plan)
    return plan


def open_plan(path: Path) -> Plan:
    """Read a plan file, and check it like any plan."""
    try:
        data = path.read_bytes()[:MAX_PLAN]
    except OSError as error:
        raise CasemateError("CSM-C041", f"{path}: {error.strerror}", exit_code=ExitCode.USAGE) from error
    try:
        plan = load_plan(data)
    except CasemateError as error:
        error.exit_code, error.place = ExitCode.FINDINGS, str(path)
        raise
    refuse_violations(plan)
    return plan


def refuse_violations(plan: Plan) -> None:
    """Raise CSM-C040 with everything that plan_check has against a plan."""
    found = violations(as_json(plan))
    if found:
        message = "; ".join(found[:20])
        hint = "a plan is compiled, not written: compile the workflow again"
        raise CasemateError("CSM-C040", message, hint=hint, exit_code=ExitCode.FINDINGS)


def plan_text(plan: Plan) -> bytes:
    """Return the bytes of a plan file: the canonical encoding and a newline."""
    return encode(plan) + b"\n"

"""Verbs about the history of outputs."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from policies.writes import Declaration
from sandbox.cli.base import load, say, store, workflow_argument


@click.group()
def history() -> None:
    """What values were like, and which state of that a person has signed."""


@history.command(name="show")
@workflow_argument
def history_show(workflow: Path) -> int:
    """Say how far the values of each bounded field have moved from their anchor."""
    from sandbox.records.anchors import described

    plan, root = load(workflow)
    say("\n".join(described(plan, store(root).candidates.of(plan.name))) or "no field is bounded by its history")
    return ExitCode.DONE


@history.command()
@workflow_argument
@click.argument("output")
@click.option(
    "--run", "run", metavar="RUN", help="Take what this run proposed; else what was applied since the anchor."
)
def anchor(workflow: Path, output: str, run: str | None) -> int:
    """Write the anchor of an output into casemate.history.json, for a person to review and commit."""
    from policies.history import promoted
    from sandbox.records.anchors import described, write_anchor

    plan, root = load(workflow)
    home = store(root)
    candidates = home.candidates.of(plan.name)
    say("\n".join(described(plan, candidates)))
    if run is not None:
        path = home.folder(run) / "declaration.json"
        declared = msgspec.json.decode(path.read_bytes(), type=Declaration) if path.exists() else None
        fields = declared.values.get(output, {}) if declared else {}
    else:
        bounds = next((o.bounds for o in plan.outputs if o.name == output), {})
        known = candidates.get(output, {}).items()
        fields = {name: promoted(c, b.anchor.nulls) for name, c in known if (b := bounds[name]).anchor is not None}
    if not fields:
        hint = "name a run whose writes were judged with `sigma` bounds: --run RUN"
        raise CasemateError("CSM-R018", f"nothing is known of {output}", hint=hint, exit_code=ExitCode.USAGE)
    write_anchor(root, output, fields)
    home.candidates.forget(plan.name, output)
    say(f"wrote the anchor of {output}: {', '.join(sorted(fields))}; review and commit it")
    return ExitCode.DONE


COMMANDS = (history,)

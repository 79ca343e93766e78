"""casemate.lock: what a person approved. It is committed beside the workflow, and `run` refuses a plan that is wider.

The file holds the permissions in words, one a line, so that a reviewer reads in its diff what a change of a workflow
would allow. A plan that is narrower, or the same, runs without a new approval.
"""

from __future__ import annotations

import json
from pathlib import Path

from policies.errors import CasemateError
from policies.plan import Plan
from policies.slices import seal
from policies.vocabulary import ExitCode
from sandbox.plans.diff import Difference, Permissions, difference, permissions

NAME = "casemate.lock"


def path_of(root: Path) -> Path:
    """Return where the approvals of a project lie."""
    return root / NAME


def approve(plan: Plan, root: Path) -> Difference:
    """Write down what `plan` allows as approved; return how that differs from what was approved before."""
    approved = _read(root)
    now = permissions(plan)
    change = difference(approved.get(plan.name, {}), now)
    approved[plan.name] = now
    document = {name: {"allows": dict(sorted(allowed.items()))} for name, allowed in sorted(approved.items())}
    document[plan.name]["plan"] = seal(plan).plan  # type: ignore[assignment]
    path_of(root).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return change


def refuse_widened(plan: Plan, root: Path) -> None:
    """Raise CSM-R022 when `plan` allows more than what was approved under its name; do nothing without an approval."""
    approved = _read(root).get(plan.name)
    if approved is None:
        return
    widened = difference(approved, permissions(plan)).widened
    if widened:
        more = f" (and {len(widened) - 8} more)" if len(widened) > 8 else ""
        raise CasemateError(
            "CSM-R022",
            "; ".join(widened[:8]) + more,
            place=NAME,
            hint="read `casemate explain`, then approve with `casemate lock`, and commit the file",
            exit_code=ExitCode.REFUSED,
        )


def _read(root: Path) -> dict[str, Permissions]:
    try:
        document = json.loads(path_of(root).read_text())
        return {name: {str(k): int(v) for k, v in entry["allows"].items()} for name, entry in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CasemateError(
            "CSM-R022", f"{NAME} cannot be read: {error}", place=NAME, exit_code=ExitCode.REFUSED
        ) from error

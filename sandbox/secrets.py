"""Secrets: read on the host, at the start of a run, and handed on to the one process that holds each."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from policies.errors import CasemateError
from policies.plan import Plan, SecretBinding
from policies.vocabulary import ExitCode

MAX_BYTES = 64 << 10
COMMAND_S = 30


def read_secrets(plan: Plan, root: Path, *, without: str | None = None) -> dict[str, str]:
    """Return the value of every secret that `plan` binds; raise CSM-R009 when one is missing, empty or too large.

    Those that `without` holds are not looked for: it does not need them in this run.
    """
    return {binding.name: _read(binding, root) for binding in plan.secrets if binding.holder != without}


def held_by(plan: Plan, values: dict[str, str], holder: str) -> dict[str, str]:
    """Return the secrets that `holder` alone may know."""
    return {b.name: values[b.name] for b in plan.secrets if b.holder == holder}


def _read(binding: SecretBinding, root: Path) -> str:
    try:
        match binding.origin:
            case "env":
                value = os.environ.get(binding.key, "")
            case "file":
                with (root / Path(binding.key).expanduser()).open(encoding="utf-8") as stream:
                    value = stream.read(MAX_BYTES + 1)
            case "command":
                done = subprocess.run(  # noqa: S603 - the operator's own command, split without a shell
                    shlex.split(binding.key), capture_output=True, text=True, timeout=COMMAND_S, check=True, cwd=root
                )
                value = done.stdout
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # what a command printed may be the secret: only the kind of failure is told
        raise _missing(binding, type(error).__name__) from None
    value = value.strip("\r\n")
    if not value or len(value) > MAX_BYTES:
        raise _missing(binding, "empty" if not value else "too large")
    return value


def _missing(binding: SecretBinding, why: str) -> CasemateError:
    return CasemateError(
        "CSM-R009",
        f'secret "{binding.name}" cannot be read from {binding.origin} ({why})',
        hint=f"this host must provide it: {binding.origin} {binding.key}",
        exit_code=ExitCode.REFUSED,
    )

"""Which checks an output gets, and in which order."""

from __future__ import annotations

from gateway.customs.checks.base import Check
from gateway.customs.checks.bounds import Bounds
from gateway.customs.checks.quota import Quota
from gateway.customs.checks.secrets import Secrets
from gateway.customs.checks.shape import Shape
from gateway.customs.checks.unique import Unique
from gateway.customs.scan.scanner import Scanner
from policies.plan import Output


def checks_for(output: Output, scanner: Scanner, mark_key: bytes) -> list[Check]:
    """Return the checks of `output` in order; `unique` is last, because it looks only at rows that are clean so far."""
    secrets: list[Check] = [Secrets(scanner, mark_key)] if "secrets" in output.scan else []
    return [Shape(output), Quota(output), Bounds(output), *secrets, Unique(output)]

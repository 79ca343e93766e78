"""The baseline: policies that hold for every run, whatever its plan says."""

from __future__ import annotations

from pathlib import Path

from policies.canonical import digest
from policies.secret_rules import FILE

SECCOMP = Path(__file__).resolve().parent.parent / "compose" / "seccomp.json"


def policies_digest() -> str:
    """Return the digest of the policies that hold for every run, whatever its plan says."""
    return digest(FILE.read_bytes() + SECCOMP.read_bytes())

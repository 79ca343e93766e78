"""A plan, its slices, and a place for doors. Sockets are real; what is fake stands at the outermost seam."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def root() -> Iterator[Path]:
    """A short folder for sockets (their paths may have 107 bytes), with the volumes that an engine would mount."""
    path = Path(tempfile.mkdtemp(prefix="csm-"))
    for folder in ("doors/work", "doors/other", "doors/up-teacher", "doors/up-remote", "models/tiny", "state"):
        (path / folder).mkdir(parents=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)

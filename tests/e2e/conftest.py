"""Whole runs need an engine and the trusted images; without them these tests fail, they are not skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A fresh project; at the end nothing of it may be left in the engine."""
    lab = Lab(tmp_path)
    yield lab
    left = lab.left_over()
    lab.cli("gc")
    assert left == [], "a run left something behind"

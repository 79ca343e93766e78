"""Processes that are ended after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.plan import Output
from tests.gateway.kit import Serving, make_output, make_plan


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Any]:
    """Start `serve` for a plan; it is ended after the test."""
    started: list[Serving] = []

    def begin(
        *outputs: Output,
        stages: dict[str, list[str]] | None = None,
        shards: int | None = None,
        wrap: tuple[str, ...] = (),
    ) -> Serving:
        made = Serving(tmp_path, make_plan(*(outputs or (make_output(),)), stages=stages, shards=shards), wrap)
        started.append(made)
        return made

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(30)
        for stream in (one.process.stdout, one.process.stderr):
            if stream and not stream.closed:
                stream.close()

"""Chunks over several processes: in order, each once, and nothing when any of them dies."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

MANY = range(100, 160)


def pooled(helpers: int, benches: int, *items: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.gateway.pooled", str(helpers), str(benches), *map(str, items)]
    done = subprocess.run(words, capture_output=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["left"], "a helper is left"
    return found


@pytest.mark.parametrize(("helpers", "benches"), [(0, 1), (0, 3), (1, 1), (1, 2), (3, 2)])
def test_results_come_in_order_and_each_bench_hears_of_its_own(helpers: int, benches: int) -> None:
    found = pooled(helpers, benches, *MANY)
    assert found["failure"] == ""
    assert found["taken"] == [number * number for number in MANY]
    assert found["told"] == [[number, number * number] for number in MANY]
    assert (found["workers"], found["here"]) == (helpers + 1, True)


def test_nothing_comes_of_nothing() -> None:
    assert pooled(1, 2)["taken"] == []


def test_when_a_helper_dies_customs_does() -> None:
    found = pooled(1, 2, 17, *MANY)  # the first goes to a helper
    assert found["failure"].startswith("CasemateError: CSM-W019")
    assert found["told"] == []


@pytest.mark.parametrize("where", [0, 1, 5])
def test_what_a_worker_raises_is_raised_here(where: int) -> None:
    found = pooled(1, 2, *MANY[:where], 13, *MANY)
    assert found["failure"] == "ValueError: thirteen"
    assert len(found["taken"]) <= where


@pytest.mark.parametrize("items", [[19], [*MANY, 19], [19, *MANY]])
def test_what_a_worker_cannot_be_told_is_raised_here(items: list[int]) -> None:
    for benches in (2, 80):
        assert pooled(1, benches, *items)["failure"] == "OSError: no space left"

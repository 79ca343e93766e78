"""A few seconds of the fuzzer, so that it does not rot; `python -m tests.proxy.fuzz` runs it for ten minutes."""

from __future__ import annotations

import pytest

from tests.proxy.fuzz import fuzz


@pytest.mark.parametrize("door", ["egress", "llm"])
def test_bytes_of_any_kind_neither_break_a_door_nor_pass_it(door: str) -> None:
    count, found = fuzz(door, 3, seed=7)
    assert found == []
    assert count > 100

"""The file of an output: what is said of it is what is in it, whoever wrote its rows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gateway.customs.dataset import Dataset
from tests.gateway.kit import make_output


@pytest.mark.parametrize("more", [b"", b'{"prompt":"two"}\n'])
def test_the_digest_is_of_what_was_adopted_and_of_what_came_after(tmp_path: Path, more: bytes) -> None:
    first, spooled = b'{"prompt":"one"}\n', tmp_path / "spooled"
    spooled.write_bytes(first)
    made = Dataset(tmp_path, make_output(), extra=False)
    made.adopt(spooled, 1, hashlib.sha256(first).hexdigest())
    made.add(more, more.count(b"\n"))
    found = made.finish()
    assert found is not None
    assert (tmp_path / made.name).read_bytes() == first + more
    assert (found["sha256"], found["size"]) == (f"sha256:{hashlib.sha256(first + more).hexdigest()}", len(first + more))
    assert made.rows == 1 + more.count(b"\n")

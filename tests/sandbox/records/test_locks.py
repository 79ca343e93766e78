"""Named locks: one holder at a time, none that outlives its process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox.records.locks import held

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import sys, time
from pathlib import Path
from sandbox.records.locks import held
with held(sys.argv[2:], Path(sys.argv[1]), lambda: time.sleep(0.01)):
    print("held", flush=True)
    time.sleep(60)
"""


class Waited(Exception):  # noqa: N818 - it is what happened
    """The lock was somebody else's."""


def refuse() -> None:
    raise Waited


def holder(folder: Path, *names: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder), *names]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_has_one_holder_until_it_dies(tmp_path: Path) -> None:
    process = holder(tmp_path, "repo:x", "repo:y")
    try:
        for name in ("repo:x", "repo:y"):
            with pytest.raises(Waited), held([name], tmp_path, refuse):
                pass
        with held(["repo:z", "../../x"], tmp_path, refuse):  # the control: others are free
            pass
    finally:
        process.kill()
        process.wait()
    with held(["repo:x", "repo:y"], tmp_path, lambda: time.sleep(0.01)):
        pass
    assert not (tmp_path.parent.parent / "x").exists()


def test_what_was_taken_is_given_back_when_the_rest_cannot_be_had(tmp_path: Path) -> None:
    process = holder(tmp_path, "b")
    try:
        with pytest.raises(Waited), held(["a", "b"], tmp_path, refuse):
            pass
        with held(["a"], tmp_path, refuse):
            pass
    finally:
        process.kill()
        process.wait()


def test_many_that_want_two_locks_in_any_order_all_get_them(tmp_path: Path) -> None:
    code = HOLDER.replace("time.sleep(60)", "time.sleep(0.02)")
    orders = [("a", "b"), ("b", "a")] * 4
    racing = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), *names], cwd=ROOT, stdout=subprocess.DEVNULL)
        for names in orders
    ]
    assert [process.wait(timeout=60) for process in racing] == [0] * len(orders)

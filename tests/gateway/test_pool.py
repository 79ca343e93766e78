"""Chunks over several processes: in order, each once, and nothing when any of them dies."""

from __future__ import annotations

import mmap
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.customs.pool import crew
from policies.errors import CasemateError

SIZE = 4096


class Counting:
    """Squares numbers, and appends what it is told to a file of its process."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._shared = folder, memoryview(mmap.mmap(-1, SIZE))

    def give(self, item: int) -> int:
        self._shared[:8] = item.to_bytes(8)
        return item % 7

    def work(self, task: int) -> tuple[int, bytes]:
        item = int.from_bytes(self._shared[:8])
        assert task == item % 7
        if item == 13:
            raise ValueError("thirteen")
        if item == 17:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(random.random() / 500)
        self._shared[8:16] = (item * item).to_bytes(8)
        return os.getpid(), b"x" * (item % 5 << 18)  # more than a pipe holds

    def told(self, said: int) -> None:
        with (self._folder / str(os.getpid())).open("a") as file:
            file.write(f"{said} {int.from_bytes(self._shared[8:16])}\n")

    @property
    def made(self) -> int:
        return int.from_bytes(self._shared[8:16])


def work(folder: Path, items: Iterator[int], helpers: int, benches: int) -> tuple[list[int], set[int]]:
    """Return what came of items, in the order in which it was taken, and who worked."""
    taken: list[int] = []
    pids: set[int] = set()

    def take(bench: Counting, item: int, result: tuple[int, bytes]) -> int:
        pids.add(result[0])
        assert len(result[1]) == item % 5 << 18
        taken.append(bench.made)
        return item

    mine, *others = ([Counting(folder) for _ in range(benches)] for _ in range(helpers + 1))
    with crew(mine, others) as run:
        run(items, take)
        heard = [line.split() for path in folder.iterdir() for line in path.read_text().splitlines()]
    assert sorted((int(item), int(square)) for item, square in heard) == [
        (n, n * n) for n in range(100, 100 + len(taken))
    ]
    return taken, pids


@pytest.mark.parametrize(("helpers", "benches"), [(0, 1), (0, 3), (1, 1), (1, 2), (3, 2)])
def test_results_come_in_order_and_each_bench_hears_of_its_own(tmp_path: Path, helpers: int, benches: int) -> None:
    taken, pids = work(tmp_path, iter(range(100, 160)), helpers, benches)
    assert taken == [number * number for number in range(100, 160)]
    assert len(pids) == helpers + 1
    assert os.getpid() in pids


def test_nothing_comes_of_nothing(tmp_path: Path) -> None:
    assert work(tmp_path, iter(()), 1, 2) == ([], set())


def test_when_a_helper_dies_customs_does(tmp_path: Path) -> None:
    with pytest.raises(CasemateError, match="CSM-W019"):
        work(tmp_path, iter([17, *range(100, 120)]), 1, 2)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # none is left


@pytest.mark.parametrize("where", [0, 1, 5])
def test_what_a_worker_raises_is_raised_here(tmp_path: Path, where: int) -> None:
    items = [*range(100, 100 + where), 13, *range(200, 210)]
    with pytest.raises(ValueError, match="thirteen"):
        work(tmp_path, iter(items), 1, 2)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_a_helper_cannot_be_told_is_raised_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(_bench: Counting, _said: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Counting, "told", told)
    with pytest.raises(OSError, match="no space left"):
        work(tmp_path, iter(range(100, 102)), 1, 4)

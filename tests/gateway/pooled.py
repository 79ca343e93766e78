"""`python -m tests.gateway.pooled HELPERS BENCHES NUMBER…`: squares numbers in several processes, and says how it went.

By itself, since a process that has threads, as that of the tests, should not fork. 13 raises, 17 kills its process; who
is told of 19 raises.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway.customs.pool import crew

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
        if said == 19:
            raise OSError("no space left")
        with (self._folder / str(os.getpid())).open("a") as file:
            file.write(f"{said} {self.made}\n")

    @property
    def made(self) -> int:
        return int.from_bytes(self._shared[8:16])


def main(helpers: int, benches: int, *items: int) -> dict[str, Any]:
    """Return the squares in the order in which they were taken, what was told of which, who worked, and what failed."""
    taken: list[int] = []
    pids: set[int] = set()
    told: list[list[int]] = []
    failure = ""

    def take(bench: Counting, item: int, result: tuple[int, bytes]) -> int:
        assert len(result[1]) == item % 5 << 18
        pids.add(result[0])
        taken.append(bench.made)
        return item

    with tempfile.TemporaryDirectory() as name:
        mine, *others = ([Counting(Path(name)) for _ in range(benches)] for _ in range(helpers + 1))
        try:
            with crew(mine, others) as run:
                run(items, take)
                lines = [line for path in Path(name).iterdir() for line in path.read_text().splitlines()]
                told = [[int(word) for word in line.split()] for line in lines]
        except Exception as error:  # noqa: BLE001 - told
            failure = f"{type(error).__name__}: {error}"
    try:
        os.waitpid(-1, os.WNOHANG)
        left = True
    except ChildProcessError:
        left = False
    worked = {"here": os.getpid() in pids, "workers": len(pids)}
    return {"taken": taken, "told": sorted(told), **worked, "failure": failure, "left": left}


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))

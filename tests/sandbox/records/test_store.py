"""The journal: opened by many at once, from the first moment on."""

from __future__ import annotations

import threading
from pathlib import Path

from sandbox.records.store import Store


def test_a_new_journal_can_be_opened_by_many_at_once(tmp_path: Path) -> None:
    failures: list[Exception] = []
    for attempt in range(100):  # without the wait for each other, about one in twelve fails
        barrier = threading.Barrier(3)

        def look(home: Path = tmp_path / str(attempt), barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                assert Store(home).runs() == []
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the failure
                failures.append(error)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []

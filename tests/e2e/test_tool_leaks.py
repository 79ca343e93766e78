"""Servers that are started anew a hundred times leave nothing behind."""

from __future__ import annotations

from tests.bench.leaks import RESTARTS, restarts


def test_a_hundred_restarts_leave_no_container_volume_thread_or_file() -> None:
    before, after, seen = restarts()
    assert seen >= RESTARTS * 0.9, "they did not run, so nothing was proved"
    assert (before.containers, before.volumes) == (after.containers, after.volumes) == (0, 0)
    assert after.tasks <= before.tasks + 1
    assert after.sockets <= before.sockets + 6  # the engine's client keeps some connections for the next request
    assert after.files <= before.files + 6
    assert after.memory_mb <= before.memory_mb + 30

"""Sessions that are opened and dropped leave nothing in the gateway."""

from __future__ import annotations

from tests.bench.leaks import SESSIONS, sessions


def test_a_thousand_sessions_leave_no_task_socket_or_memory() -> None:
    before, after, opened = sessions()
    assert opened == SESSIONS, "they were not open, so nothing was proved"
    assert after.tasks <= before.tasks + 1
    assert after.sockets <= before.sockets
    assert after.files <= before.files
    assert after.memory_mb <= before.memory_mb + 20

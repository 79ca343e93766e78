"""A port that is carried to a socket: what it leaves behind."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from gateway.customs.sinks.port import carried


class _Failed(Exception):  # noqa: N818 - the word for it
    pass


@pytest.mark.parametrize("fails", [False, True])
def test_nobody_waits_at_a_listener_that_is_closed(fails: bool) -> None:
    before = set(threading.enumerate())
    with contextlib.suppress(_Failed), carried(Path("/nowhere.sock")) as port:
        assert len(set(threading.enumerate()) - before) == 1
        if fails:
            raise _Failed
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))

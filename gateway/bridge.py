"""The bridge: standard streams on one side, a Unix socket on the other, and bytes that it does not parse between them.

The orchestrator carries a server's streams to those of the bridge; the gateway, which has no engine, meets them at the
socket. One conversation, and then it ends: what comes after it belongs to another server.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

CHUNK = 64 * 1024


def bridge(path: Path) -> int:
    """Listen at `path`, say `ready` on standard error, and carry the first connection until either side ends."""
    path.unlink(missing_ok=True)
    before = os.umask(0o117)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        os.umask(before)
        listener.listen(1)
        sys.stderr.write("ready\n")
        sys.stderr.flush()
        connection, _ = listener.accept()
    with connection:
        inward = threading.Thread(target=_copy_in, args=(connection,), daemon=True)
        inward.start()
        while data := connection.recv(CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    return 0


def _copy_in(connection: socket.socket) -> None:
    """Carry standard input to the connection; its end ends the conversation."""
    try:
        while data := os.read(0, CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass

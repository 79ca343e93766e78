"""A loopback port that is carried to a Unix socket, for a client library that knows no other way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 64 * 1024


@contextmanager
def carried(door: Path) -> Iterator[int]:
    """Listen on a port of 127.0.0.1 as long as the context lasts; each connection to it becomes one to `door`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, door), daemon=True).start()
        yield listener.getsockname()[1]
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, door: Path) -> None:
    with suppress(OSError):
        while True:
            inner, _ = listener.accept()
            outer = socket.socket(socket.AF_UNIX)
            try:
                outer.connect(str(door))
            except OSError:
                inner.close()
                outer.close()
                continue
            for source, sink in ((inner, outer), (outer, inner)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)

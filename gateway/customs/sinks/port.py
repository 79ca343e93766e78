"""A loopback port that is carried to a Unix socket, for a client that knows no other way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 64 * 1024
MAX_HEAD = 4096
Greet = Callable[[socket.socket], bytes | None]
"""Listens to who connected; returns what they are told when the way is open, or None when it stays shut."""


@contextmanager
def carried(door: Path, greet: Greet = lambda _inner: b"") -> Iterator[int]:
    """Listen on a port of 127.0.0.1 as long as the context lasts; each connection to it becomes one to `door`.

    The listener is closed when nobody waits at it any more: each end of a child process makes the kernel begin such a
    wait anew, by the number of the listener, and the number may be that of another one by then.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, door, greet), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def proxied(authority: str) -> Greet:
    """Return what greets the client of an HTTP proxy that leads to one place, and refuses any other."""

    def greet(inner: socket.socket) -> bytes | None:
        head = b""
        while not head.endswith(b"\r\n\r\n") and len(head) < MAX_HEAD:
            if not (data := inner.recv(1)):  # what comes after the head is not ours to read
                return None
            head += data
        if head.partition(b"\r\n")[0] == f"CONNECT {authority} HTTP/1.1".encode():
            return b"HTTP/1.1 200 OK\r\n\r\n"
        inner.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        return None

    return greet


def _serve(listener: socket.socket, door: Path, greet: Greet) -> None:
    with suppress(OSError):
        while True:
            inner, _ = listener.accept()
            threading.Thread(target=_carry, args=(inner, door, greet), daemon=True).start()


def _carry(inner: socket.socket, door: Path, greet: Greet) -> None:
    outer = socket.socket(socket.AF_UNIX)
    try:
        if (told := greet(inner)) is None:
            raise ConnectionRefusedError
        outer.connect(str(door))
        inner.sendall(told)
    except OSError:
        inner.close()
        outer.close()
        return
    for source, sink in ((inner, outer), (outer, inner)):
        threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)

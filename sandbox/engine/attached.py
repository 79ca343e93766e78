"""The standard streams of a container, attached by the engine."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from docker.utils.socket import frames_iter

_LINE_BYTES = 1 << 20


class Attached:
    """The standard streams of one container."""

    def __init__(self, wire: Any) -> None:
        self._wire, self._raw = wire, wire._sock
        self._raw.settimeout(None)

    def send(self, data: bytes) -> None:
        """Write to standard input, and close it."""
        self._raw.sendall(data)
        self._raw.shutdown(socket.SHUT_WR)

    def write(self, data: bytes) -> None:
        """Write to standard input, which stays open."""
        self._raw.sendall(data)

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (1 for output or 2 for errors, bytes) as they come, until the container ends."""
        yield from frames_iter(self._wire, tty=False)  # type: ignore[no-untyped-call]

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (1 for output or 2 for errors, line) until the container ends. An endless line is cut at 1 MiB."""
        pending = {1: b"", 2: b""}
        for stream, chunk in frames_iter(self._wire, tty=False):  # type: ignore[no-untyped-call]
            *whole, rest = (pending[stream] + chunk).split(b"\n")
            pending[stream] = rest[:_LINE_BYTES]
            for line in whole:
                yield stream, line
        for stream, rest in pending.items():
            if rest:
                yield stream, rest

    def close(self) -> None:
        """Let go of the streams, and of whoever waits to write to them. A cycle in the client keeps the response
        alive, so both ends are closed."""
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)
        for end in (self._wire, self._raw):
            with contextlib.suppress(OSError):
                end.close()

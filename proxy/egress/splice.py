"""Bytes from one socket to another without a look at them: through a pipe, in the kernel. Linux only.

A pipe is taken when there is something to move and given back when it is empty, so that the thousands of connections
that are idle hold none. What a connection may keep in the kernel is one pipe a direction, for as long as its sink
takes nothing; meanwhile nothing is read from its source.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import suppress

PIPE = 256 * 1024
"""Bytes that a direction moves at a time, and that wait in the kernel at most when its sink takes nothing."""

_KEPT = 8
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

Pipe = tuple[int, int]


class Pipes:
    """Pipes that are empty; a few are kept for the next that needs one."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []

    def take(self) -> Pipe:
        """Return an empty pipe. Raises `OSError` when the process may have no more."""
        if self._free:
            return self._free.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):  # many large pipes of one user: the kernel gives out small ones, which do as well
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
        return pipe

    def give(self, pipe: Pipe, *, empty: bool) -> None:
        """Take a pipe back. One with bytes in it is closed: they are nobody else's."""
        if empty and len(self._free) < _KEPT:
            self._free.append(pipe)
            return
        for end in pipe:
            os.close(end)


PIPES = Pipes()


class Way:
    """One direction between two sockets, which others must not read from or write to meanwhile.

    `moving` is told how many bytes are about to move on, and may raise, whereupon none of them do. `done` ends with
    the source, after its end was passed on, or with whatever was raised.
    """

    def __init__(self, source: socket.socket, sink: socket.socket, moving: Callable[[int], None]) -> None:
        self._source, self._sink, self._moving = source, sink, moving
        self._loop = asyncio.get_running_loop()
        self._pipe: Pipe | None = None
        self._held = 0
        self.moved = 0
        """Bytes that the sink has taken."""
        self.last = self._loop.time()
        """When it took some the last time, by the loop's clock."""
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(source, self._step, self._pull)

    def close(self) -> None:
        """Move nothing more; both sockets stay open."""
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)
        self.done.cancel()
        self._give_back()

    def _step(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BlockingIOError:
            pass  # not ready after all
        except Exception as error:  # noqa: BLE001 - whatever is raised ends the connection
            self._end(error)
        finally:
            if not self._held:
                self._give_back()

    def _pull(self) -> None:
        self._pipe = PIPES.take()
        size = os.splice(self._source.fileno(), self._pipe[1], PIPE, flags=_FLAGS)
        if size == 0:
            self._sink.shutdown(socket.SHUT_WR)
            self._end(None)
            return
        self._held = size
        self._moving(size)
        try:
            self._push()
        finally:
            if self._held and not self.done.done():
                self._loop.remove_reader(self._source)
                self._loop.add_writer(self._sink, self._step, self._push_on)

    def _push(self) -> None:
        if self._pipe is None:  # cannot be: whoever holds bytes holds a pipe
            raise RuntimeError("bytes without a pipe")
        size = os.splice(self._pipe[0], self._sink.fileno(), self._held, flags=_FLAGS)
        self._held -= size
        self.moved += size
        self.last = self._loop.time()

    def _push_on(self) -> None:
        self._push()
        if not self._held:
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._step, self._pull)

    def _end(self, error: Exception | None) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def _give_back(self) -> None:
        if self._pipe is not None:
            PIPES.give(self._pipe, empty=not self._held)
            self._pipe = None

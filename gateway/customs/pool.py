"""Chunks over several processes, one a core; results come back in the order of the chunks.

A worker is a fork that holds the compiled rules already. It has one chunk at a time, so that neither side ever waits
for the other to read. With the next chunk, and once more after the last, it is told what became of its last result.
When a worker dies, customs dies.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any, Protocol, TypeVar

from policies.errors import CasemateError

A = TypeVar("A")
B = TypeVar("B")
N = TypeVar("N")
A_contra = TypeVar("A_contra", contravariant=True)
B_co = TypeVar("B_co", covariant=True)
N_contra = TypeVar("N_contra", contravariant=True)
Run = Callable[[Iterable[A], Callable[[A, B], N]], None]
"""Has chunks worked on, and hands each with its result, in order, to somebody who says what became of it."""


class Worker(Protocol[A_contra, B_co, N_contra]):
    """Works on chunks."""

    def work(self, item: A_contra) -> B_co:
        """Return what comes of a chunk."""

    def told(self, said: N_contra) -> None:
        """Hear what became of the last result: before the next chunk, or in the end."""


def alone(worker: Worker[A, B, N]) -> Run[A, B, N]:
    """Return what has the work done in this process."""

    def run(items: Iterable[A], take: Callable[[A, B], N]) -> None:
        for item in items:
            worker.told(take(item, worker.work(item)))

    return run


@contextmanager
def workers(worker: Worker[A, B, N], count: int) -> Iterator[Run[A, B, N]]:
    """Start `count` copies of a worker; what is given inside the context has the work done by them."""
    children: list[tuple[int, Connection]] = []
    try:
        for _ in range(count):
            children.append(_start(worker, [connection for _, connection in children]))
        yield partial(_spread, [connection for _, connection in children])
    finally:
        for pid, connection in children:
            connection.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _spread(connections: list[Connection], items: Iterable[A], take: Callable[[A, Any], N]) -> None:
    busy: deque[tuple[Connection, A]] = deque()
    free = deque(connections)
    try:
        for item in items:
            said: N | None = None
            if free:
                connection = free.popleft()
            else:
                connection, done = busy.popleft()
                said = take(done, _receive(connection))
            connection.send((said, item))
            busy.append((connection, item))
        while busy:
            connection, done = busy.popleft()
            connection.send((take(done, _receive(connection)), None))
            _receive(connection)
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise CasemateError("CSM-W019", "a worker of customs died", place="customs") from error


def _receive(connection: Connection) -> Any:
    result = connection.recv()
    if isinstance(result, BaseException):
        raise result
    return result


def _start(worker: Worker[A, B, N], others: list[Connection]) -> tuple[int, Connection]:
    mine, theirs = Pipe()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, mine
    try:
        for connection in (mine, *others):
            connection.close()
        _serve(worker, theirs)
    finally:
        os._exit(1)


def _serve(worker: Worker[A, B, N], connection: Connection) -> None:
    while True:
        try:
            said, item = connection.recv()
        except EOFError:
            return
        try:
            if said is not None:
                worker.told(said)
            connection.send(worker.work(item) if item is not None else None)
        except BaseException as error:  # noqa: BLE001 - told to the parent, which ends
            connection.send(error)
            return

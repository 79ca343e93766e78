"""Chunks over several processes, one a core; results come back in the order of the chunks.

A worker is a fork that holds the compiled rules already. It has one chunk at a time, so that neither side ever waits
for the other to read; when one dies, customs dies.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

from policies.errors import CasemateError

A = TypeVar("A")
B = TypeVar("B")
Map = Callable[[Iterable[A]], Iterator[tuple[A, B]]]


Work = Callable[[int, A], B]
"""What is done with a chunk, by a worker that has this number: from 0 on."""


def alone(work: Work[A, B]) -> Map[A, B]:
    """Return what applies `work` to chunks in this process."""
    return lambda items: ((item, work(0, item)) for item in items)


@contextmanager
def workers(work: Work[A, B], count: int) -> Iterator[Map[A, B]]:
    """Start `count` workers; inside the context the map that is given applies `work` in them."""
    children: list[tuple[int, Connection]] = []
    try:
        for number in range(count):
            children.append(_start(partial(work, number), [connection for _, connection in children]))
        yield lambda items: _spread([connection for _, connection in children], items)
    finally:
        for pid, connection in children:
            connection.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _spread(connections: list[Connection], items: Iterable[A]) -> Iterator[tuple[A, Any]]:
    busy: deque[tuple[Connection, A]] = deque()
    free = deque(connections)
    try:
        for item in items:
            if not free:
                connection, done = busy.popleft()
                result = _receive(connection)
                connection.send(item)
                busy.append((connection, item))
                yield done, result
                continue
            connection = free.popleft()
            connection.send(item)
            busy.append((connection, item))
        while busy:
            connection, done = busy.popleft()
            yield done, _receive(connection)
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise CasemateError("CSM-W019", "a worker of customs died", place="customs") from error


def _receive(connection: Connection) -> Any:
    result = connection.recv()
    if isinstance(result, BaseException):
        raise result
    return result


def _start(work: Callable[[A], B], others: list[Connection]) -> tuple[int, Connection]:
    mine, theirs = Pipe()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, mine
    try:
        for connection in (mine, *others):
            connection.close()
        _serve(work, theirs)
    finally:
        os._exit(1)


def _serve(work: Callable[[A], B], connection: Connection) -> None:
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            connection.send(work(item))
        except BaseException as error:  # noqa: BLE001 - told to the parent, which ends
            connection.send(error)
            return

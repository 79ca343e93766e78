"""Chunks over several processes, one a core; results come back in the order of the chunks.

Customs works on chunks as its helpers do: forks, which hold the compiled rules already. A helper has several chunks at
a time, so that it need not wait for the next one. What is sent to it is small, so that this side never waits for it to
read. When a helper dies, customs dies.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any, Generic, Protocol, TypeVar

from policies.errors import CasemateError

W = TypeVar("W", bound="Bench")
Run = Callable[[Iterable[Any], Callable[[W, Any, Any], Any]], None]
"""Has chunks worked on, and hands each with its bench and result, in order, to somebody who says what became of it."""


class Bench(Protocol):
    """Where one chunk at a time is worked on. One of a helper has a copy here, and both see what they share."""

    def give(self, item: Any) -> Any:
        """Take a chunk; return what has to be sent to who works on it, which is small."""

    def work(self, task: Any) -> Any:
        """Return what comes of a chunk."""

    def told(self, said: Any) -> None:
        """Hear what became of the result; small, too."""


@dataclass(slots=True, eq=False)
class _Job(Generic[W]):
    item: Any
    home: _Home[W]
    place: int
    result: Any = None
    done: bool = False

    @property
    def bench(self) -> W:
        return self.home.benches[self.place]


class _Home(Generic[W]):
    """Some benches, in this process."""

    def __init__(self, benches: Sequence[W]) -> None:
        self.benches = benches
        self.free = deque(range(len(benches)))

    def begin(self, item: Any) -> _Job[W]:
        job = _Job(item, self, self.free.popleft())
        self._begin(job, job.bench.give(item))
        return job

    def _begin(self, job: _Job[W], task: Any) -> None:
        job.result, job.done = job.bench.work(task), True

    def wait(self, job: _Job[W]) -> None:
        """Return when a job is done."""

    def look(self) -> None:
        """See whether any has been done."""

    def told(self, job: _Job[W], said: Any) -> None:
        job.bench.told(said)
        self.free.append(job.place)

    def end(self) -> None:
        """Return when all that was told has been heard."""


class _Helper(_Home[W]):
    """Some benches in a process of their own."""

    def __init__(self, benches: Sequence[W], connection: Connection) -> None:
        super().__init__(benches)
        self._connection = connection
        self._jobs = deque[_Job[W]]()

    def _begin(self, job: _Job[W], task: Any) -> None:
        self._jobs.append(job)
        self._connection.send((job.place, True, task))

    def wait(self, job: _Job[W]) -> None:
        while not job.done:
            self._receive()

    def look(self) -> None:
        while self._jobs and self._connection.poll():
            self._receive()

    def _receive(self) -> None:
        result = self._connection.recv()
        if isinstance(result, BaseException):
            raise result
        job = self._jobs.popleft()
        job.result, job.done = result, True

    def told(self, job: _Job[W], said: Any) -> None:
        self._connection.send((job.place, False, said))
        self.free.append(job.place)

    def end(self) -> None:
        self._connection.send(None)
        if (failed := self._connection.recv()) is not None:
            raise failed


@contextmanager
def crew(mine: Sequence[W], others: Sequence[Sequence[W]]) -> Iterator[Run[W]]:
    """Start a helper for each of some `others`; what is given inside the context has the work done by them and here."""
    children: list[tuple[int, Connection]] = []
    try:
        for benches in others:
            children.append(_start(benches, [connection for _, connection in children]))
        helpers = [_Helper(benches, pipe) for benches, (_, pipe) in zip(others, children, strict=True)]
        yield partial(_spread, [*helpers, _Home(mine)])
    finally:
        for pid, connection in children:
            connection.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _spread(homes: Sequence[_Home[W]], items: Iterable[Any], take: Callable[[W, Any, Any], Any]) -> None:
    jobs = deque[_Job[W]]()

    def finish() -> None:
        job = jobs.popleft()
        job.home.wait(job)
        job.home.told(job, take(job.bench, job.item, job.result))

    try:
        for item in items:
            for home in homes:
                home.look()
            while jobs and jobs[0].done:
                finish()
            while not any(home.free for home in homes):
                finish()
            jobs.append(next(home for home in homes if home.free).begin(item))
        while jobs:
            finish()
        for home in homes:
            home.end()
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise CasemateError("CSM-W019", "a worker of customs died", place="customs") from error


def _start(benches: Sequence[W], others: Sequence[Connection]) -> tuple[int, Connection]:
    mine, theirs = Pipe()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, mine
    try:
        for connection in (mine, *others):
            connection.close()
        _serve(benches, theirs)
    finally:
        os._exit(1)


def _serve(benches: Sequence[W], connection: Connection) -> None:
    """Do what is asked for, until nobody does."""
    with suppress(EOFError):
        while True:
            message = connection.recv()
            try:
                if message is None:
                    connection.send(None)
                    continue
                place, begins, what = message
                if begins:
                    connection.send(benches[place].work(what))
                else:
                    benches[place].told(what)
            except BaseException as error:  # noqa: BLE001 - told to the parent, which ends
                connection.send(error)
                while True:
                    connection.recv()

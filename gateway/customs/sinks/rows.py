"""Sinks that take one row after another, each under a key of its own, and cannot be asked what they have.

Whether such a sink honours the key only its owner knows, and says so by `mode: idempotent`: then a batch is sent again
after a crash, and nothing is doubled. Else nobody knows what a sink has that was being written to.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from policies.canonical import canonical, digest
from policies.errors import CasemateError
from policies.plan import Output
from policies.sinks import At, Batch, Moment, kept, unknown

Send = Callable[[bytes, str], None]
"""Sends a row with its key; raises `Failed`."""


class Failed(Exception):  # noqa: N818 - the word for it
    """A row was not taken. `refused`: it was certainly not written."""

    def __init__(self, why: str, *, refused: bool) -> None:
        self.why, self.refused = why, refused
        super().__init__(why)


class Line(Protocol):
    """What leads to a sink."""

    def open(self) -> AbstractContextManager[Send]:
        """Open it; raises `Failed`."""
        ...


class RowSink:
    """A sink at the end of a line."""

    tells = False

    def __init__(self, output: Output, line: Line) -> None:
        self._line, self.repeats = line, output.target.get("mode") == "idempotent"

    def find(self, _batch: Batch) -> str | None:
        """Return None: there is no way to ask."""
        return None

    def apply(self, batch: Batch, at: At) -> str:
        """Send row after row; the first that is not taken ends it."""
        done = 0
        try:
            with self._line.open() as send, batch.rows.open("rb") as rows:
                for number, row in enumerate(rows):
                    key = digest(f"{batch.key}/{number}".encode()).removeprefix("sha256:")
                    send(row.removesuffix(b"\n"), key)
                    done += 1
                    if done == 1:
                        at(Moment.SENT)
        except Failed as failed:
            raise self._error(failed, done) from failed
        return canonical({"sent": done}).decode()

    def undo(self, _batch: Batch, _receipt: str) -> None:
        """Refuse: what was sent is sent."""
        raise kept("what was sent cannot be taken back")

    def _error(self, failed: Failed, done: int) -> CasemateError:
        if failed.refused and not done:
            return CasemateError("CSM-W010", failed.why)
        why = f"{failed.why}, after {done} rows"
        return CasemateError("CSM-W020", why) if self.repeats else unknown(why)

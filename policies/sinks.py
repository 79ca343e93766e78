"""What every sink is, wherever it is written from: it finds a batch, applies it, and can perhaps undo it.

A batch is written down as intended before anything is sent, and as applied with the receipt that came back. Whoever
dies in between leaves an intent, and the next one asks the sink first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from policies.canonical import digest_of
from policies.errors import CasemateError
from policies.plan import Count, Digest, Frozen
from policies.vocabulary import ExitCode


class Moment(StrEnum):
    """The moments at which whoever applies may die, in order."""

    INTENDED = "intended"
    """The intent is durable; nothing was sent."""
    BEGUN = "begun"
    """The sink is about to be given the first of it."""
    SENT = "sent"
    """The sink was given some of it, or all, and has not confirmed."""
    FINAL = "final"
    """The sink has all of it; nobody was told."""
    APPLIED = "applied"
    """The receipt is durable."""


At = Callable[[Moment], None]


def pass_by(_moment: Moment) -> None:
    """What is done at a moment where nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Accepted rows of one output. `digest` is that of the file `rows`; `key` tells the batch from every other one."""

    key: str
    digest: str
    rows: Path
    count: int


class Order(Frozen, frozen=True, kw_only=True):
    """What a container is to do: apply for the `first` time, or `again`; or `undo` what `receipt` proves."""

    mode: Literal["first", "again", "undo"]
    key: Digest
    digest: Digest
    count: Count
    receipt: str = ""


class Sink(Protocol):
    """Where accepted rows land.

    `tells`: what `find` says is certain. `repeats`: a batch that is applied again leaves what it left the first time.
    """

    tells: bool
    repeats: bool

    def find(self, batch: Batch, /) -> str | None:
        """Return the receipt of a batch that the sink has, or None."""
        ...

    def apply(self, batch: Batch, at: At) -> str:
        """Write a batch and return a receipt. Raises CSM-W010 when nothing was written, CSM-W016 when nobody knows.

        And CSM-W020 when the sink will tell, or the batch can be applied again.
        """
        ...

    def undo(self, batch: Batch, receipt: str, /) -> None:
        """Take back what the receipt proves; raise CSM-W017 where that cannot be done."""
        ...


def settle(sink: Sink, batch: Batch, *, again: bool, at: At = pass_by) -> str:
    """Apply a batch, once. `again`: somebody has begun before, and nobody knows how far they came."""
    if again or sink.tells:
        if (receipt := sink.find(batch)) is not None:
            return receipt
        if not (sink.tells or sink.repeats):  # then somebody has begun
            raise unknown("it was being written when that broke off, and the sink cannot tell")
    at(Moment.BEGUN)
    receipt = sink.apply(batch, at)
    at(Moment.FINAL)
    return receipt


def batch_key(run: str, output: str, part: str, rows: str) -> str:
    """Return the idempotency key of the rows (by digest) that are one `part` of what a run writes to an output."""
    return digest_of({"run": run, "output": output, "part": part, "rows": rows})


def unknown(why: str) -> CasemateError:
    """Return the error of a write of which nobody knows whether it was made."""
    hint = "look at the sink, then: casemate apply RUN --done OUTPUT, or --retry OUTPUT"
    return CasemateError("CSM-W016", why, hint=hint, exit_code=ExitCode.WRITES_HELD)


def kept(why: str) -> CasemateError:
    """Return the error of a write that cannot be taken back."""
    return CasemateError("CSM-W017", why, exit_code=ExitCode.REFUSED)


def refused(code: str, why: str) -> CasemateError:
    """Return the error that a sink's container has told of."""
    match code:
        case "CSM-W016":
            return unknown(why)
        case "CSM-W017":
            return kept(why)
        case _:
            return CasemateError(code, why)

"""Verbs about what waits for a person: look at it, approve it, reject it."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.cli.base import as_json_option, run_argument, say, say_json
from sandbox.cli.runs import find

if TYPE_CHECKING:
    from sandbox.durable.approval import Review
    from sandbox.store import Store
    from sandbox.writes import Write

_output = click.argument("output", required=False)
_reason = click.option("--reason", required=True, help="Why: it stands in the log.")
_digest = click.option(
    "--digest", "seen", metavar="DIGEST", help="Of what was shown; without it you are shown and asked."
)


@click.command()
@run_argument
@_output
@as_json_option
def review(run: str, output: str | None, as_json: bool) -> int:
    """Show what of a run waits for a person, as it would change the sink, and the digest that a decision is over."""
    home, run = find(run)
    shown = [one for _, one in _reviews(home, run, output)]
    if as_json:
        say_json([{"output": one.output, "rows": one.rows, "digest": one.digest, "lines": one.lines} for one in shown])
        return ExitCode.DONE
    for one in shown:
        _show(one)
    return ExitCode.DONE


@click.command()
@run_argument
@_output
@_reason
@_digest
def approve(run: str, output: str | None, reason: str, seen: str | None) -> int:
    """Approve what waits, exactly as it was shown; it is applied."""
    return _decide(run, output, reason, seen, approves=True)


@click.command()
@run_argument
@_output
@_reason
@_digest
def reject(run: str, output: str | None, reason: str, seen: str | None) -> int:
    """Reject what waits; what was accepted beside it row by row is applied."""
    return _decide(run, output, reason, seen, approves=False)


def _decide(run: str, output: str | None, reason: str, seen: str | None, *, approves: bool) -> int:
    from sandbox.host import connect
    from sandbox.runner import decide

    home, run = find(run)
    reviews = list(_reviews(home, run, output, approves=approves))
    if seen is not None and len(reviews) > 1:
        message = "several outputs wait, and a digest is of one: name it"
        raise CasemateError("CSM-R018", message, exit_code=ExitCode.USAGE)
    for write, one in reviews:
        if seen is None:
            _show(one)
            click.confirm(f"{'approve' if approves else 'reject'} these {one.rows} rows?", abort=True)
        decide(
            connect(),
            home,
            run,
            write,
            seen or one.digest,
            approves=approves,
            person=getpass.getuser(),
            reason=reason,
            now=datetime.now(UTC),
        )
        say(f"{write.output}: {write.rows} rows {'approved and applied' if approves else 'rejected'}")
    return ExitCode.DONE


def _reviews(home: Store, run: str, output: str | None, *, approves: bool | None = None) -> list[tuple[Write, Review]]:
    from sandbox.durable.approval import review as look
    from sandbox.durable.approval import waiting
    from sandbox.writes import State

    folder: Path = home.folder(run)
    plan = home.plan(run)
    begun = {None: State.HELD, True: State.APPROVED, False: State.REJECTED}[approves]
    return [(write, look(folder, plan, write)) for write in waiting(home, run, output, begun)]


def _show(shown: Review) -> None:
    for line in shown.lines:
        say(line)
    say(f"{shown.output}: {shown.rows} rows wait (?), digest {shown.digest}")


COMMANDS: tuple[click.Command, ...] = (review, approve, reject)

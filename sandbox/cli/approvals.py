"""Verbs about what waits for a person: look at it, approve it, reject it."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.cli.base import PATH, as_json_option, run_argument, say, say_json
from sandbox.cli.runs import find

if TYPE_CHECKING:
    from sandbox.durable.approval import Review
    from sandbox.durable.signed import Person
    from sandbox.records.store import Store
    from sandbox.records.writes import Write

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
    shown = [(one, _signed(home, run, one)) for _, one in _reviews(home, run, output)]
    if as_json:
        documents = [
            {"output": one.output, "rows": one.rows, "digest": one.digest, "lines": list(one.change), **signed}
            for one, signed in shown
        ]
        say_json(documents)
        return ExitCode.DONE
    for one, signed in shown:
        _show(one)
        if signed["missing"]:
            say(f"{one.output}: signed by {', '.join(signed['approved']) or 'nobody'}; {signed['missing']} more must")
    return ExitCode.DONE


@click.command()
@run_argument
@_output
@_reason
@_digest
@click.option("--key", type=PATH, help="Your Ed25519 private key in PEM, where the output has approvers.")
def approve(run: str, output: str | None, reason: str, seen: str | None, key: Path | None) -> int:
    """Approve what waits, exactly as it was shown; it is applied as soon as enough have approved it."""
    return _decide(run, output, reason, seen, _person(key), approves=True)


@click.command()
@run_argument
@_output
@_reason
@_digest
def reject(run: str, output: str | None, reason: str, seen: str | None) -> int:
    """Reject what waits; what was accepted beside it row by row is applied."""
    return _decide(run, output, reason, seen, _person(None), approves=False)


def _person(key: Path | None) -> Person:
    from sandbox.durable.signed import Person

    if key is None:
        return Person(account=getpass.getuser())
    from sandbox.signatures import BadKeyError, signer

    try:
        public, sign = signer(key.read_bytes(), lambda: str(click.prompt("passphrase", hide_input=True, err=True)))
    except (OSError, BadKeyError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise CasemateError("CSM-R018", f"{key}: {why}", exit_code=ExitCode.USAGE) from error
    return Person(account=getpass.getuser(), key=public, sign=sign)


def _decide(run: str, output: str | None, reason: str, seen: str | None, person: Person, *, approves: bool) -> int:
    from sandbox.durable.runner import decide
    from sandbox.engine.host import connect

    home, run = find(run)
    reviews = list(_reviews(home, run, output, approves=approves))
    if seen is not None and len(reviews) > 1:
        message = "several outputs wait, and a digest is of one: name it"
        raise CasemateError("CSM-R018", message, exit_code=ExitCode.USAGE)
    code = ExitCode.DONE
    for write, one in reviews:
        if seen is None:
            _show(one)
            click.confirm(f"{'approve' if approves else 'reject'} these {one.rows} rows?", abort=True)
        more = decide(
            connect(),
            home,
            run,
            write,
            seen or one.digest,
            approves=approves,
            person=person,
            reason=reason,
            now=datetime.now(UTC),
        )
        if more:
            code = ExitCode.WRITES_HELD
            say(f"{write.output}: {write.rows} rows approved by you; {more} more must approve them")
        else:
            say(f"{write.output}: {write.rows} rows {'approved and applied' if approves else 'rejected'}")
    return code


def _signed(home: Store, run: str, shown: Review) -> dict[str, Any]:
    """Return who has signed what is shown, and how many more must."""
    from sandbox.durable.signed import approved, missing
    from sandbox.records.log import read_events

    events = list(read_events(home.folder(run)))
    output = next(output for output in home.plan(run).outputs if output.name == shown.output)
    who = sorted(approved(events, output, shown.digest))
    return {"approved": who, "missing": missing(events, output, shown.digest)}


def _reviews(home: Store, run: str, output: str | None, *, approves: bool | None = None) -> list[tuple[Write, Review]]:
    from sandbox.durable.approval import review as look
    from sandbox.durable.approval import waiting
    from sandbox.records.writes import State

    folder: Path = home.folder(run)
    plan = home.plan(run)
    begun = {None: State.HELD, True: State.APPROVED, False: State.REJECTED}[approves]
    return [(write, look(folder, plan, write)) for write in waiting(home, run, output, begun)]


def _show(shown: Review) -> None:
    for line in shown.change:
        say(line)
    say(f"{shown.output}: {shown.rows} rows wait (?), digest {shown.digest}")


COMMANDS: tuple[click.Command, ...] = (review, approve, reject)

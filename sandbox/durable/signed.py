"""Signed approvals: what an approver signs, and whose signatures the log of a run holds.

Who has signed is never kept beside the log: it is read from there each time, and each signature is verified anew with
the keys of the plan. What is signed is `DOMAIN` and the canonical encoding of the decision, so that no other signed
text can pass for it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from policies.canonical import canonical
from policies.errors import CasemateError
from policies.events import MAX_TEXT, clean
from policies.plan import Output
from policies.vocabulary import EventName, ExitCode, Verdict
from sandbox.records.log import RunEvent

DOMAIN = b"casemate approval v1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who decides: an account of this host; or the owner of a `key` (32 bytes), and what signs with it."""

    account: str
    key: bytes | None = None
    sign: Callable[[bytes], bytes] | None = None


def as_logged(reason: str) -> str:
    """Return a reason as the log holds it, which is what is signed."""
    return clean(reason)[:MAX_TEXT]


def statement(run: str, output: str, seen: str, reason: str) -> bytes:
    """Return what an approver signs. `seen`: the digest of the review."""
    return DOMAIN + canonical({"run": run, "output": output, "digest": seen, "reason": reason})


def sign(output: Output, person: Person, run: str, seen: str, reason: str) -> tuple[str, str | None]:
    """Return an approver's name and signature in base64, or an account's name and None where none is asked for.

    Raises CSM-W018 for somebody whose signature would not count.
    """
    if output.approvers is None:
        return person.account, None
    names = [name for name, key in output.approvers.keys.items() if person.key and bytes.fromhex(key) == person.key]
    if not names or person.sign is None:
        who = ", ".join(output.approvers.keys)
        hint = f"one of {who} signs it: casemate approve RUN {output.name} --key FILE"
        why = "this is the key of none of its approvers" if person.key else "an approval of it is signed"
        raise CasemateError("CSM-W018", why, place=f"output {output.name}", hint=hint, exit_code=ExitCode.REFUSED)
    return names[0], b64encode(person.sign(statement(run, output.name, seen, reason))).decode()


def approved(events: Iterable[RunEvent], output: Output, seen: str) -> frozenset[str]:
    """Return whose valid signatures over the review `seen` the log holds."""
    return frozenset(
        name
        for event in approvals(events, output)
        if event.attrs["casemate.digest"] == seen and (name := signer(event, output)) is not None
    )


def approvals(events: Iterable[RunEvent], output: Output) -> Iterable[RunEvent]:
    """Yield every approval of an output."""
    for event in events:
        allows = event.event is EventName.WRITE_DECIDED and event.verdict is Verdict.ALLOW
        if allows and event.attrs.get("casemate.output") == output.name:
            yield event


def signer(event: RunEvent, output: Output) -> str | None:
    """Return the name of the approver who has signed this approval, or None when nobody of them has."""
    from sandbox.signatures import verifies

    name, signature = str(event.attrs.get("casemate.person")), str(event.attrs.get("casemate.signature"))
    key = output.approvers.keys.get(name) if output.approvers else None
    if key is None:
        return None
    text = statement(event.run, output.name, str(event.attrs["casemate.digest"]), event.reason or "")
    try:
        return name if verifies(bytes.fromhex(key), b64decode(signature, validate=True), text) else None
    except ValueError:
        return None


def missing(events: Iterable[RunEvent], output: Output, seen: str) -> int:
    """Return how many more must sign; 0 where no signature is asked for."""
    return max(output.approvers.need - len(approved(events, output, seen)), 0) if output.approvers else 0


def check_applied(events: Iterable[RunEvent], outputs: Iterable[Output]) -> None:
    """Raise CSM-R011 when rows that waited were written before the log had the signatures that the plan asks for."""
    told = list(events)
    for output in outputs:
        if output.approvers is not None and not _waited_for_all(told, output):
            message = f"{output.name} was written without the signatures of {output.approvers.need} approvers"
            raise CasemateError("CSM-R011", message, exit_code=ExitCode.REFUSED)


def _waited_for_all(events: Iterable[RunEvent], output: Output) -> bool:
    waits, before = output.approval == "always", list[RunEvent]()
    for event in events:
        if event.attrs.get("casemate.output") != output.name:
            continue
        if event.event is EventName.WRITE_JUDGED and event.attrs.get("casemate.write.held"):
            waits = True
        elif event.event is EventName.WRITE_DECIDED and event.verdict is Verdict.DENY:
            # where rows are written one by one, what comes after it had passed by itself
            waits = waits and (output.approval == "always" or output.atomic == "batch")
        elif event.event is EventName.WRITE_DECIDED:
            before.append(event)
        elif event.event is EventName.WRITE_APPLIED and waits:
            reviews = {str(approval.attrs["casemate.digest"]) for approval in approvals(before, output)}
            if all(missing(before, output, seen) for seen in reviews):
                return False
    return True

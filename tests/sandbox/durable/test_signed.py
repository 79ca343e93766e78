"""An approval that takes signatures counts when enough different approvers have signed the same."""

from __future__ import annotations

from base64 import b64encode
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.errors import CasemateError
from policies.plan import Approvers, Output
from policies.vocabulary import Component, EventName, Verdict
from sandbox.durable.signed import DOMAIN, Person, approved, as_logged, check_applied, missing, sign, statement
from sandbox.records.log import RunEvent, RunLog, read_events
from tests.plans import SHA, plan

KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32)) for name in ("anna", "ben", "cleo", "eve")}
RUN, REASON, OTHER = "run-1", "looked at it", "sha256:" + "9" * 64
OUTPUT: Output = msgspec.structs.replace(
    plan().outputs[0],
    approval="always",
    approvers=Approvers(
        need=2, keys={name: KEYS[name].public_key().public_bytes_raw().hex() for name in ("anna", "ben", "cleo")}
    ),
)


def person(name: str) -> Person:
    return Person(account="root", key=KEYS[name].public_key().public_bytes_raw(), sign=KEYS[name].sign)


def event(name: str, signature: str | None, **changes: Any) -> RunEvent:
    attrs = {"casemate.output": OUTPUT.name, "casemate.digest": SHA, "casemate.person": name}
    fields: dict[str, Any] = {
        "seq": 0, "prev": SHA, "run": RUN, "plan": SHA, "shard": None, "n": 0, "time": "", "actor": Component.SANDBOX,
        "event": EventName.WRITE_DECIDED, "stage": None, "verdict": Verdict.ALLOW, "rule": None, "reason": REASON,
        "attrs": attrs | {"casemate.signature": signature},
    }  # fmt: skip
    return RunEvent(**fields | changes)


def signed(name: str, **changes: Any) -> RunEvent:
    return event(name, sign(OUTPUT, person(name), RUN, SHA, REASON)[1], **changes)


def test_two_of_three_are_enough_in_any_order() -> None:
    assert missing([], OUTPUT, SHA) == 2
    assert missing([signed("anna")], OUTPUT, SHA) == 1
    assert missing([signed("cleo"), signed("anna")], OUTPUT, SHA) == 0
    assert approved([signed("cleo"), signed("anna")], OUTPUT, SHA) == {"anna", "cleo"}


def test_one_person_twice_is_one() -> None:
    assert missing([signed("anna"), signed("anna")], OUTPUT, SHA) == 1


def as_another(name: str) -> RunEvent:
    """Anna's signature under the name of somebody else."""
    return event(name, sign(OUTPUT, person("anna"), RUN, SHA, REASON)[1])


def over(text: bytes) -> RunEvent:
    return event("ben", b64encode(KEYS["ben"].sign(text)).decode())


@pytest.mark.parametrize(
    "second",
    [
        as_another("ben"),
        as_another("eve"),
        event("eve", b64encode(KEYS["eve"].sign(statement(RUN, OUTPUT.name, SHA, REASON))).decode()),
        event("ben", None),
        event("ben", ""),
        event("ben", "no base64"),
        event("ben", b64encode(b"0" * 64).decode()),
        signed("ben", reason="another reason"),
        signed("ben", run="run-2"),
        signed("ben", verdict=Verdict.DENY),
        signed("ben", event=EventName.WRITE_JUDGED),
        over(statement("run-2", OUTPUT.name, SHA, REASON)),
        over(statement(RUN, "others", SHA, REASON)),
        over(statement(RUN, OUTPUT.name, OTHER, REASON)),
        over(statement(RUN, OUTPUT.name, SHA, REASON).removeprefix(DOMAIN)),
        over(statement(RUN, OUTPUT.name, SHA, REASON).replace(b"approval", b"lineage exception")),
    ],
)
def test_a_signature_that_is_not_over_this_by_an_approver_does_not_count(second: RunEvent) -> None:
    assert missing([signed("anna"), second], OUTPUT, SHA) == 1
    assert missing([signed("anna"), second, signed("ben")], OUTPUT, SHA) == 0  # the control


def test_what_was_signed_as_it_looked_before_does_not_count() -> None:
    assert missing([signed("anna"), signed("ben")], OUTPUT, OTHER) == 2


def test_only_an_approver_signs() -> None:
    for one in (Person(account="anna"), person("eve")):
        with pytest.raises(CasemateError, match="CSM-W018"):
            sign(OUTPUT, one, RUN, SHA, REASON)


def test_where_no_signature_is_asked_for_an_account_decides() -> None:
    output = msgspec.structs.replace(OUTPUT, approvers=None)
    assert sign(output, Person(account="root"), RUN, SHA, REASON) == ("root", None)
    assert missing([], output, SHA) == 0


APPLIED = event("", None, event=EventName.WRITE_APPLIED, verdict=Verdict.ACCEPT)


@pytest.mark.parametrize("events", [[APPLIED], [signed("anna"), APPLIED], [signed("anna"), as_another("ben"), APPLIED]])
def test_a_log_in_which_signatures_are_wanting_does_not_verify(events: list[RunEvent]) -> None:
    for log in (events, [*events, signed("ben"), signed("cleo")]):  # those that come later are too late
        with pytest.raises(CasemateError, match="CSM-R011"):
            check_applied(log, [OUTPUT])
    check_applied([signed("ben"), signed("cleo"), *events], [OUTPUT])
    check_applied(events[:-1], [OUTPUT])  # nothing was written


@pytest.mark.parametrize("held", [0, 3])
def test_rows_take_signatures_where_they_were_held(held: int) -> None:
    output = msgspec.structs.replace(OUTPUT, approval="on_hold", atomic="each")
    attrs = {"casemate.output": OUTPUT.name, "casemate.write.held": held}
    judged = event("", None, event=EventName.WRITE_JUDGED, attrs=attrs)
    check_applied([judged, signed("anna"), signed("ben"), APPLIED], [output])
    denied = event("root", None, verdict=Verdict.DENY)
    check_applied([judged, signed("anna"), denied, APPLIED], [output])  # what had passed beside them
    with pytest.raises(CasemateError, match="CSM-R011") if held else nullcontext():
        check_applied([judged, denied, APPLIED], [msgspec.structs.replace(output, atomic="batch")])
    with pytest.raises(CasemateError, match="CSM-R011"):
        check_applied([judged, denied, APPLIED], [OUTPUT])  # of which every row waits
    for log in ([judged, APPLIED], [judged, signed("anna"), APPLIED]):
        with pytest.raises(CasemateError, match="CSM-R011") if held else nullcontext():
            check_applied(log, [output])


def test_a_reason_of_any_length_is_signed_as_the_log_holds_it(tmp_path: Path) -> None:
    log = RunLog(tmp_path, RUN, SHA)
    reason = as_logged("Zwölf\u202e " * 99)
    attrs = {"casemate.output": OUTPUT.name, "casemate.digest": SHA, "casemate.person": "anna"}
    attrs["casemate.signature"] = sign(OUTPUT, person("anna"), RUN, SHA, reason)[1] or ""
    log.own(EventName.WRITE_DECIDED, verdict=Verdict.ALLOW, reason=reason, attrs=attrs)
    log.close()
    assert approved(read_events(tmp_path), OUTPUT, SHA) == {"anna"}

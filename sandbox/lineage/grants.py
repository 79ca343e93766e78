"""Exceptions: signed, for one student and one data set, until a day, after a passed drift gate.

1. Read the document strictly; a field that is missing or unknown is refused.
2. Count the approvers: keys of the project's `approvers/` whose signature over the body verifies. Two names of one key
   are one approver. A signature that does not verify refuses the whole document.
3. Require two of them.
4. Compare the last day, the student, and the data set.

What is signed is `DOMAIN` and the canonical encoding of the body, so that no other signed text can pass for it.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

import msgspec

from policies.canonical import StrictJsonError, canonical, strict_loads
from policies.events import clean
from policies.plan import Digest, Frozen
from sandbox.signatures import BadKeyError, public_key, verifies

DOMAIN = b"casemate lineage exception v1\n"
APPROVERS = 2


class ExceptionBody(Frozen, frozen=True, kw_only=True):
    """What approvers sign. `drift_result`: the digest of the drift gate's result; `expires`: the last valid day."""

    casemate: Literal[1]
    student: str
    dataset: Digest
    expires: date
    drift_result: Digest
    drift_outcome: Literal["pass"]
    reason: Annotated[str, msgspec.Meta(min_length=1)]


class Signature(Frozen, frozen=True, kw_only=True):
    """An approver's name, as of its key's file, and the signature in base64."""

    approver: str
    signature: str


class SignedException(Frozen, frozen=True, kw_only=True):
    """The file."""

    exception: ExceptionBody
    signatures: list[Signature]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An exception that holds: this data set may be given to this student."""

    dataset: str
    expires: date
    approvers: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an exception does not hold."""

    code: str
    message: str


def signed_bytes(body: ExceptionBody) -> bytes:
    """Return what an approver signs."""
    return DOMAIN + canonical(msgspec.to_builtins(body))


def examine(
    document: bytes, approvers: Mapping[str, bytes], *, student: str, datasets: Collection[str], today: date
) -> Grant | Refusal:
    """Return what an exception grants for `student` and one of `datasets`, or why it does not hold."""
    try:
        signed = msgspec.convert(strict_loads(document), SignedException)
    except (StrictJsonError, msgspec.ValidationError) as error:
        return Refusal(code="CSM-L007", message=clean(str(error), 200))
    body, keys = signed.exception, dict[bytes, str]()
    for item in signed.signatures:
        if item.approver not in approvers:
            return Refusal(code="CSM-L007", message=f'"{clean(item.approver, 80)}" is no approver of this project')
        try:
            key = public_key(approvers[item.approver])
            good = verifies(key, b64decode(item.signature, validate=True), signed_bytes(body))
        except (BadKeyError, ValueError) as error:
            return Refusal(code="CSM-L007", message=f"{item.approver}: {clean(str(error), 200)}")
        if not good:
            return Refusal(code="CSM-L007", message=f"the signature of {item.approver} does not verify")
        keys.setdefault(key, item.approver)
    if len(keys) < APPROVERS:
        return Refusal(code="CSM-L010", message=f"{len(keys)} of {APPROVERS} approvers signed")
    if today > body.expires:
        return Refusal(code="CSM-L008", message=f"its last day was {body.expires}")
    if body.student != student:
        return Refusal(code="CSM-L009", message=f'it is for the student "{clean(body.student, 80)}"')
    if body.dataset not in datasets:
        return Refusal(code="CSM-L009", message=f"the student is not exposed to {body.dataset}")
    return Grant(
        dataset=body.dataset, expires=body.expires, approvers=tuple(keys.values()), reason=clean(body.reason, 200)
    )

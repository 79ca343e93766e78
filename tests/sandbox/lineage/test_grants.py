"""Exceptions: each way in which one does not hold."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from datetime import date
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.lineage.grants import DOMAIN, ExceptionBody, Grant, Refusal, examine, signed_bytes
from tests.sandbox.lineage.conftest import sha

KEYS = {name: Ed25519PrivateKey.generate() for name in ("ada", "bob", "eve")}
BODY: dict[str, Any] = {
    "casemate": 1,
    "student": "alpha",
    "dataset": sha("one"),
    "expires": "2026-06-30",
    "drift_result": sha("result"),
    "drift_outcome": "pass",
    "reason": "measured, and no shift was found",
}


def pem(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


APPROVERS = {"ada": pem(KEYS["ada"]), "bob": pem(KEYS["bob"]), "ada-again": pem(KEYS["ada"])}


def signed(body: dict[str, Any], signers: dict[str, str]) -> dict[str, Any]:
    """Return an exception; `signers` gives the key that each named approver signs with."""
    data = signed_bytes(msgspec.convert(body, ExceptionBody))
    signatures = [
        {"approver": name, "signature": b64encode(KEYS[key].sign(data)).decode()} for name, key in signers.items()
    ]
    return {"exception": body, "signatures": signatures}


BOTH = {"ada": "ada", "bob": "bob"}


def look(
    document: object, *, today: date = date(2026, 6, 1), approvers: dict[str, bytes] = APPROVERS
) -> Grant | Refusal:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return examine(text, approvers, student="alpha", datasets={sha("one")}, today=today)


def test_two_signatures_make_a_grant_until_the_last_day() -> None:
    for day in (date(2026, 6, 1), date(2026, 6, 30)):
        found = look(signed(BODY, BOTH), today=day)
        assert isinstance(found, Grant)
        assert (found.dataset, found.approvers) == (sha("one"), ("ada", "bob"))


def without(field: str) -> dict[str, Any]:
    document = signed(BODY, BOTH)
    return {**document, "exception": {k: v for k, v in BODY.items() if k != field}}


def changed(**fields: object) -> dict[str, Any]:
    return {**signed(BODY, BOTH), "exception": {**BODY, **fields}}


def other_domain() -> dict[str, Any]:
    document = signed(BODY, BOTH)
    data = signed_bytes(msgspec.convert(BODY, ExceptionBody)).removeprefix(DOMAIN)
    document["signatures"][0]["signature"] = b64encode(KEYS["ada"].sign(data)).decode()
    return document


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "not JSON": (lambda: b"{", "CSM-L007"),
    "a key twice": (lambda: b'{"exception": {}, "exception": {}, "signatures": []}', "CSM-L007"),
    "an unknown field": (lambda: {**signed(BODY, BOTH), "more": 1}, "CSM-L007"),
    "no drift result": (lambda: without("drift_result"), "CSM-L007"),
    "no expiry": (lambda: without("expires"), "CSM-L007"),
    "a failed drift gate": (lambda: changed(drift_outcome="fail"), "CSM-L007"),
    "an empty reason": (lambda: changed(reason=""), "CSM-L007"),
    "a later day than was signed": (lambda: changed(expires="2027-06-30"), "CSM-L007"),
    "another data set than was signed": (lambda: changed(dataset=sha("two")), "CSM-L007"),
    "a stranger": (lambda: signed(BODY, {**BOTH, "eve": "eve"}), "CSM-L007"),
    "a signature by another key": (lambda: signed(BODY, {"ada": "ada", "bob": "eve"}), "CSM-L007"),
    "a signature that is not base64": (
        lambda: {"exception": BODY, "signatures": [{"approver": "ada", "signature": "?"}]},
        "CSM-L007",
    ),
    "a signature of something else": (other_domain, "CSM-L007"),
    "nobody": (lambda: signed(BODY, {}), "CSM-L010"),
    "one approver": (lambda: signed(BODY, {"ada": "ada"}), "CSM-L010"),
    "one approver under two names": (lambda: signed(BODY, {"ada": "ada", "ada-again": "ada"}), "CSM-L010"),
    "one signature twice": (
        lambda: {**signed(BODY, {"ada": "ada"}), "signatures": signed(BODY, {"ada": "ada"})["signatures"] * 2},
        "CSM-L010",
    ),
    "another student": (lambda: signed({**BODY, "student": "beta"}, BOTH), "CSM-L009"),
    "another data set": (lambda: signed({**BODY, "dataset": sha("two")}, BOTH), "CSM-L009"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_exception_does_not_hold(name: str) -> None:
    make, code = WRONG[name]
    found = look(make())
    assert isinstance(found, Refusal)
    assert found.code == code, found.message


def test_a_day_too_late() -> None:
    found = look(signed(BODY, BOTH), today=date(2026, 7, 1))
    assert isinstance(found, Refusal)
    assert found.code == "CSM-L008"


@pytest.mark.parametrize("key", [b"", b"not a key", pem(X25519PrivateKey.generate())])
def test_a_key_of_another_kind_approves_nothing(key: bytes) -> None:
    found = look(signed(BODY, BOTH), approvers={**APPROVERS, "bob": key})
    assert isinstance(found, Refusal)
    assert found.code == "CSM-L007"

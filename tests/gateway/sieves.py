"""A sieve of every check, and the checks that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.customs.checks.base import Candidate, Check
from gateway.customs.examine import checks_for
from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import Scanner
from gateway.customs.scan.values import needles
from gateway.customs.sieve.decode import read
from gateway.customs.sieve.known import Known
from gateway.customs.sieve.sieve import Sieve
from policies.secret_rules import secret_rules
from tests.gateway.kit import make_output
from tests.gateway.test_secrets import FOREIGN, SECRET

ALL = ["links", "pii", "secrets", "unicode"]
NEEDLES = needles({"hub": SECRET, "pin": "4711", "odd": "!§$%&/()=?", "short": "p4ss-w0rd"})
WIDE = [*NEEDLES, *needles({"word": FOREIGN})]
"""With a value that has other letters than ASCII, which is looked for in another way."""
OPEN: dict[str, Any] = {"type": "object"}
OUTPUT = make_output(schema=OPEN, scan=ALL, bounds={}, unique=[], hosts=["example.com"])
CHECKS, WIDE_CHECKS = (list(checks_for(OUTPUT, Scanner(load(), known), b"k")) for known in (NEEDLES, WIDE))
SIEVE, WIDE_SIEVE = (Sieve(ALL, secret_rules(), Known(known), None) for known in (NEEDLES, WIDE))


def joined(lines: Sequence[bytes]) -> bytes:
    return b"\n".join(lines)


def suspects(records: Sequence[Mapping[str, Any]], sieve: Sieve = SIEVE) -> set[int]:
    rows = read(joined([orjson.dumps(record) for record in records]))
    return sieve.sift({n: record for n, record in enumerate(rows.records) if record is not None}, rows).suspects


def objected(record: dict[str, Any], checks: Sequence[Check] = CHECKS) -> bool:
    return any(list(check(Candidate(record=record, size=1))) for check in checks)

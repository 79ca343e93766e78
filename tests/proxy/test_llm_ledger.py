"""The ledger, in its file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from policies.errors import CasemateError
from proxy.llm.ledger import Ledger
from proxy.llm.types import Amount, Refused


def amount(calls: int = 1, tokens: int = 10, usd_nanos: int = 100) -> Amount:
    return Amount(calls=calls, tokens=tokens, usd_nanos=usd_nanos)


MOST = amount(3, 100, 1000)
SCOPES = {"stage/work": MOST, "run": MOST}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_a_reservation_counts_as_spent_until_it_is_settled(path: Path) -> None:
    ledger = Ledger(path, "r")
    number = ledger.reserve(amount(1, 90, 900), SCOPES)
    with pytest.raises(Refused) as refused:
        ledger.reserve(amount(1, 20, 1), SCOPES)
    assert refused.value.more == {"scope": "stage/work", "ceiling": "tokens", "spent": 90, "limit": 100}
    ledger.settle(number, amount(1, 5, 50))
    ledger.reserve(amount(1, 20, 1), SCOPES)
    assert ledger.spent("run") == ledger.spent("stage/work") == amount(2, 25, 51)


@pytest.mark.parametrize("asked", [amount(calls=4), amount(tokens=101), amount(usd_nanos=1001)])
def test_a_refusal_writes_nothing_in_any_scope(path: Path, asked: Amount) -> None:
    ledger = Ledger(path, "r")
    with pytest.raises(Refused, match="CSM-P023"):
        ledger.reserve(asked, {"stage/work": amount(10**6, 10**6, 10**6), "run": MOST})
    assert ledger.spent("stage/work") == amount(0, 0, 0)


def test_row_33_an_open_reservation_stays_spent_after_a_crash(path: Path) -> None:
    ledger = Ledger(path, "r")
    ledger.reserve(amount(3), SCOPES)
    ledger.close()  # and then the process dies
    again = Ledger(path, "r")
    assert again.spent("run") == amount(3)
    with pytest.raises(Refused):
        again.reserve(amount(), SCOPES)


def test_a_charge_beyond_the_reservation_is_recorded_as_it_is(path: Path) -> None:
    ledger = Ledger(path, "r")
    ledger.settle(ledger.reserve(amount(), SCOPES), amount(1, 500, 5000))
    assert ledger.spent("run") == amount(1, 500, 5000)
    with pytest.raises(Refused):
        ledger.reserve(amount(1, 0, 0), SCOPES)


def test_a_reservation_is_settled_once(path: Path) -> None:
    ledger = Ledger(path, "r")
    number = ledger.reserve(amount(), SCOPES)
    ledger.settle(number, amount())
    with pytest.raises(sqlite3.DatabaseError):
        ledger.settle(number, amount())
    assert ledger.spent("run") == amount()


def test_a_second_writer_is_refused_as_the_two_would_pass_a_ceiling_together(path: Path) -> None:
    first = Ledger(path, "r")
    with pytest.raises(CasemateError, match="CSM-R017"):
        Ledger(path, "r")
    first.reserve(amount(), SCOPES)
    first.close()
    assert Ledger(path, "r").spent("run") == amount()


def test_the_ledger_of_another_run_is_refused(path: Path) -> None:
    Ledger(path, "one").close()
    with pytest.raises(CasemateError, match="another run"):
        Ledger(path, "two")


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to look" * 100)
    with pytest.raises(CasemateError, match="CSM-R017"):
        Ledger(path, "r")

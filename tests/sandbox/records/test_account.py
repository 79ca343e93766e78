"""The account: what a log adds up to, so that a run that goes on has spent what it has spent."""

from __future__ import annotations

from typing import Any

from policies.vocabulary import Component, EventName, Verdict
from sandbox.records.account import Account, Promise
from sandbox.records.log import RunEvent
from tests.plans import SHA


def event(
    name: EventName, stage: str | None = "a", verdict: Verdict | None = None, at: int = 0, **attrs: Any
) -> RunEvent:
    return RunEvent(
        seq=0,
        prev=SHA,
        run="20260101-000000-abcdef",
        plan=SHA,
        n=0,
        time=f"2026-01-01T00:00:{at:02}.000000Z",
        actor=Component.LLM,
        event=name,
        stage=stage,
        shard=None,
        verdict=verdict,
        rule=None,
        reason=None,
        attrs={name.replace("__", "."): value for name, value in attrs.items()},
    )


def proposed(n: int, stage: str = "a", path: str | None = None) -> RunEvent:
    more: dict[str, Any] = {} if path is None else {"casemate__path": path}
    more |= {"casemate__output": "rows", "casemate__write__id": f"{stage}-{n}", "casemate__write__digest": f"d{n}"}
    return event(EventName.WRITE_PROPOSED, stage, Verdict.ALLOW, casemate__bytes__in=10, **more)


def settled(calls: int = 1, cost: int = 7, **more: Any) -> RunEvent:
    usage: dict[str, Any] = {
        "gen_ai__usage__input_tokens": 2,
        "gen_ai__usage__output_tokens": 3,
        "casemate__cost__usd_nanos": cost,
    }
    return event(EventName.LLM_SETTLED, **usage, casemate__attempt=1 if calls else 2, **more)


def decided(tokens: int, usd: int) -> RunEvent:
    reserved: dict[str, Any] = {"casemate__reserved__tokens": tokens, "casemate__reserved__usd_nanos": usd}
    return event(EventName.LLM_DECIDED, verdict=Verdict.ALLOW, **reserved)


def test_only_what_the_last_attempt_proposed_counts_but_all_that_was_spent() -> None:
    started = event(EventName.STAGE_STARTED)
    account = Account.of([started, proposed(0), proposed(1, path="x"), settled(), started, proposed(0), settled()])
    assert account.heads == {"a": "d0"}
    assert account.promises == {}
    assert account.used(["a"]) == {"proposals/a": "1", "used/rows": "1 10"}
    assert account.spent() == {"spent/a": "2 10 14"}
    assert (account.tally.stages["a"].attempts, account.tally.stages["a"].proposed) == (0, 1)


def test_the_rows_of_a_file_count_at_customs() -> None:
    account = Account.of([event(EventName.STAGE_STARTED), proposed(0), proposed(1, path="sets/x")])
    assert account.used(["a"]) == {"proposals/a": "2", "used/rows": "1 20"}
    assert account.used([]) == {}
    assert account.promises == {"a": [Promise("a-1", "rows", "sets/x")]}


def test_calls_that_nobody_settled_are_the_dearest_they_may_be() -> None:
    account = Account.of([decided(5, 50), decided(9, 90), decided(7, 70), settled()])
    assert sorted(account.open["a"]) == [(7, 70), (9, 90)]


def test_what_was_paid_before_is_not_counted_again() -> None:
    account = Account.of([settled(), settled(cost=0, casemate__cache="paid")])
    assert account.tally.calls == 1


def test_the_time_in_which_nobody_drove_does_not_count() -> None:
    legs = [
        event(EventName.RUN_STARTED, None, at=0),
        event(EventName.STAGE_STARTED, at=10),
        event(EventName.RUN_RESUMED, None, at=40),
        event(EventName.STAGE_STARTED, at=45),
    ]
    assert Account.of(legs).seconds == 15

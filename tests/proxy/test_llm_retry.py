"""Retries, breakers, routes, fallbacks and rates: by table, and through a door whose provider follows a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from policies.plan import Budget, CallLimit, Plan, Price, Rate, Route
from proxy.llm.breaker import FAILURES, LONGEST_S, REST_S, WINDOW_S, Breaker
from proxy.llm.call import World
from proxy.llm.formats.chat import CHAT
from proxy.llm.limits import Limiter
from proxy.llm.retry import CAP_S, TRIES, Failure, RetryBudget, failure, wait
from proxy.llm.retry import LONGEST_S as LONGEST_WAIT_S
from proxy.llm.routing import chain, reach, target
from proxy.llm.types import Refused
from tests.proxy.kit import PLENTY, TEACHER, limits, make_plan, run
from tests.proxy.llm_setting import URL, USER, Setting, setting
from tests.proxy.provider import Provider, polite, provider_at, saying

replace = msgspec.structs.replace
SPARE = replace(TEACHER, alias="remote", model="spare-model", price=Price(input=1000, output=2000))


class Clock:
    """Time that passes when somebody sleeps, or a test says so."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def world(self, draw: float = 0.5) -> World:
        return World(now=lambda: self.now, draw=lambda: draw, sleep=self.sleep)


# ---- decisions


@pytest.mark.parametrize(
    ("status", "after", "found"),
    [(429, "7", Failure(7)), (429, None, Failure()), (500, None, Failure()), (503, "0", Failure(0)),
     (529, None, Failure()), (408, None, Failure()), (400, "7", None), (401, None, None), (403, None, None),
     (404, None, None), (302, None, None), (501, None, None)],
)  # fmt: skip
def test_what_may_be_tried_again(status: int, after: str | None, found: Failure | None) -> None:
    assert failure(status, after) == found


@given(st.integers(0, 10), st.integers(0, 200) | st.none(), st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded_and_never_shorter_than_asked_for(tries: int, after: int | None, draw: float) -> None:
    seconds = wait(Failure(after), tries, draw)
    if tries >= TRIES or (after or 0) > LONGEST_WAIT_S:
        assert seconds is None
    else:
        assert seconds is not None
        assert (after or 0) <= seconds <= (after or 0) + CAP_S


def test_jitter_is_full_and_grows() -> None:
    assert [wait(Failure(), tries, 0.0) for tries in (1, 2)] == [0, 0]
    assert [wait(Failure(), tries, 0.5) for tries in (1, 2)] == [0.5, 1.0]


def test_a_stage_may_retry_a_tenth_of_its_calls_and_a_few_to_begin_with() -> None:
    budget = RetryBudget()
    taken = 0
    for _ in range(1000):
        budget.earn()
        taken += sum(budget.take() for _ in range(5))
    assert taken == 103


def test_a_breaker_opens_tries_once_and_closes() -> None:
    breaker = Breaker()
    for n in range(FAILURES):
        assert breaker.rest(float(n)) == 0
        breaker.begin(float(n))
        breaker.failed(float(n))
    assert breaker.rest(4.0) == REST_S
    assert breaker.rest(4.0 + REST_S) == 0
    breaker.begin(4.0 + REST_S)
    assert breaker.rest(4.0 + REST_S) > 0  # one tries, the others wait
    breaker.failed(20.0)
    assert breaker.rest(20.0) == REST_S
    breaker.begin(20.0 + REST_S)
    breaker.abandoned()
    assert breaker.rest(20.0 + REST_S) == 0  # nobody knows: the next may try
    breaker.begin(20.0 + REST_S)
    breaker.answered()
    assert breaker.rest(20.0 + REST_S) == 0
    breaker.failed(40.0)
    assert breaker.rest(40.0) == 0


def test_a_breaker_counts_within_its_window_and_rests_as_long_as_asked() -> None:
    breaker = Breaker()
    for n in range(20):
        breaker.failed(n * WINDOW_S / (FAILURES - 2))
        assert breaker.rest(n * WINDOW_S / (FAILURES - 2)) == 0
    for asked, rest in ((60, 60.0), (10**6, LONGEST_S)):
        breaker = Breaker()
        for _ in range(FAILURES):
            breaker.failed(0.0, asked)
        assert breaker.rest(0.0) == rest


SMALL, EARLY = Route(kind="small", below=100, use="a"), Route(kind="early", below=2, use="b")


@pytest.mark.parametrize(
    ("routes", "tokens", "calls", "alias"),
    [([], 1, 0, "teacher"), ([SMALL], 99, 0, "a"), ([SMALL], 100, 0, "teacher"), ([EARLY], 10**6, 1, "b"),
     ([EARLY], 1, 2, "teacher"), ([SMALL, EARLY], 1, 1, "b"), ([SMALL, EARLY], 1, 2, "a")],
)  # fmt: skip
def test_routes_by_rule(routes: list[Route], tokens: int, calls: int, alias: str) -> None:
    assert target(replace(TEACHER, routes=routes), tokens, calls) == alias


def test_a_chain_has_only_models_that_speak_the_format_each_once() -> None:
    models = {
        "teacher": replace(TEACHER, fallback=["claude", "spare", "teacher", "absent"], routes=[SMALL]),
        "spare": replace(TEACHER, alias="spare", fallback=["far"]),
        "claude": replace(TEACHER, alias="claude", provider="anthropic"),
        "far": replace(TEACHER, alias="far"),
        "a": replace(TEACHER, alias="a", fallback=["far"]),
    }
    assert chain("teacher", models, CHAT) == ["teacher", "spare"]
    assert reach(["teacher"], models) == {"teacher", "claude", "spare", "a", "far"}
    assert reach([], models) == set()


# ---- conversations


def spare(fallback: Sequence[str] = ("remote",), **more: Any) -> Plan:
    teacher = replace(TEACHER, fallback=list(fallback), **more)
    return make_plan(models=(SPARE, teacher), stage_models=["teacher"])


def script(*steps: Any) -> Any:
    """A provider that follows a script, then stays at its last step. A step is a status, or a way to answer."""
    left = list(steps)

    async def answer(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, int):
            return web.Response(status=step, body=b"{}")
        response: web.StreamResponse = await step(provider, request)
        return response

    return answer


def settled(s: Setting) -> list[tuple[Any, ...]]:
    names = ("casemate.attempt", "gen_ai.request.model", "gen_ai.response.model", "http.response.status_code")
    return [tuple(one["attrs"].get(name) for name in names) for one in s.log.named("llm.settled")]


@pytest.mark.parametrize("streamed", [False, True])
def test_what_failed_is_tried_again_and_charged_once(root: Path, streamed: bool) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with setting(root, script(429, 503, polite), world=clock.world()) as s:
            if streamed:
                assert (await s.events())[-1] == "[DONE]"
            else:
                assert (await s.ask())[0] == 200
            assert settled(s) == [(1, "teacher", None, 429), (2, "teacher", None, 503),
                                  (3, "teacher", "tiny-model", 200)]  # fmt: skip
            assert clock.slept == [0.5, 1.0]
            assert s.spent().calls == 1
            owed = s.log.lines[0]["attrs"]["casemate.reserved.tokens"] - 50  # the input of what failed with 503
            assert s.spent().tokens == 10 + owed
            assert [one["attrs"]["casemate.attempt"] for one in s.log.named("llm.decided")] == [1, 2, 3]

    run(scenario())


def test_retry_after_is_waited_for_or_told(root: Path) -> None:
    async def scenario() -> None:
        for asked, tries in (("7", 3), ("31", 1)):
            clock = Clock()
            busy = saying(429, b"{}", **{"Retry-After": asked})
            async with (
                setting(root, busy, world=clock.world(0.0)) as s,
                s.client.post(URL, json={"model": "teacher", "messages": USER}) as response,
            ):
                assert (response.status, response.headers["Retry-After"]) == (429, asked)
                assert len(s.provider.requests) == tries
                assert clock.slept == [7.0] * (tries - 1)
            (root / "doors/up-teacher/up.sock").unlink(missing_ok=True)

    run(scenario())


def test_never_a_retry_after_the_first_byte(root: Path) -> None:
    async def scenario() -> None:
        async def breaks(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            out = web.StreamResponse()
            await out.prepare(request)
            await out.write(b"data: ")
            raise ConnectionResetError

        clock = Clock()
        async with setting(root, breaks, plan=spare(), world=clock.world()) as s:
            assert "CSM-P0" in (await s.events())[-1]
            assert (len(s.provider.requests), clock.slept) == (1, [])

    run(scenario())


@pytest.mark.parametrize("first", [429, 500])
def test_a_fallback_is_reserved_at_its_own_price_and_named(root: Path, first: int) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            clock = Clock()
            path = root / "doors/up-remote/up.sock"
            other = await stack.enter_async_context(provider_at(path, model="spare-model"))
            busy = saying(first, b"{}", **{"Retry-After": "20"})
            s = await stack.enter_async_context(setting(root, busy, plan=spare(), world=clock.world()))
            status, body = await s.ask()
            assert (status, body["model"]) == (200, "spare-model")
            assert other.bodies[0]["model"] == "spare-model"
            one, two = s.log.named("llm.decided")
            assert (one["attrs"]["casemate.asked"], two["attrs"]["casemate.asked"]) == ("teacher", "teacher")
            assert (one["rule"], two["rule"]) == ("model/teacher", "model/remote")
            reserved = [line["attrs"]["casemate.reserved.usd_nanos"] for line in (one, two)]
            assert reserved[1] > 90 * reserved[0]
            last = s.log.lines[-1]["attrs"]
            assert last["casemate.cost.usd_nanos"] == 7 * 1000 + 3 * 2000
            assert clock.slept == [0.0]  # nobody waits 20 s where another can be asked

    run(scenario())


def test_a_fallback_that_would_pass_a_ceiling_is_not_asked(root: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            path = root / "doors/up-remote/up.sock"
            other = await stack.enter_async_context(provider_at(path, model="spare-model"))
            plan = replace(spare(), budget=Budget(usd_nanos=50_000, tokens=PLENTY, calls=PLENTY, wall_s=60))
            s = await stack.enter_async_context(setting(root, script(429), plan=plan, world=Clock().world()))
            status, body = await s.ask()
            assert (status, body["error"]["code"]) == (403, "CSM-P023")
            assert other.requests == []
            assert s.spent().calls == 1

    run(scenario())


def test_a_retry_never_lets_its_reservation_lapse(root: Path) -> None:
    async def scenario() -> None:
        waiting, go = asyncio.Event(), asyncio.Event()

        async def hold(seconds: float) -> None:
            waiting.set()
            await go.wait()

        plan = make_plan(stage_limits=limits(tokens=300))
        async with setting(root, script(429, polite), plan=plan, world=World(draw=lambda: 0.0, sleep=hold)) as s:
            first = asyncio.create_task(s.ask())
            await waiting.wait()
            second, body = await s.ask()  # it would fit, if what waits did not hold its part
            assert (second, body["error"]["code"]) == (403, "CSM-P023")
            go.set()
            assert (await first)[0] == 200
            assert (await s.ask())[0] == 200  # and now it fits

    run(scenario())


def test_an_agent_that_hangs_up_while_we_wait_is_settled_and_nothing_more_is_sent(root: Path) -> None:
    async def scenario() -> None:
        waiting = asyncio.Event()

        async def hold(seconds: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

        async with setting(root, script(429), world=World(draw=lambda: 0.0, sleep=hold)) as s:
            asking = asyncio.create_task(s.ask())
            await waiting.wait()
            asking.cancel()
            while len(s.log.named("llm.settled")) < 2:
                await asyncio.sleep(0)
            assert (s.spent().calls, s.spent().tokens) == (1, 0)
            assert len(s.provider.requests) == 1

    run(scenario())


def test_a_storm_of_429_for_a_minute_is_no_storm_upstream(root: Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with setting(root, script(429), world=clock.world(0.0)) as s:
            for _ in range(60):
                told = await asyncio.gather(*(s.ask() for _ in range(10)))
                assert {body["error"]["code"] for _, body in told} <= {"CSM-P025", "CSM-P031"}
                clock.now += 1
            assert len(s.log.named("llm.decided")) - s.log.denied.count("CSM-P031") - s.log.denied.count(
                "CSM-P025"
            ) == (len(s.provider.requests))
            # 600 calls: those that were on their way when it began, a few retries, and one probe each 15 s
            assert len(s.provider.requests) <= 10 + FAILURES + 60 / REST_S + 3
            s.provider.answer = polite
            clock.now += REST_S
            assert (await s.ask())[0] == 200
            assert [status for status, _ in await asyncio.gather(*(s.ask() for _ in range(10)))] == [200] * 10

    run(scenario(), seconds=60)


def test_without_a_breaker_the_same_storm_would_arrive(root: Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with setting(root, script(400), world=clock.world(0.0)) as s:  # the control: nothing says "leave me"
            for _ in range(60):
                await asyncio.gather(*(s.ask() for _ in range(10)))
                clock.now += 1
            assert len(s.provider.requests) == 600

    run(scenario(), seconds=60)


def test_a_route_is_taken_by_size_and_is_an_event_of_its_own_model(root: Path) -> None:
    async def scenario() -> None:
        plan = spare((), routes=[Route(kind="small", below=400, use="remote")])
        async with (
            provider_at(root / "doors/up-remote/up.sock", model="spare-model") as other,
            setting(root, plan=plan) as s,
        ):
            assert (await s.ask())[1]["model"] == "spare-model"
            long = [{"role": "user", "content": "x" * 400}]
            assert (await s.ask(messages=long))[1]["model"] == "tiny-model"
            assert len(other.requests) == len(s.provider.requests) == 1
            assert (await s.ask(model="remote"))[1]["error"]["code"] == "CSM-P022"  # not the agent's to name

    run(scenario())


# ---- limits


def rated(**rate: int) -> Plan:
    return make_plan(stage_limits=replace(limits(), rate=Rate(**rate)))


def test_requests_a_minute(root: Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with setting(root, plan=rated(requests=2), world=clock.world()) as s:
            assert [(await s.ask())[0] for _ in range(2)] == [200, 200]
            clock.now += 12
            async with s.client.post(URL, json={"model": "teacher", "messages": USER}) as response:
                error = json.loads(await response.read())["error"]
                assert (response.status, error["code"], error["ceiling"]) == (429, "CSM-P030", "requests")
                assert response.headers["Retry-After"] == "48"
            assert s.log.denied == ["CSM-P030"]
            clock.now += 48
            assert (await s.ask())[0] == 200
            assert len(s.provider.requests) == 3

    run(scenario())


def test_tokens_a_minute_count_as_the_worst_case_until_they_are_known(root: Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with setting(root, plan=rated(tokens=250), world=clock.world()) as s:
            assert [(await s.ask())[0] for _ in range(3)] == [200, 200, 200]  # each came to 10, and might to over 150
            told = await asyncio.gather(s.ask(), s.ask())
            assert sorted(status for status, _ in told) == [200, 429]
            status, body = await s.ask(messages=[{"role": "user", "content": "x" * 300}])
            assert (status, body["error"]["code"]) == (403, "CSM-P030")  # no minute is ever long enough

    run(scenario())


def test_calls_at_once(root: Path) -> None:
    async def scenario() -> None:
        async def held(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            await provider.release.wait()
            return await polite(provider, request)

        async with setting(root, held, plan=rated(parallel=1)) as s:
            first = asyncio.create_task(s.ask())
            while not s.provider.requests:
                await asyncio.sleep(0)
            status, body = await s.ask()
            assert (status, body["error"]["code"], body["error"]["ceiling"]) == (429, "CSM-P030", "parallel")
            s.provider.release.set()
            assert (await first)[0] == 200
            assert (await s.ask())[0] == 200

    run(scenario())


def test_a_limiter_that_raises_denies(root: Path) -> None:
    async def scenario() -> None:
        def broken() -> float:
            raise OverflowError("the clock")

        async with setting(root, plan=rated(requests=2), world=World(now=broken)) as s:
            status, body = await s.ask()
            assert (status, body["error"]["code"]) == (500, "CSM-P019")
            assert (s.log.denied, s.provider.requests) == (["CSM-P019"], [])

    run(scenario())


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 60), st.integers(0, 60)), max_size=60))
def test_no_minute_ever_has_more_than_its_limits(calls: list[tuple[float, int, int]]) -> None:
    now, passed = 0.0, list[tuple[float, int]]()
    limiter = Limiter(Rate(requests=5, tokens=100), lambda: now)
    for gap, worst, actual in calls:
        now += gap
        try:
            ticket = limiter.enter(worst)
        except Refused:
            continue
        limiter.count(ticket, actual)
        limiter.leave()
        passed.append((now, actual))
        window = [tokens for at, tokens in passed if at > now - 60]
        assert len(window) <= 5
        assert sum(window) - actual + worst <= 100


@pytest.mark.parametrize(
    ("limit", "ceiling"), [(CallLimit(tokens=60), "tokens"), (CallLimit(usd_nanos=500), "usd_nanos")]
)
def test_one_call_may_not_come_to_more_than_one_call_may(root: Path, limit: CallLimit, ceiling: str) -> None:
    async def scenario() -> None:
        async with setting(root, plan=make_plan(stage_limits=replace(limits(), call=limit))) as s:
            status, body = await s.ask()
            error = body["error"]
            assert (status, error["code"], error["scope"], error["ceiling"]) == (403, "CSM-P023", "call", ceiling)
            assert (s.provider.requests, s.spent().calls) == ([], 0)

    run(scenario())


def test_a_breaker_is_shared_by_every_alias_of_a_provider_and_model(root: Path) -> None:
    async def scenario() -> None:
        twin = replace(TEACHER, alias="remote")
        plan = make_plan(models=(twin, TEACHER))
        async with (
            provider_at(root / "doors/up-remote/up.sock") as other,
            setting(root, script(500), plan=plan, world=Clock().world(0.0)) as s,
        ):
            for _ in range(FAILURES):
                await s.ask()
            status, body = await s.ask(model="remote")
            assert (status, body["error"]["code"], other.requests) == (503, "CSM-P031", [])

    run(scenario())

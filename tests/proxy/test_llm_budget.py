"""What a call costs and may cost, and what becomes of it when something breaks, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from collections.abc import Awaitable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from policies.plan import Budget
from policies.vocabulary import Component
from proxy.llm.types import Amount
from tests.proxy.kit import PLENTY, REMOTE, TEACHER, Log, limits, make_plan, run
from tests.proxy.llm_setting import URL, USER, setting
from tests.proxy.provider import Provider, chunk, saying, stalling, stream


def few(calls: int = PLENTY, tokens: int = PLENTY, usd_nanos: int = PLENTY) -> Budget:
    return Budget(calls=calls, tokens=tokens, usd_nanos=usd_nanos, wall_s=60)


@pytest.mark.parametrize("streamed", [False, True])
def test_row_33_fifty_at_once_against_a_ceiling_for_ten(root: Path, streamed: bool) -> None:
    async def scenario() -> None:
        async with setting(root, plan=make_plan(budget=few(calls=10))) as s:

            async def one() -> int:
                async with s.client.post(URL, json={"model": "teacher", "messages": USER, "stream": streamed}) as r:
                    await r.read()
                    return int(r.status)

            statuses = await asyncio.gather(*(one() for _ in range(50)))
            assert (statuses.count(200), statuses.count(403)) == (10, 40)
            assert len(s.provider.requests) == 10
            assert s.spent().calls == 10
            assert s.log.denied == ["CSM-P023"] * 40

    run(scenario())


@pytest.mark.parametrize(
    ("budget", "stage", "scope", "ceiling"),
    [
        (few(tokens=60), limits(), "run", "tokens"),
        (few(usd_nanos=500), limits(), "run", "usd_nanos"),
        (few(calls=0), limits(), "run", "calls"),
        (few(), limits(tokens=60), "stage/work", "tokens"),
        (few(), limits(usd_nanos=500), "stage/work", "usd_nanos"),
        (few(), limits(calls=0), "stage/work", "calls"),
    ],
)
def test_a_call_that_could_pass_a_ceiling_is_not_sent(
    root: Path, budget: Budget, stage: Any, scope: str, ceiling: str
) -> None:
    async def scenario() -> None:
        async with setting(root, plan=make_plan(budget=budget, stage_limits=stage)) as s:
            status, body = await s.ask()
            error = body["error"]
            assert (status, error["code"], error["scope"], error["ceiling"]) == (403, "CSM-P023", scope, ceiling)
            assert s.provider.requests == []
            assert s.spent() == Amount(calls=0, tokens=0, usd_nanos=0)

    run(scenario())


def test_trap_8_row_34_a_disconnect_ends_the_call_upstream_and_is_charged(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root, stalling) as s:
            body = {"model": "teacher", "messages": USER, "stream": True}
            response = await s.client.post(URL, json=body)
            await response.content.readuntil(b"words")
            response.close()
            await s.provider.hung_up.wait()  # the provider stops to produce
            while not s.log.named("llm.settled"):
                await asyncio.sleep(0)
            attrs = s.log.named("llm.settled")[0]["attrs"]
            assert attrs["gen_ai.usage.output_tokens"] == len("two words")
            assert attrs["gen_ai.usage.input_tokens"] > len(json.dumps(USER))
            assert s.spent().usd_nanos == attrs["casemate.cost.usd_nanos"] > 0
            assert s.log.denied == []

    run(scenario())


def test_an_agent_that_hangs_up_after_the_last_event_is_no_failure_of_the_provider(root: Path) -> None:
    agent = socket.socket(socket.AF_UNIX)
    agent.setblocking(False)

    async def ending_as_it_leaves(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        await out.write(chunk(provider, {"content": "abc"}) + b"data: [DONE]\n\n")
        await provider.release.wait()
        await out.write_eof()
        agent.close()  # the proxy sees both in one turn of its loop, and the end of the stream first
        return out

    async def scenario() -> None:
        async with setting(root, ending_as_it_leaves) as s:
            body = json.dumps({"model": "teacher", "messages": USER, "stream": True}).encode()
            loop, said = asyncio.get_running_loop(), b""
            await loop.sock_connect(agent, str(root / "doors" / "work" / "llm.sock"))
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            await loop.sock_sendall(agent, head + body)
            while b"[DONE]" not in said:
                said += await loop.sock_recv(agent, 4096)
            s.provider.release.set()
            while not s.log.named("llm.settled"):
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert "error.type" not in s.log.named("llm.settled")[0]["attrs"]
            assert [line["event"] for line in s.log.lines] == ["llm.decided", "llm.settled"]

    run(scenario())


def test_trap_8_a_disconnect_before_the_answer_owes_the_reservation(root: Path) -> None:
    async def scenario() -> None:
        async def silent(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            provider.release.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with setting(root, silent) as s:
            asking = asyncio.create_task(s.ask())
            await s.provider.release.wait()
            asking.cancel()
            while not s.log.named("llm.settled"):
                await asyncio.sleep(0)
            reserved = s.log.named("llm.decided")[0]["attrs"]["casemate.reserved.tokens"]
            assert s.spent().tokens == reserved

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "status", "code", "tokens"),
    [
        (saying(500, b"<html>oops"), 500, "CSM-P025", "input"),
        (saying(429, b"{}", **{"Retry-After": "7"}), 429, "CSM-P025", "none"),
        (saying(302, b"", Location="http://evil.example/"), 502, "CSM-P025", "none"),
        (saying(200, b"<html>", **{"Content-Type": "text/html"}), 502, "CSM-P029", "all"),
        (saying(200, b"\x1f\x8b", **{"Content-Encoding": "gzip"}), 502, "CSM-P029", "all"),
        (saying(200, b'{"model": "other", "choices": [{}]}'), 502, "CSM-P026", "all"),
    ],
    ids=["500", "429", "redirect", "html", "gzip", "model"],
)
def test_a_provider_that_fails_is_told_in_the_one_shape(
    root: Path, answer: Any, status: int, code: str, tokens: str
) -> None:
    async def scenario() -> None:
        async with setting(root, answer) as s:
            async with s.client.post(URL, json={"model": "teacher", "messages": USER}) as response:
                error = json.loads(await response.read())["error"]
                assert (response.status, error["code"]) == (status, code)
                assert response.headers.get("Retry-After") == ("7" if status == 429 else None)
                assert "Location" not in response.headers
            reserved = s.log.lines[0]["attrs"]["casemate.reserved.tokens"]
            attempts = 3 if status in (429, 500) else 1  # what would fail the same way is not tried again
            assert s.spent().tokens == attempts * {"none": 0, "input": reserved - 50, "all": reserved}[tokens]
            assert s.spent().calls == 1
            assert [one["rule"] for one in s.log.named("llm.settled")] == [code] * attempts
            assert len(s.provider.requests) == attempts

    run(scenario())


def test_a_provider_that_is_not_there_costs_a_call_and_no_tokens(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            status, body = await s.ask(model="remote")  # nobody listens at that tunnel
            assert (status, body["error"]["code"]) == (502, "CSM-P025")
            assert s.spent() == Amount(calls=1, tokens=0, usd_nanos=0)

    run(scenario())


def outrunning(provider: Provider, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
    return stream(request, *[chunk(provider, {"content": "x"})] * 500, b"data: [DONE]\n\n")


def changing(provider: Provider, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
    other = chunk(provider, {"content": "secret"}, model="other-model")
    return stream(request, chunk(provider, {"content": "a"}), other, b"data: [DONE]\n\n")


def ending(provider: Provider, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
    return stream(request, chunk(provider, {"content": "a"}))


@pytest.mark.parametrize(
    ("answer", "code"), [(outrunning, "CSM-P027"), (changing, "CSM-P026"), (ending, "CSM-P029")], ids=["27", "26", "29"]
)
def test_a_stream_that_breaks_the_rules_is_cut_with_an_error(root: Path, answer: Any, code: str) -> None:
    async def scenario() -> None:
        async with setting(root, answer) as s:
            events = await s.events()
            assert json.loads(events[-1])["error"]["code"] == code
            assert len(events) <= 50 + 16 + 1
            assert "secret" not in str(events)
            settled = s.log.named("llm.settled")[0]
            assert (settled["rule"], settled["attrs"]["error.type"]) == (code, code)
            assert s.spent().tokens > 0

    run(scenario())


def test_a_stream_without_usage_is_charged_by_count(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root, usage=None) as s:
            assert (await s.events())[-1] == "[DONE]"
            attrs = s.log.named("llm.settled")[0]["attrs"]
            assert attrs["gen_ai.usage.output_tokens"] == 3
            assert s.spent().usd_nanos > 3 * 20

    run(scenario())


def test_row_35_a_ledger_that_fails_denies(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            with closing(sqlite3.connect(root / "state" / "ledger.db")) as db:
                db.execute("DROP TABLE charge")  # the disk, not our code, loses the file's content
            status, body = await s.ask()
            assert (status, body["error"]["code"]) == (500, "CSM-P019")
            assert s.log.denied == ["CSM-P019"]
            assert s.provider.requests == []

    run(scenario())


def test_a_call_that_cannot_be_announced_is_not_sent(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            s.log.full = True
            status, body = await s.ask()
            assert (status, body["error"]["code"]) == (500, "CSM-P019")
            assert s.log.events.broken.is_set()
            assert s.provider.requests == []

    run(scenario())


def test_what_is_spent_stays_spent_when_the_process_starts_again(root: Path) -> None:
    async def scenario() -> None:
        plan = make_plan(budget=few(calls=2))
        for _ in range(2):
            (root / "doors" / "up-teacher" / "up.sock").unlink(missing_ok=True)
            async with setting(root, plan=plan) as s:
                assert (await s.ask())[0] == 200
        (root / "doors" / "up-teacher" / "up.sock").unlink(missing_ok=True)
        async with setting(root, plan=plan) as s:
            assert (await s.ask())[1]["error"]["code"] == "CSM-P023"

    run(scenario())


def test_a_plan_without_an_output_ceiling_is_refused(root: Path) -> None:
    async def scenario() -> None:
        plan = make_plan(models=(REMOTE, msgspec.structs.replace(TEACHER, max_output_tokens=0)))
        async with setting(root, plan=plan) as s:
            assert (await s.ask())[1]["error"]["code"] == "CSM-P028"

    run(scenario())


def test_events_name_their_actor() -> None:
    log = Log(Component.LLM)
    log.events("component.ready")  # type: ignore[arg-type]
    assert log.lines[0]["actor"] == "llm"

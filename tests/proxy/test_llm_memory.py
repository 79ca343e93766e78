"""The exact-match cache, and record and replay, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from policies.errors import CasemateError
from policies.plan import Plan
from policies.slices import LlmSlice
from policies.vocabulary import Component
from proxy.llm.app import llm_proxy
from proxy.llm.cache import Cache
from proxy.llm.call import World
from proxy.llm.formats.chat import CHAT
from proxy.llm.recording import Line, Recording, Replay
from proxy.llm.request import read_request
from proxy.llm.taken import Taken, TakenUsage, key_of
from proxy.llm.types import Amount, Refused
from proxy.start import Roots
from tests.proxy.kit import KEY, REMOTE, TEACHER, Log, at_once, birth_of, limits, make_plan, run
from tests.proxy.llm_setting import URL, USER, Setting, setting
from tests.proxy.outside import certificate
from tests.proxy.provider import Provider, chunk, completion, polite, provider_at, saying, stream

replace = msgspec.structs.replace


def caching(**more: Any) -> Plan:
    plan = make_plan(**more)
    return replace(plan, stages=[replace(stage, cache="exact") for stage in plan.stages])


# ---- cache


@pytest.mark.parametrize("streamed", [False, True])
def test_the_same_question_gets_the_same_answer_at_no_cost(root: Path, streamed: bool) -> None:
    async def scenario() -> None:
        async with setting(root, plan=caching()) as s:
            ask = s.events if streamed else s.ask
            first = await ask(temperature=0)
            assert await ask(temperature=0) == first
            assert len(s.provider.requests) == 1
            assert s.spent() == Amount(calls=2, tokens=10, usd_nanos=130)
            hit = s.log.named("llm.settled")[1]["attrs"]
            assert (hit["casemate.cache"], hit["gen_ai.response.model"]) == ("hit", "tiny-model")
            assert (hit["casemate.cost.usd_nanos"], hit["gen_ai.usage.output_tokens"]) == (0, 0)
            decided = s.log.named("llm.decided")
            assert "casemate.cache" not in decided[0]["attrs"]
            assert decided[1]["attrs"]["casemate.reserved.tokens"] == 0

    run(scenario())


@pytest.mark.parametrize(
    "other",
    [{"temperature": 1}, {"model": "remote"}, {"stream": True}, {"messages": [{"role": "user", "content": "hi "}]},
     {"max_tokens": 9}],
)  # fmt: skip
def test_another_question_is_asked(root: Path, other: dict[str, Any]) -> None:
    async def scenario() -> None:
        twin = replace(TEACHER, alias="remote", model="twin-model")
        async with (
            provider_at(root / "doors/up-remote/up.sock", model="twin-model") as second,
            setting(root, plan=caching(models=(twin, TEACHER))) as s,
        ):
            await s.ask()
            async with s.client.post(URL, json={"model": "teacher", "messages": USER, **other}) as response:
                await response.read()
            assert len(s.provider.requests) + len(second.requests) == 2

    run(scenario())


def test_without_the_opt_in_nothing_is_kept(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            assert await s.ask() == await s.ask()
            assert len(s.provider.requests) == 2

    run(scenario())


def cutting(provider: Provider, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
    return stream(request, chunk(provider, {"content": "a"}), chunk(provider, {"content": "b"}, model="other"))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("answer", [saying(400, b"{}"), saying(200, b"<html>"), cutting, "no usage"])
def test_only_complete_answers_are_kept(root: Path, answer: Any, streamed: bool) -> None:
    async def scenario() -> None:
        how = {"answer": polite, "usage": None} if answer == "no usage" else {"answer": answer}
        async with setting(root, plan=caching(), **how) as s:
            for _ in range(2):
                body = {"model": "teacher", "messages": USER, "stream": streamed}
                async with s.client.post(URL, json=body) as response:
                    await response.read()
            assert len(s.provider.requests) == 2

    run(scenario())


def taken(text: str = "x", **more: Any) -> Taken:
    usage = TakenUsage(input=1, output=1, complete=True, cached=0, written=0, written_1h=0)
    return Taken(**{"alias": "teacher", "model": "tiny-model", "usage": usage, "body": text, **more})


def test_the_cache_is_bounded_and_the_least_used_goes_first() -> None:
    cache = Cache(most=10, largest=5)
    for key in "abc":
        cache.put(key, taken("1234"))
        assert cache.get("a") is not None
    assert (cache.get("b"), cache.get("c")) == (None, taken("1234"))
    cache.put("large", taken("123456"))
    assert cache.get("large") is None
    cache.put("a", taken("other"))
    assert cache.get("a") == taken("1234")


def test_the_order_of_keys_is_no_other_question() -> None:
    def key(data: bytes) -> str:
        return key_of(read_request(data, {"teacher": TEACHER}, CHAT))

    one = key(b'{"model":"teacher","temperature":0,"messages":[{"role":"user","content":"x"}]}')
    assert one == key(b'{"messages":[{"content":"x","role":"user"}],"temperature":0,"model":"teacher"}')
    assert one != key(b'{"messages":[{"content":"y","role":"user"}],"temperature":0,"model":"teacher"}')


# ---- record and replay


@asynccontextmanager
async def proxy(
    root: Path, how: str | None, plan: Plan | None = None, context: Any = None, spent: str | None = None
) -> Any:
    log = Log(Component.LLM)
    plan = plan or make_plan()
    birth = birth_of(plan, Component.LLM)
    facts = ({"recording": how} if how else {}) | ({"spent/work": spent} if spent else {})
    birth = replace(birth, facts=facts, secrets=birth.secrets if how == "write" else {})
    part = msgspec.json.decode(birth.slice, type=LlmSlice)
    world = World(draw=lambda: 0.0, sleep=at_once)
    (root / "recording").mkdir(exist_ok=True)
    for file in (root / "state").iterdir():
        file.unlink()
    async with llm_proxy(part, birth, Roots.under(root), log.events, context, world):
        connector = aiohttp.UnixConnector(path=str(root / "doors" / "work" / "llm.sock"))
        async with aiohttp.ClientSession(connector=connector) as client:
            yield Setting(log, None, client, root)  # type: ignore[arg-type]


async def session(s: Setting) -> list[Any]:
    """What an agent does, and is told."""
    told: list[Any] = [await s.ask(), await s.ask(), await s.events(), await s.ask(temperature=7)]
    return [*told, (await s.ask(model="nope"))[1]["error"]["code"], s.spent()]


def counting() -> Any:
    """A provider whose every answer is another one, fails once, and is cut once."""
    asked = [0]

    async def answer(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
        asked[0] += 1
        body = provider.bodies[-1]
        if body.get("temperature") == 7:
            return web.Response(status=400, body=b'{"error": "too warm"}')
        if body.get("stream"):
            return await stream(request, chunk(provider, {"content": f"{asked[0]}"}))  # and ends early
        return web.json_response(completion(provider, f"answer {asked[0]}"))

    return answer


def test_a_recorded_run_is_replayed_without_provider_or_key(root: Path) -> None:
    async def scenario() -> None:
        tunnel = root / "doors/up-teacher/up.sock"
        async with provider_at(tunnel, counting()) as provider, proxy(root, "write") as s:
            recorded = await session(s)
            assert len(provider.requests) == 4
        tunnel.unlink(missing_ok=True)
        assert "answer 1" in str(recorded[0])
        assert "answer 2" in str(recorded[1])
        async with proxy(root, "read") as s:
            assert await session(s) == recorded
            settled = s.log.named("llm.settled")
            assert all(one["attrs"]["casemate.replayed"] for one in settled)
            assert [one["rule"] for one in settled] == [None, None, "CSM-P029", "CSM-P025"]
            assert settled[0]["attrs"]["gen_ai.response.model"] == "tiny-model"
            status, body = await s.ask()  # once more than was recorded
            assert (status, body["error"]["code"]) == (403, "CSM-P032")
            assert (await s.ask(temperature=1))[1]["error"]["code"] == "CSM-P032"
            assert s.log.denied[-2:] == ["CSM-P032"] * 2

    run(scenario())


def test_what_was_paid_before_a_crash_is_answered_once_at_no_cost_and_failures_are_asked_again(root: Path) -> None:
    async def scenario() -> None:
        async with provider_at(root / "doors/up-teacher/up.sock", counting()) as provider:
            async with proxy(root, "write") as s:
                before = await session(s)
                paid = s.spent()
            file = root / "recording" / "work.jsonl"
            file.write_bytes(file.read_bytes() + b'{"cut short')
            told = f"{paid.calls} {paid.tokens} {paid.usd_nanos}"
            async with proxy(root, "write", spent=told) as s:
                assert s.spent() == paid
                assert [await s.ask(), await s.ask()] == before[:2]
                assert s.spent() == paid
                assert [line["attrs"]["casemate.cache"] for line in s.log.named("llm.settled")] == ["paid"] * 2
                assert len(provider.requests) == 4
                assert "answer 5" in str(await s.ask())  # once more than was paid for
                await s.ask(temperature=7)
                assert len(provider.requests) == 6
        lines = file.read_bytes().splitlines()
        assert [json.loads(line)["n"] for line in lines] == list(range(6))

    run(scenario())


@pytest.mark.parametrize("more", [True, False])
def test_what_was_spent_before_a_crash_counts(root: Path, more: bool) -> None:
    async def scenario() -> None:
        plan = make_plan(stage_limits=limits(calls=3))
        async with (
            provider_at(root / "doors/up-teacher/up.sock"),
            proxy(root, "write", plan, spent="2 10 100" if more else None) as s,
        ):
            assert [(await s.ask())[0] for _ in range(3)] == [200, 403 if more else 200, 403 if more else 200]

    run(scenario())


@pytest.mark.parametrize("spent", ["", "1 2", "a b c", "1 2 3 4"])
def test_a_fact_that_cannot_be_read_refuses_the_start(root: Path, spent: str) -> None:
    async def scenario() -> None:
        with pytest.raises(CasemateError, match="CSM-R010"):
            async with proxy(root, "write", spent=spent or " "):
                pass

    run(scenario())


def test_a_replay_keeps_to_its_ceilings(root: Path) -> None:
    async def scenario() -> None:
        tunnel = root / "doors/up-teacher/up.sock"
        async with provider_at(tunnel), proxy(root, "write") as s:
            await session(s)
        tunnel.unlink(missing_ok=True)
        async with proxy(root, "read", make_plan(stage_limits=limits(calls=1))) as s:
            assert [(await s.ask())[0] for _ in range(2)] == [200, 403]
            assert s.log.denied == ["CSM-P023"]

    run(scenario())


def test_what_was_answered_by_a_fallback_is_replayed_as_its_answer(root: Path) -> None:
    async def scenario() -> None:
        spare = replace(TEACHER, alias="remote", model="spare-model")
        plan = make_plan(models=(spare, replace(TEACHER, fallback=["remote"])))
        one, two = root / "doors/up-teacher/up.sock", root / "doors/up-remote/up.sock"
        async with (
            provider_at(one, saying(500, b"{}")),
            provider_at(two, model="spare-model"),
            proxy(root, "write", plan) as s,
        ):
            recorded = await s.ask()
        for path in (one, two):
            path.unlink(missing_ok=True)
        async with proxy(root, "read", plan) as s:
            assert await s.ask() == recorded
            attrs = s.log.lines[-1]["attrs"]
            assert (attrs["casemate.asked"], attrs["gen_ai.request.model"]) == ("teacher", "remote")

    run(scenario())


def test_no_secret_is_in_a_recording(root: Path) -> None:
    async def scenario() -> None:
        async def echoing(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            return web.json_response(completion(provider, f"your key is {KEY}"))

        server_tls, client_tls = certificate(root, "llm.example.com")
        other = "ghp_" + "a1B2" * 9
        said = [{"role": "user", "content": f"my key is {KEY}, and my token {other}"}]
        async with (
            provider_at(root / "doors/up-remote/up.sock", echoing, tls=server_tls, model="gpt-x"),
            proxy(root, "write", context=client_tls) as s,
        ):
            status, _ = await s.ask(model="remote", messages=said)
            assert status == 200
        data = (root / "recording/work.jsonl").read_text()
        assert KEY not in data
        assert other not in data
        assert data.count("[redacted]") == 3
        assert json.loads(json.loads(data)["request"])["model"] == "gpt-x"

    run(scenario())


def test_a_recording_that_was_cut_short_by_a_crash_is_usable(root: Path) -> None:
    async def scenario() -> None:
        tunnel = root / "doors/up-teacher/up.sock"
        async with provider_at(tunnel, counting()), proxy(root, "write") as s:
            first = await s.ask()
            path = root / "recording/work.jsonl"
            assert len(path.read_bytes().splitlines()) == 1  # it is there before the next call, not at the end
            await s.ask()
        tunnel.unlink(missing_ok=True)
        path.write_bytes(path.read_bytes()[:-20])
        async with proxy(root, "read") as s:
            assert await s.ask() == first
            assert (await s.ask())[1]["error"]["code"] == "CSM-P032"

    run(scenario())


@pytest.mark.parametrize(
    "change",
    [lambda line: line[1:], lambda line: line.replace(b'"n":0', b'"n":1'), lambda line: line + line,
     lambda line: line.replace(b'"version":1', b'"version":2'), lambda line: line.replace(b'"key"', b'"kee"')],
)  # fmt: skip
def test_a_recording_that_is_none_is_refused(root: Path, change: Any) -> None:
    path = root / "work.jsonl"
    recording = Recording(path, ["s"])
    request = read_request(json.dumps({"model": "remote", "messages": USER}).encode(), {"remote": REMOTE}, CHAT)
    recording("sha256:0", "remote", request, taken())
    recording.close()
    assert msgspec.json.decode(path.read_bytes(), type=Line).taken == taken()
    Replay(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CasemateError) as refused:
        Replay(path)
    assert refused.value.code == "CSM-R010"


def test_a_stage_without_a_recording_asked_nothing(root: Path) -> None:
    with pytest.raises(Refused):
        Replay(root / "absent.jsonl").next("sha256:0")

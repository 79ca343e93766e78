"""The shards of a stage at the two proxies: a door each, one budget and one pace, and no answer of another's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from policies.errors import CasemateError
from policies.plan import EgressQuota, Limits, Plan, Rate, Shards
from policies.slices import LlmSlice, slices
from policies.vocabulary import Component
from proxy.llm.app import llm_proxy
from proxy.start import Roots
from tests.proxy.kit import Log, Names, birth_of, code_of, converse, firewall_for, limits, llm_for, make_plan, rule, run
from tests.proxy.llm_setting import URL
from tests.proxy.outside import web
from tests.proxy.provider import Provider, polite, provider_at

HOME = ["127.0.0.1"]
Ask = Callable[[int, str], Awaitable[int]]


def sharded(plan: Plan, root: Path, **changes: object) -> Plan:
    """The plan, its stage `work` in two shards, with the folders of their doors."""
    shards = Shards(over="seeds", size=1, parallel=2, count=2)
    for number in range(2):
        (root / "doors" / f"work.{number}").mkdir()
    (root / "recording").mkdir()
    stages = [msgspec.structs.replace(s, shards=shards, **changes) if s.name == "work" else s for s in plan.stages]
    return msgspec.structs.replace(plan, stages=stages)


@asynccontextmanager
async def asking(root: Path, plan: Plan) -> AsyncIterator[tuple[Log, Provider, Ask]]:
    """Yield the log, the provider, and a way to ask at the door of a shard, which returns the status."""
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(llm_for(plan, root))
        provider = await stack.enter_async_context(provider_at(root / "doors" / "up-teacher" / "up.sock", polite))
        clients = [
            await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(root / "doors" / cell / "llm.sock")))
            )
            for cell in ("work.0", "work.1")
        ]

        async def ask(shard: int, words: str) -> int:
            body = {"model": "teacher", "messages": [{"role": "user", "content": words}]}
            async with clients[shard].post(URL, json=body) as response:
                await response.read()
                return response.status

        yield log, provider, ask


def test_shards_have_one_budget_and_no_answer_of_another(root: Path) -> None:
    async def scenario() -> None:
        plan = sharded(make_plan(stage_limits=limits(calls=3)), root, cache="exact")
        async with asking(root, plan) as (log, provider, ask):
            assert [await ask(0, "one"), await ask(1, "one")] == [200, 200]
            assert len(provider.requests) == 2, "what one shard was answered is not there for the other"
            assert [await ask(0, "two"), await ask(1, "three")] == [200, 403]
            assert log.denied == ["CSM-P023"]
        settled = [(line["stage"], line["shard"]) for line in log.named("llm.settled")]
        assert settled == [("work", 0), ("work", 1), ("work", 0)]

    run(scenario())


def test_shards_have_one_pace(root: Path) -> None:
    async def scenario() -> None:
        paced: Limits = msgspec.structs.replace(limits(), rate=Rate(requests=1))
        async with asking(root, sharded(make_plan(stage_limits=paced), root)) as (log, _, ask):
            assert [await ask(0, "one"), await ask(1, "two")] == [200, 429]
            assert (log.denied, log.named("llm.decided")[-1]["shard"]) == (["CSM-P030"], 1)

    run(scenario())


def test_a_shard_that_the_stage_does_not_have_is_refused(root: Path) -> None:
    async def scenario() -> None:
        plan = sharded(make_plan(), root)
        part = slices(plan)[Component.LLM]
        assert isinstance(part, LlmSlice)
        birth = msgspec.structs.replace(birth_of(plan, Component.LLM), facts={"cells": "work.2"})
        with pytest.raises(CasemateError, match="CSM-R010"):
            async with llm_proxy(part, birth, Roots.under(root), Log(Component.LLM).events):
                raise AssertionError

    run(scenario())


def test_each_shard_has_the_quota_of_a_rule_and_events_say_which(root: Path) -> None:
    async def scenario() -> None:
        async with web() as server:
            once = rule("a.example", server.port, "http", quota=EgressQuota(requests=1, bytes=None))
            plan = sharded(make_plan(egress=[once]), root)
            at = f"a.example:{server.port}"
            request = f"GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n".encode()
            async with firewall_for(plan, root, Names(a_example=HOME)) as log:
                doors = [root / "doors" / f"work.{number}" / "egress.sock" for number in (0, 1)]
                for door in doors:
                    assert b" 200 " in (await converse(door, request))[:20]
                    assert code_of(await converse(door, request)) == "CSM-P012"
        decided = [(line["stage"], line["shard"], line["verdict"]) for line in log.named("egress.decided")]
        assert decided == [("work", n, verdict) for n in (0, 1) for verdict in ("allow", "deny")]

    run(scenario())

"""Calls that take too long: each ends alone, its late answer is nobody's, and a server that hangs is started anew."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from gateway.serve.servers.session import Patience
from tests.gateway.test_tools_hostile import ANSWERED, CALLED, FAILED, code, said
from tests.gateway.tool_kit import Agent, Pair, running

PATIENCE = Patience(open_s=5, call_s=1.0)


def count(pair: Pair, name: str) -> int:
    path: Path = pair.socket.parent.parent / name
    return path.stat().st_size if path.exists() else 0


def test_a_call_that_times_out_is_cancelled_alone_and_its_late_answer_is_dropped() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open, PATIENCE)
        hanging = asyncio.create_task(agent.call(q="hang"))
        await asyncio.sleep(0.3)
        siblings = await asyncio.gather(*(agent.call(q=f"n{n}") for n in range(4)))
        assert [said(answer) for answer in siblings] == [f"look: n{n}" for n in range(4)]
        assert not hanging.done()
        assert "did not answer within" in said(await hanging)
        assert said(await agent.call(q="after")) == "look: after"
        assert sorted(agent.taken()) == sorted([CALLED] * 6 + [ANSWERED] * 5 + [FAILED])
        assert count(pair, "starts") == 1
        assert count(pair, "cancelled") == 1

    with running("late") as pair:
        asyncio.run(go(pair))


def test_an_answer_to_a_call_that_was_cancelled_is_never_the_next_ones() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open, PATIENCE)
        for _ in range(2):
            assert code(await agent.call(q="hang")) == "CSM-G014"
            # Both answers come now, the late one first.
            assert said(await agent.call(q="release")) == "look: release"
        assert count(pair, "starts") == 1

    with running("late") as pair:
        asyncio.run(go(pair))


def test_a_server_that_keeps_hanging_is_started_anew_within_its_budget() -> None:
    async def go(pair: Pair) -> None:
        agent = Agent(pair.open, Patience(open_s=5, call_s=0.3, hung=2, opened=2))
        reasons = [json.dumps(await agent.call(q="hang")) for _ in range(6)]
        assert sum("did not answer within" in reason for reason in reasons) == 4
        assert sum("is not tried again" in reason for reason in reasons) == 2
        assert count(pair, "starts") in (2, 3)  # the pair itself starts once more than it is opened

    with running("late") as pair:
        asyncio.run(go(pair))

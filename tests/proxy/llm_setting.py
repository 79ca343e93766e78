"""A stage's LLM door with a provider behind it and a client before it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from policies.plan import Plan
from proxy.llm.call import World
from proxy.llm.types import Amount
from tests.proxy.kit import Log, llm_for, make_plan
from tests.proxy.provider import Provider, polite, provider_at

URL = "http://door/v1/chat/completions"
USER = [{"role": "user", "content": "hi"}]


class Setting:
    """A door, its event log, the provider behind it, and a client that speaks to the door."""

    def __init__(self, log: Log, provider: Provider, client: aiohttp.ClientSession, root: Path) -> None:
        self.log, self.provider, self.client, self.root = log, provider, client, root

    async def ask(self, headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, dict[str, Any]]:
        body = {"model": "teacher", "messages": USER, **fields}
        async with self.client.post(URL, json=body, headers=headers) as response:
            data = await response.read()
            return response.status, json.loads(data)

    async def events(self, **fields: Any) -> list[str]:
        """The data of a streamed answer's events."""
        body = {"model": "teacher", "messages": USER, "stream": True, **fields}
        async with self.client.post(URL, json=body) as response:
            assert response.status == 200
            text = (await response.read()).decode()
        return [event.removeprefix("data: ") for event in text.split("\n\n") if event]

    def spent(self, scope: str = "run") -> Amount:
        """What the ledger has, read as another process would."""
        with closing(sqlite3.connect(self.root / "state" / "ledger.db")) as db:
            rows = db.execute("SELECT scopes, calls, tokens, usd_nanos FROM charge").fetchall()
        mine = [row[1:] for row in rows if scope in row[0].split()]
        calls, tokens, usd_nanos = (sum(column) for column in zip((0, 0, 0), *mine, strict=True))
        return Amount(calls=calls, tokens=tokens, usd_nanos=usd_nanos)


@asynccontextmanager
async def setting(
    root: Path,
    answer: Callable[..., Awaitable[web.StreamResponse]] = polite,
    plan: Plan | None = None,
    world: World | None = None,
    **provider: Any,
) -> Any:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        log = await enter(llm_for(plan or make_plan(), root, world=world))
        behind = await enter(provider_at(root / "doors" / "up-teacher" / "up.sock", answer, **provider))
        connector = aiohttp.UnixConnector(path=str(root / "doors" / "work" / "llm.sock"), limit=200)
        client = await enter(aiohttp.ClientSession(connector=connector))
        yield Setting(log, behind, client, root)

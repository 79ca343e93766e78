"""Whatever raises behind the LLM door is a denial: each callback and each part of a call is made to raise, once.

Everything is put in through constructors. Each row has its control: the next call, without the fault, is served.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from policies.plan import Rate
from policies.vocabulary import Component
from proxy.llm.breaker import Breaker
from proxy.llm.cache import Cache
from proxy.llm.call import Calls, Memory, World
from proxy.llm.charges import ceiling
from proxy.llm.door import Door
from proxy.llm.formats.base import Format
from proxy.llm.formats.table import Asked
from proxy.llm.ledger import Ledger
from proxy.llm.upstream import Upstream
from tests.proxy.kit import TEACHER, Log, at_once, limits, run
from tests.proxy.llm_setting import URL, USER
from tests.proxy.provider import Provider, polite, provider_at


class FaultError(RuntimeError):
    """What nobody expects."""


@dataclass
class Once:
    """Raises at the first call, and does what it stands for from then on."""

    real: Callable[..., Any]
    raised: bool = False

    def __call__(self, *args: Any, **more: Any) -> Any:
        if not self.raised:
            self.raised = True
            raise FaultError
        return self.real(*args, **more)


class Broken:
    """Stands for a part of which one method raises once."""

    def __init__(self, real: Any, name: str) -> None:
        self._real, self._name, self._fault = real, name, Once(getattr(real, name))

    def __getattr__(self, name: str) -> Any:
        return self._fault if name == self._name else getattr(self._real, name)

    def __call__(self, *args: Any, **more: Any) -> Any:
        return (self._fault if self._name == "__call__" else self._real)(*args, **more)


@dataclass
class Parts:
    """What a door is made of."""

    ledger: Any
    breaker: Any = field(default_factory=Breaker)
    cache: Any = field(default_factory=Cache)
    record: Any = None
    world: World = field(default_factory=lambda: World(draw=lambda: 0.0, sleep=at_once))
    form: Callable[[Format], Format] = lambda form: form
    upstream: Callable[[Upstream], Any] = lambda upstream: upstream
    serve: Callable[[Any], Any] = lambda serve: serve


def callback(name: str) -> Callable[[Parts], None]:
    """One function of the format raises."""
    kept: dict[str, Once] = {}

    def form(real: Format) -> Format:
        fault = kept.setdefault(name, Once(getattr(real, name)))
        return replace(real, **{name: fault})

    return lambda parts: setattr(parts, "form", form)


def part(which: str, name: str) -> Callable[[Parts], None]:
    """One method of a part raises."""
    return lambda parts: setattr(parts, which, Broken(getattr(parts, which), name))


def world(name: str) -> Callable[[Parts], None]:
    return lambda parts: setattr(parts, "world", replace(parts.world, **{name: Once(getattr(parts.world, name))}))


def recorder(parts: Parts) -> None:
    parts.record = Once(lambda *args: None)


def asking(parts: Parts) -> None:
    parts.upstream = lambda real: Broken(real, "ask")


def serving(parts: Parts) -> None:
    parts.serve = lambda real: Once(real)


# (what raises, how it is put in, whether the answer is streamed, what the provider says first, what was sent)
WALK: list[tuple[str, Callable[[Parts], None], bool, int, int]] = [
    ("format.read", callback("read"), False, 200, 0),
    ("format.query", callback("query"), False, 200, 0),
    ("format.answer", callback("answer"), False, 200, 1),
    ("format.event", callback("event"), True, 200, 1),
    ("format.error", callback("error"), False, 400, 1),
    ("ledger.reserve", part("ledger", "reserve"), False, 200, 0),
    ("ledger.settle", part("ledger", "settle"), False, 200, 1),
    ("breaker.rest", part("breaker", "rest"), False, 200, 0),
    ("breaker.begin", part("breaker", "begin"), False, 200, 0),
    ("breaker.answered", part("breaker", "answered"), False, 200, 1),
    ("breaker.failed", part("breaker", "failed"), False, 429, 1),
    ("breaker.abandoned", part("breaker", "abandoned"), False, 200, 1),
    ("cache.get", part("cache", "get"), False, 200, 0),
    ("cache.put", part("cache", "put"), False, 200, 1),
    ("world.now", world("now"), False, 200, 0),
    ("world.draw", world("draw"), False, 429, 1),
    ("world.sleep", world("sleep"), False, 429, 1),
    ("recorder", recorder, False, 200, 1),
    ("upstream.ask", asking, False, 200, 0),
    ("door.serve", serving, False, 200, 0),
]


@pytest.mark.parametrize(("what", "breaks", "streamed", "first", "sent"), WALK, ids=[row[0] for row in WALK])
def test_whatever_raises_is_a_denial(
    root: Path, what: str, breaks: Callable[[Parts], None], streamed: bool, first: int, sent: int
) -> None:
    async def scenario() -> None:
        async def answer(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            if first != 200 and len(provider.requests) == 1:
                return web.Response(status=first, body=b"{}")
            return await polite(provider, request)

        log, ledger = Log(Component.LLM), Ledger(root / "state" / "ledger.db", "run-1")
        parts = Parts(ledger=ledger)
        breaks(parts)
        tunnel = root / "doors/up-teacher/up.sock"
        real = Upstream(TEACHER, None, tunnel, None, parts.breaker)
        calls = Calls(
            "work", ["teacher"], {"teacher": parts.upstream(real)}, parts.ledger, {"run": ceiling(limits())},
            replace_rate(), log.events, parts.world, Memory(cache=parts.cache, record=parts.record),
        )  # fmt: skip

        async def serve(http: web.BaseRequest, asked: Asked) -> web.StreamResponse:
            return await calls(http, replace(asked, form=parts.form(asked.form)))

        door = Door("work", ["teacher"], parts.serve(serve), log.events)
        path = str(root / "doors" / "work" / "llm.sock")
        listener = await asyncio.get_running_loop().create_unix_server(door.server, path)
        connector = aiohttp.UnixConnector(path=path)
        async with provider_at(tunnel, answer) as provider, aiohttp.ClientSession(connector=connector) as client:
            body = {"model": "teacher", "messages": USER, "stream": streamed}
            try:
                async with client.post(URL, json=body) as response:
                    told = json.loads(await response.read())["error"]
                    assert response.status >= 400
                assert (
                    told["code"] in ("CSM-P019", "CSM-P025") if what == "format.error" else told["code"] == "CSM-P019"
                )
                assert told["denied"] == "llm"
            except aiohttp.ClientPayloadError:
                assert streamed  # what has begun is cut; a second answer in the middle of it could be read as anything
            assert len(log.denied) == 1
            assert len(provider.requests) == sent
            spent = ledger.spent("run")
            if sent and first == 200:
                assert spent.tokens > 0
                assert spent.usd_nanos > 0
            if sent:
                assert spent.calls == 1
            async with client.post(URL, json={**body, "stream": False, "temperature": 1}) as response:
                assert response.status == 200, await response.read()
        listener.close()
        await real.close()
        ledger.close()

    run(scenario())


def replace_rate() -> Any:
    return msgspec.structs.replace(limits(), rate=Rate(requests=100))


def test_the_walk_passes_every_part() -> None:
    walked = {row[0] for row in WALK}

    def methods(prefix: str, kind: type, *without: str) -> set[str]:
        names = {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
        return {f"{prefix}.{name}" for name in names - set(without)}

    callbacks = {f"format.{one.name}" for one in fields(Format) if "Callable" in str(one.type)}
    assert callbacks <= walked
    assert methods("ledger", Ledger, "carry", "close", "spent") <= walked  # it is carried before a door opens
    assert methods("breaker", Breaker) <= walked
    assert methods("cache", Cache) <= walked
    assert {f"world.{one.name}" for one in fields(World)} <= walked

"""One call of a model, from the door to its settlement.

1. Read and check the request; it is written anew for the provider. Let it in, or not: the stage's rate.
2. Find the model by its routes. What is kept, or recorded, is given again; else the first of the chain of fallbacks
   that is not left alone is asked.
3. Reserve the worst case in every scope; refuse when a ceiling would be passed.
4. Write the event. What cannot be announced is not sent.
5. Ask the provider. Judge what comes, and pass it on.
6. Settle, whatever happened: with the provider's usage, or with what we counted. An open reservation stays spent.
7. Where an attempt failed before anything reached the agent, reserve for the next in the same moment; wait; from 4.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from aiohttp import web

from policies.events import Attribute
from policies.plan import Limits, Model
from policies.vocabulary import EventName, Verdict
from proxy.llm.attempt import Call, ask, play
from proxy.llm.cache import Cache
from proxy.llm.charges import too_dear
from proxy.llm.door import read_body
from proxy.llm.formats.base import Format
from proxy.llm.formats.table import Asked
from proxy.llm.ledger import Ledger
from proxy.llm.limits import Limiter
from proxy.llm.recording import Recorder, Replay
from proxy.llm.request import read_request
from proxy.llm.retry import PATIENCE_S, RetryBudget, wait
from proxy.llm.routing import chain, target
from proxy.llm.taken import Taken, key_of
from proxy.llm.types import Amount, LlmRequest, Refused
from proxy.llm.upstream import Upstream
from proxy.start import Events


@dataclass(frozen=True, slots=True)
class World:
    """What a call takes from outside: a clock (monotonic seconds), dice in [0, 1), and waiting. A seam for tests."""

    now: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Inbound:
    """What an agent sent, from which a request is made for each model that it may come to."""

    data: bytes
    form: Format
    headers: Mapping[str, str]
    query: str

    def request(self, models: Mapping[str, Model], alias: str | None) -> LlmRequest:
        """Return the checked request for a model; raise `Refused`."""
        return read_request(self.data, models, self.form, self.headers, self.query, alias)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a stage's answers are kept in, taken down to, or given again from.

    `replay` is another run's; `paid` is this run's own, from before it was resumed.
    """

    cache: Cache | None = None
    record: Recorder | None = None
    replay: Replay | None = None
    paid: Replay | None = None

    @property
    def keeps(self) -> bool:
        """Whether an answer is kept as it is passed on."""
        return self.cache is not None or self.record is not None


class Pace:
    """What the calls of a stage share, over all of its cells: rate, retries, and how many there were by alias."""

    def __init__(self, limits: Limits, world: World) -> None:
        self.limiter, self.retries = Limiter(limits.rate, world.now), RetryBudget()
        self.calls: Counter[str] = Counter()


class Calls:
    """Serves the calls of one cell, in every wire format.

    `stage` is the cell's name; `aliases` are what the agent may name, `upstreams` what these may come to, `scopes` the
    budgets that are drawn on.
    """

    def __init__(
        self,
        stage: str,
        aliases: Iterable[str],
        upstreams: Mapping[str, Upstream],
        ledger: Ledger,
        scopes: Mapping[str, Amount],
        limits: Limits,
        events: Events,
        world: World,
        memory: Memory,
        pace: Pace | None = None,
    ) -> None:
        self._stage, self._upstreams, self._ledger, self._scopes = stage, upstreams, ledger, scopes
        self._limits, self._events, self._world, self._memory = limits, events, world, memory
        self._models = {alias: upstream.model for alias, upstream in upstreams.items()}
        self._named = {alias: self._models[alias] for alias in aliases}
        self._pace = pace or Pace(limits, world)

    async def __call__(self, http: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        """Serve one request; raise `Refused` where nothing was sent to the agent yet."""
        form = asked.form
        data, (_, _, query) = await read_body(http), http.raw_path.partition("?")
        headers = {name: ",".join(http.headers.getall(name)) for name in form.headers if name in http.headers}
        inbound = Inbound(data, form, headers, query)
        request = inbound.request(self._named, asked.alias)
        ticket = self._pace.limiter.enter(request.input_tokens + request.max_output)
        try:
            call = self._begin(inbound, request)
            try:
                return await self._remembered(http, inbound, call)
            finally:
                self._pace.limiter.count(ticket, call.tokens + call.usage.input + call.usage.output)
        finally:
            self._pace.limiter.leave()

    def _begin(self, inbound: Inbound, request: LlmRequest) -> Call:
        """Find the model that a request is for, by the routes of the one that was asked."""
        asked = request.alias
        alias = target(request.model, request.input_tokens, self._pace.calls[asked])
        if alias != asked:
            request = inbound.request(self._models, alias)
        return Call(request, inbound.form, asked, self._world.now(), keeps=self._memory.keeps)

    async def _remembered(self, http: web.BaseRequest, inbound: Inbound, call: Call) -> web.StreamResponse:
        """Give an answer that is kept or recorded, or ask for one, and keep it."""
        memory, first = self._memory, call.request
        if not (memory.keeps or memory.replay):
            return await self._serve(http, inbound, call)
        key = key_of(first)
        kept = memory.cache.get(key) if memory.cache is not None else None
        if kept is not None:
            call.origin, call.keeps = "cache", False
            return await self._play(http, inbound, call, kept)
        if memory.replay is not None:
            call.origin, call.keeps = "recording", False
            taken = memory.replay.next(key)
            if memory.cache is not None:
                memory.cache.put(key, taken)
            return await self._play(http, inbound, call, taken)
        if memory.paid is not None and (paid := memory.paid.paid(key)) is not None:
            call.origin, call.keeps = "paid", False
            if memory.cache is not None:
                memory.cache.put(key, paid)
            return await self._play(http, inbound, call, paid)
        try:
            return await self._serve(http, inbound, call)
        except Refused as refused:
            call.broken = refused
            raise
        finally:
            if memory.cache is not None:
                memory.cache.put(key, call.taken())
            if memory.record is not None and call.sent:
                memory.record(key, call.asked, first, call.taken())

    async def _play(self, http: web.BaseRequest, inbound: Inbound, call: Call, taken: Taken) -> web.StreamResponse:
        if taken.alias != call.request.alias and taken.alias in self._models:
            call.request = inbound.request(self._models, taken.alias)  # what it fell back to, at its price
        number = self._reserve(call)
        self._pace.calls[call.asked] += 1
        try:
            self._announce(call)
            return await play(http, call, taken)
        except Refused as refused:
            call.broken = refused
            raise
        finally:
            self._settle(number, call)

    def _awake(self, hops: list[str]) -> tuple[str | None, list[str]]:
        """Return the first alias whose provider is not left alone, and what comes after it."""
        now = self._world.now()
        for position, alias in enumerate(hops):
            if not self._upstreams[alias].breaker.rest(now):
                return alias, hops[position + 1 :]
        return None, []

    async def _serve(self, http: web.BaseRequest, inbound: Inbound, call: Call) -> web.StreamResponse:
        hops = chain(call.request.alias, self._models, inbound.form)
        self._pace.retries.earn()
        alias, ahead = self._awake(hops)
        if alias is None:
            rest = min((self._upstreams[hop].breaker.rest(self._world.now()) for hop in hops), default=1.0)
            raise _resting(call.request.alias, ceil(rest) or 1)
        if alias != call.request.alias:
            call.request = inbound.request(self._models, alias)
        number, tries = self._reserve(call), 0
        self._pace.calls[call.asked] += 1
        while True:
            try:
                return await self._attempt(http, call)
            except Refused as refused:
                call.broken = refused
                tries += 1
                following = self._following(call, tries, ahead)
                if following is None:
                    raise
                alias, seconds = following
                request = inbound.request(self._models, alias)
                if alias != call.request.alias:
                    tries, ahead = 0, ahead[ahead.index(alias) + 1 :]
            finally:
                # Nothing from here to the next reservation awaits: nobody takes what a retry needs in between.
                self._settle(number, call)
            call.again(request, self._world.now())
            number = self._reserve(call)
            try:
                await self._wait(alias, seconds)
            except BaseException:
                self._settle(number, call)  # the agent hung up, or others failed while we waited
                raise

    async def _wait(self, alias: str, seconds: float) -> None:
        await self._world.sleep(seconds)
        if rest := self._upstreams[alias].breaker.rest(self._world.now()):
            raise _resting(alias, ceil(rest))

    def _following(self, call: Call, tries: int, ahead: list[str]) -> tuple[str, float] | None:
        """Return the alias of the next attempt and the seconds before it, or None where there is none."""
        if call.failure is None:
            return None
        other, _ = self._awake(ahead)
        here = self._upstreams[call.request.alias].breaker.rest(self._world.now()) == 0
        seconds = wait(call.failure, tries, self._world.draw()) if here else None
        if other is not None and (seconds is None or seconds > PATIENCE_S or not self._pace.retries.take()):
            return other, 0.0
        if other is None and (seconds is None or not self._pace.retries.take()):
            return None
        return None if seconds is None else (call.request.alias, seconds)

    async def _attempt(self, http: web.BaseRequest, call: Call) -> web.StreamResponse:
        upstream = self._upstreams[call.request.alias]
        self._announce(call)
        upstream.breaker.begin(self._world.now())
        call.sent = True
        try:
            return await ask(http, upstream, call)
        finally:
            if call.failure is not None:
                upstream.breaker.failed(self._world.now(), call.failure.retry_after)
            else:
                upstream.breaker.abandoned()  # of no account where it was answered

    def _reserve(self, call: Call) -> int:
        """Reserve an attempt; raise `Refused` (P023) where a ceiling of the call, or of a scope, would be passed."""
        amount = call.reserved
        if (refused := too_dear(amount, self._limits.call)) is not None:
            raise refused
        return self._ledger.reserve(amount, self._scopes)

    def _announce(self, call: Call) -> None:
        self._events(
            EventName.LLM_DECIDED,
            stage=self._stage,
            verdict=Verdict.ALLOW,
            rule=f"model/{call.request.alias}",
            attrs={
                **_labels(call),
                "casemate.reserved.tokens": call.reserved.tokens,
                "casemate.reserved.usd_nanos": call.reserved.usd_nanos,
            },
        )

    def _settle(self, number: int, call: Call) -> None:
        """Charge the attempt. Nothing here awaits, so a cancelled call is settled like any other."""
        amount = call.charge
        self._ledger.settle(number, amount)
        attrs: dict[str, Attribute] = {
            **_labels(call),
            "gen_ai.response.model": call.model,
            "gen_ai.usage.input_tokens": call.usage.input,
            "gen_ai.usage.output_tokens": call.usage.output,
            "gen_ai.usage.cache_read.input_tokens": call.usage.cached,
            "gen_ai.usage.cache_creation.input_tokens": call.usage.written + call.usage.written_1h,
            "casemate.cost.usd_nanos": amount.usd_nanos,
            "http.response.status_code": call.status,
            "casemate.duration_ms": int((self._world.now() - call.began) * 1000),
        }
        if call.broken is not None:
            attrs["error.type"] = call.broken.code
            if call.broken.names is not None:
                attrs["casemate.model.planned"], attrs["casemate.model.answered"] = call.broken.names
        self._events(
            EventName.LLM_SETTLED,
            stage=self._stage,
            rule=call.broken.code if call.broken else None,
            reason=call.broken.reason if call.broken else None if call.usage.complete else "usage counted here",
            attrs=attrs,
        )


def _labels(call: Call) -> dict[str, Attribute]:
    origin: dict[str, Attribute] = {}
    if call.origin == "cache":
        origin["casemate.cache"] = "hit"
    elif call.origin == "paid":
        origin["casemate.cache"] = "paid"
    elif call.origin == "recording":
        origin["casemate.replayed"] = True
    return {
        **origin,
        "gen_ai.operation.name": call.form.operation,
        "gen_ai.provider.name": call.request.model.provider,
        "gen_ai.request.model": call.request.alias,
        "casemate.asked": call.asked,
        "casemate.attempt": call.attempt,
        "casemate.stream": call.request.stream,
    }


def _resting(alias: str, seconds: int) -> Refused:
    return Refused(
        "CSM-P031",
        f"model {alias} failed too often",
        status=503,
        hint=f"the provider of {alias} failed too often; it is asked again in {seconds} s",
        retry_after=str(seconds),
    )

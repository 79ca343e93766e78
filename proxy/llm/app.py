"""Puts the LLM proxy together: one ledger, one pooled client for each model, one door for each cell."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from policies.cells import met
from policies.errors import CasemateError
from policies.plan import Model
from policies.slices import Birth, LlmSlice, StageModels, up_door
from policies.vocabulary import Component
from proxy.llm.breaker import Breaker
from proxy.llm.cache import Cache
from proxy.llm.call import Calls, Memory, Pace, World
from proxy.llm.charges import ceiling
from proxy.llm.door import Door
from proxy.llm.ledger import Ledger
from proxy.llm.recording import Recording, Replay
from proxy.llm.routing import reach
from proxy.llm.types import Amount
from proxy.llm.upstream import Upstream
from proxy.start import Events, Roots, bound

RUN = "run"
SPENT = "spent/"
"""Facts: what a stage has spent, as `calls tokens usd_nanos`."""


@asynccontextmanager
async def llm_proxy(
    part: LlmSlice,
    birth: Birth,
    roots: Roots,
    events: Events,
    context: ssl.SSLContext | None = None,
    world: World | None = None,
) -> AsyncIterator[None]:
    """Bind every door of the slice, and close them all in the end.

    `context` and `world` are seams: tests trust their own CA, and have their own time.
    """
    keys = {model.alias: _key(model, birth) for model in part.models}
    async with AsyncExitStack() as stack:
        ledger = Ledger(roots.state / "ledger.db", birth.run)
        stack.callback(ledger.close)
        for name, amount in _spent(birth.facts).items():
            ledger.carry(amount, (f"stage/{name}", RUN))
        tls = context if context is not None else ssl.create_default_context()
        if part.trust:
            tls.load_verify_locations(cadata="".join(part.trust))
        upstreams: dict[str, Upstream] = {}
        models = {model.alias: model for model in part.models}
        breakers: defaultdict[tuple[str, int, str], Breaker] = defaultdict(Breaker)
        for model in part.models:
            breaker = breakers[model.host, model.port, model.model]  # of a provider and model, whatever its alias
            socket = roots.doors / up_door(model.alias) / "up.sock"
            upstreams[model.alias] = Upstream(model, keys[model.alias], socket, tls, breaker)
            stack.push_async_callback(upstreams[model.alias].close)
        cells = met(birth.facts, {stage.stage: stage.shards for stage in part.stages}, Component.LLM.value)
        for stage in part.stages:
            # one ceiling and one pace for all cells of a stage: whoever asks first has it
            scopes = {f"stage/{stage.stage}": ceiling(stage.limits), RUN: ceiling(part.budget)}
            mine = {alias: upstreams[alias] for alias in sorted(reach(stage.models, models))}
            own = world or World()
            pace = Pace(stage.limits, own)
            for cell in cells[stage.stage]:
                memory = _memory(stage, cell, birth, roots, stack)
                calls = Calls(cell, stage.models, mine, ledger, scopes, stage.limits, events, own, memory, pace)
                await _open(stack, roots.doors / cell / "llm.sock", Door(cell, sorted(stage.models), calls, events))
        yield


def _memory(stage: StageModels, cell: str, birth: Birth, roots: Roots, stack: AsyncExitStack) -> Memory:
    """Return what a cell's answers are kept in, which it shares with no other; raise `CasemateError` (R010, R017)."""
    cache = Cache() if stage.cache == "exact" else None
    path = roots.recording / f"{cell}.jsonl"
    match birth.facts.get("recording"):
        case None:
            return Memory(cache)
        case "read":
            return Memory(cache, replay=Replay(path))
        case "write":
            try:
                paid = Replay(path)
                recording = Recording(path, birth.secrets.values(), paid)
            except OSError as error:
                raise CasemateError("CSM-R017", f"cannot record: {error.strerror}", place=path.name) from error
            stack.callback(recording.close)
            return Memory(cache, record=recording, paid=paid if paid.lines else None)
        case other:
            raise CasemateError("CSM-R010", f"recording: {other}", place="llm")


def _spent(facts: Mapping[str, str]) -> dict[str, Amount]:
    """Return what each stage has spent before this run was resumed; raise `CasemateError` (R010)."""
    spent = {}
    for name, value in facts.items():
        if name.startswith(SPENT):
            try:
                calls, tokens, usd_nanos = map(int, value.split())
            except ValueError as error:
                raise CasemateError("CSM-R010", f"{name}: {value}", place="llm") from error
            spent[name.removeprefix(SPENT)] = Amount(calls=calls, tokens=tokens, usd_nanos=usd_nanos)
    return spent


def _key(model: Model, birth: Birth) -> str | None:
    """Return a model's key; raise `CasemateError` (R009) when it is missing or could not stand in a header."""
    if model.secret is None or birth.facts.get("recording") == "read":  # a replay asks nobody
        return None
    key = birth.secrets.get(model.secret)
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise CasemateError("CSM-R009", f"no usable value for secret {model.secret}", place="llm")
    return key


async def _open(stack: AsyncExitStack, path: Path, door: Door) -> None:
    def bind(name: str) -> Coroutine[object, object, asyncio.Server]:
        return asyncio.get_running_loop().create_unix_server(door.server, name, backlog=128)

    server = await stack.enter_async_context(bound(path, bind))
    stack.push_async_callback(door.server.shutdown, 1.0)
    stack.callback(server.close)

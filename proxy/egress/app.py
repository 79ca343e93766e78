"""Puts the firewall together: one door for each stage, one for each tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from policies.slices import FirewallSlice
from proxy.egress.addresses import Outside
from proxy.egress.front import Door, StageDoor, TunnelDoor
from proxy.egress.plain import PlainProxy
from proxy.egress.relay import CHUNK
from proxy.start import Events, Roots, bound


@asynccontextmanager
async def firewall(
    part: FirewallSlice,
    roots: Roots,
    events: Events,
    outside: Outside | None = None,
    addons: Sequence[object] = (),
) -> AsyncIterator[None]:
    """Bind every door of the slice, and close them all in the end. `outside` and `addons` are seams for tests."""
    way_out = outside if outside is not None else Outside()
    plain = PlainProxy(way_out, events, addons)
    async with AsyncExitStack() as stack:
        for stage in part.stages:
            path = roots.doors / stage.stage / "egress.sock"
            await _open(stack, path, StageDoor(stage, plain, events, way_out))
        for tunnel in part.tunnels:
            path = roots.doors / tunnel.door / "up.sock"
            await _open(stack, path, TunnelDoor(tunnel, roots.models, events, way_out))
        yield


async def _open(stack: AsyncExitStack, path: Path, door: Door) -> None:
    def bind(name: str) -> Coroutine[object, object, asyncio.Server]:
        return asyncio.start_unix_server(door.accept, name, limit=CHUNK, backlog=128)

    server = await stack.enter_async_context(bound(path, bind))
    stack.push_async_callback(door.close)
    stack.callback(server.close)

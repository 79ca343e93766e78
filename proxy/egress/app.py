"""Puts the firewall together: one door for each cell, one for each tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from policies.cells import met
from policies.slices import FirewallSlice, StageEgress, server_door
from policies.vocabulary import Component
from proxy.egress.addresses import Outside, client_context
from proxy.egress.credential import credentials
from proxy.egress.exchange import Access
from proxy.egress.front import Door, PortDoor, StageDoor, TunnelDoor
from proxy.egress.issuer import Issuer
from proxy.egress.quota import Meters
from proxy.egress.relay import CHUNK
from proxy.start import Events, Roots, bound


@asynccontextmanager
async def firewall(
    part: FirewallSlice,
    roots: Roots,
    events: Events,
    outside: Outside | None = None,
    issuer: Issuer | None = None,
    secrets: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> AsyncIterator[None]:
    """Bind every door of the slice, and close them all in the end. `outside` is a seam for tests.

    `issuer` is needed where a rule inspects, see `inspects`; `secrets` are those that rules name; `facts` say which
    cells there will be. Raises `CasemateError` (R009) for a secret that no header can carry, (R010) for such a cell.
    """
    way_out = outside if outside is not None else Outside(trust=client_context(part.trust))
    async with AsyncExitStack() as stack:
        for stage, cell in _cells(part, facts or {}):
            server = stage.server
            folder = roots.doors / (cell if server is None else server_door(cell, server))
            access = Access(
                stage=cell,
                rules=stage.rules,
                events=events if server is None else events.about({"casemate.server": server}),
                outside=way_out,
                meters=Meters(stage.rules),
                credentials=credentials(stage.rules, secrets or {}),
            )
            await _open(stack, folder / "egress.sock", StageDoor(stage, access, issuer))
            for rule in stage.rules:
                if rule.scheme == "tcp":
                    await _open(stack, folder / f"{rule.port}.sock", PortDoor(stage, access, rule))
        for tunnel in part.tunnels:
            path = roots.doors / tunnel.door / "up.sock"
            await _open(stack, path, TunnelDoor(tunnel, roots.models, events, way_out))
        yield


def _cells(part: FirewallSlice, facts: Mapping[str, str]) -> Iterator[tuple[StageEgress, str]]:
    """Yield each door's rules with the cell whose it is."""
    cells = met(facts, {stage.stage: stage.shards for stage in part.stages}, Component.FIREWALL.value)
    for stage in part.stages:
        yield from ((stage, cell) for cell in cells[stage.stage])


def inspects(part: FirewallSlice) -> bool:
    """Whether any rule inspects, so that there is an authority to be trusted by the cells."""
    return any(rule.inspect for stage in part.stages for rule in stage.rules)


async def _open(stack: AsyncExitStack, path: Path, door: Door) -> None:
    def bind(name: str) -> Coroutine[object, object, asyncio.Server]:
        return asyncio.start_unix_server(door.accept, name, limit=CHUNK, backlog=128)

    server = await stack.enter_async_context(bound(path, bind))
    stack.push_async_callback(door.close)
    stack.callback(server.close)

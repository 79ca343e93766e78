"""Runs without an agent: firewall, MCP servers in their cells, and one trusted process that does something and ends."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from policies.plan import EgressRule, Limits, Plan, SecretBinding, Stage, encode
from policies.slices import Birth, seal, slices
from policies.vocabulary import Component
from sandbox.archives import tar_stream
from sandbox.cells import authorities, volumes
from sandbox.cells.cell import set_up
from sandbox.cells.driver import Driver
from sandbox.cells.supplies import Supplies, inputs_of
from sandbox.cells.tool_servers import ToolServers
from sandbox.engine.docker import Exit
from sandbox.engine.sweep import sweep_run
from sandbox.secrets import held_by
from sandbox.topology.layout import Topology
from sandbox.topology.specs import MIB, ContainerSpec
from sandbox.topology.tool_cells import trusting

SECONDS = 240
"""How long the process may take, and its servers stay."""


def idle_stage(name: str, plan: Plan, tools: dict[str, list[str]], egress: list[EgressRule]) -> Stage:
    """Return a stage that runs nothing."""
    limits = Limits(cpu_millis=100, memory=MIB, pids=1, disk=MIB, wall_s=SECONDS, calls=0, tokens=0, usd_nanos=0)
    return Stage(
        name=name,
        image=plan.stages[0].image,
        run=[],
        env={},
        needs=[],
        inputs=[item.name for item in plan.inputs] if tools else [],
        models=[],
        tools=tools,
        egress=egress,
        outputs=[],
        limits=limits,
    )


def held(plan: Plan, used: Collection[str | None], holder: Literal["gateway", "customs"]) -> list[SecretBinding]:
    """Return those bindings of `plan` that are used; what the gateway or customs would hold is the `holder`'s."""
    return [
        msgspec.structs.replace(b, holder=b.holder if b.holder == "firewall" else holder)
        for b in plan.secrets
        if b.name in used
    ]


def converse(
    driver: Driver,
    plan: Plan,
    lay: Topology,
    supplied: tuple[Mapping[str, str], Mapping[str, bytes]],
    folder: Path,
    spec: ContainerSpec,
    birth: Birth,
    files: Mapping[str, Path] | None = None,
) -> Exit | None:
    """Run the process `spec` with its `birth`, and return how it ended; None when it did not.

    `supplied`: the values of secrets, and inputs, by name; `files` are put into /in.
    """
    engine, (stage,), (cell,) = driver.engine, plan.stages, lay.cells.values()
    firewall, (secrets, inputs) = lay.trusted[Component.FIREWALL], supplied
    volumes.carry(engine, lay)
    if files:
        engine.put(lay.carrier.name, tar_stream({f"in/{name}": path for name, path in files.items()}))
    mine = held_by(plan, dict(secrets), Component.FIREWALL.value)
    part = encode(slices(plan)[Component.FIREWALL]).decode()
    driver.launch(firewall, Component.FIREWALL, Birth(run=birth.run, seal=seal(plan), slice=part, secrets=mine))
    driver.await_ready([firewall.name])
    trusted = authorities.collected(engine, firewall.name, plan, driver.certificate) if trusting(plan, stage) else {}
    theirs = {tool.secret: secrets[tool.secret] for tool in cell.tools if tool.secret is not None}
    supplies = Supplies(
        inputs=inputs_of(plan, stage.name, inputs),
        authorities=trusted,
        secrets=theirs,
    )
    if cell.tools:
        set_up(driver, stage, cell, stage.name, supplies, folder)
        driver.await_ready([relay.name for relay in cell.relays])
    with ToolServers(engine, cell.tools, folder / "logs", theirs, meanwhile=driver.step):
        driver.launch(spec, Component(spec.role), birth)
        driver.release(spec.name)
        return driver.await_end(spec.name, time.monotonic() + SECONDS)


def end(driver: Driver, lay: Topology, spec: ContainerSpec, run: str) -> None:
    """End everything, and leave nothing."""
    relays = [relay for cell in lay.cells.values() for relay in cell.relays]
    for name in {spec.name, *(one.name for one in (*lay.trusted.values(), *relays))}:
        driver.engine.kill(name)
    driver.wind_down(grace_s=5)
    sweep_run(driver.engine, run)

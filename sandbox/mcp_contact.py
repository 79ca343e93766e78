"""Contact with MCP servers before anything runs: in the cells that they will have, by the gateway that they will meet.

It is a run without an agent: firewall, servers, and a gateway that opens each server, writes down the tools that it
lists, and ends. What they say is only shown and written down; a person decides.
"""

from __future__ import annotations

import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import msgspec

from policies.canonical import StrictJsonError, strict_loads
from policies.errors import CasemateError
from policies.plan import Limits, Plan, Stage, encode
from policies.slices import Birth, seal, slices
from policies.vocabulary import Component, ExitCode
from sandbox import apply, authorities
from sandbox.cell import load, set_up
from sandbox.driver import Driver
from sandbox.engine import Engine
from sandbox.log import RunLog
from sandbox.secrets import held_by, read_secrets
from sandbox.specs import MIB
from sandbox.supplies import Supplies, read_inputs
from sandbox.sweep import sweep_run
from sandbox.tool_cells import trusting
from sandbox.tool_servers import ToolServers
from sandbox.topology import Topology, topology

SECONDS = 240
_ANSWER_BYTES = 64 * MIB


def asking(plan: Plan) -> Plan:
    """Return the plan of the contact: every server and what it may do, for a stage that runs no agent."""
    limits = Limits(cpu_millis=100, memory=MIB, pids=1, disk=MIB, wall_s=SECONDS, calls=0, tokens=0, usd_nanos=0)
    stage = Stage(
        name="audit",
        image=plan.stages[0].image,
        run=[],
        env={},
        needs=[],
        inputs=[item.name for item in plan.inputs],
        models=[],
        tools={tool.name: [] for tool in plan.tools},
        egress=[],
        outputs=[],
        limits=limits,
    )
    used = {tool.secret for tool in plan.tools}
    used |= {rule.credential.secret for tool in plan.tools for rule in tool.egress if rule.credential is not None}
    secrets = [binding for binding in plan.secrets if binding.name in used]
    return msgspec.structs.replace(plan, stages=[stage], secrets=secrets, models=[], outputs=[], student=None)


def contact(engine: Engine, plan: Plan, root: Path, home: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the definitions of each server's tools, as it gives them. Raises CSM-G014 when one cannot be used."""
    asked, run = asking(plan), f"audit-{uuid4().hex[:8]}"
    secrets, inputs, proof = read_secrets(asked, root), read_inputs(asked, root), seal(asked)
    lay = topology(asked, run, home=str(home), host=socket.gethostname())
    with tempfile.TemporaryDirectory(prefix="casemate-audit-") as name:
        folder = Path(name)
        (folder / "logs").mkdir()
        log = RunLog(folder, run, proof.plan)
        driver = Driver(engine, folder, log, lambda _event, _tally: None, time.monotonic() + SECONDS)
        try:
            said = _converse(driver, asked, lay, secrets, inputs, folder)
        finally:
            for spec in (*lay.trusted.values(), *(relay for cell in lay.cells.values() for relay in cell.relays)):
                engine.kill(spec.name)
            driver.wind_down(grace_s=5)
            sweep_run(engine, run)
            log.close()
    return {tool.name: _tools(tool.name, said.get(f"{tool.name}.json", b"")) for tool in asked.tools}


def _converse(
    driver: Driver, plan: Plan, lay: Topology, secrets: dict[str, str], inputs: dict[str, bytes], folder: Path
) -> dict[str, bytes]:
    engine, (stage,), (cell,) = driver.engine, plan.stages, lay.cells.values()
    firewall, gateway = lay.trusted[Component.FIREWALL], lay.trusted[Component.GATEWAY]

    def birth(component: Component) -> Birth:
        part = encode(slices(plan)[component]).decode()
        held = held_by(plan, secrets, component.value)
        return Birth(run="audit", seal=seal(plan), slice=part, secrets=held)

    for volume in lay.volumes:
        engine.create_volume(volume)
    engine.create(lay.carrier)
    engine.put(lay.carrier.name, "/", apply.own_archive())
    driver.launch(firewall, Component.FIREWALL, birth(Component.FIREWALL))
    driver.await_ready([firewall.name])
    trusted = authorities.collected(engine, firewall.name, plan, driver.certificate) if trusting(plan, stage) else {}
    mine = {tool.secret: secrets[tool.secret] for tool in cell.tools if tool.secret is not None}
    files = {item.target: inputs[item.name] for item in plan.inputs}
    supplies = Supplies(inputs=files, authorities=trusted, secrets=mine)
    set_up(driver, cell, stage.name, supplies)
    load(driver, stage, cell, supplies, folder)
    driver.await_ready([relay.name for relay in cell.relays])
    with ToolServers(engine, cell.tools, folder / "logs", mine, meanwhile=driver.step):
        asker = replace(gateway, command=("python3", "-m", "gateway", "audit"))
        driver.launch(asker, Component.GATEWAY, birth(Component.GATEWAY))
        driver.release(asker.name)
        how = driver.await_end(asker.name, time.monotonic() + SECONDS)
    if how is None or how.code != 0:
        raise CasemateError("CSM-R004", "the gateway that asks MCP servers failed", exit_code=ExitCode.STAGE_FAILED)
    return apply.read_tar(engine.get(lay.carrier.name, "/buffer", _ANSWER_BYTES), "buffer")


def _tools(server: str, data: bytes) -> list[dict[str, Any]]:
    try:
        said = strict_loads(data)
    except StrictJsonError:
        said = {}
    tools = said.get("tools") if isinstance(said, dict) else None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        why = said.get("failed", "it said nothing") if isinstance(said, dict) else "it said nothing"
        message = f"the MCP server {server} cannot be used: {why}"
        raise CasemateError("CSM-G014", message, exit_code=ExitCode.STAGE_FAILED)
    return cast("list[dict[str, Any]]", tools)

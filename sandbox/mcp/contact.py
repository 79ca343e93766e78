"""Contact with MCP servers before anything runs: in the cells that they will have, by the gateway that they will meet.

It is a run without an agent: firewall, servers, and a gateway that opens each server, writes down the tools that it
lists, and ends. What they say is only shown and written down; a person decides.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import msgspec

from policies.canonical import StrictJsonError, strict_loads
from policies.errors import CasemateError
from policies.plan import Plan, encode
from policies.slices import Birth, seal, slices
from policies.vocabulary import Component, ExitCode
from sandbox.cells import volumes
from sandbox.cells.agentless import SECONDS, converse, end, held, idle_stage
from sandbox.cells.driver import Driver
from sandbox.cells.supplies import read_inputs
from sandbox.engine.docker import Engine
from sandbox.records.log import RunLog
from sandbox.secrets import held_by, read_secrets
from sandbox.topology.layout import topology
from sandbox.topology.specs import MIB

_ANSWER_BYTES = 64 * MIB


def asking(plan: Plan) -> Plan:
    """Return the plan of the contact: every server and what it may do, for a stage that runs no agent."""
    stage = idle_stage("audit", plan, {tool.name: [] for tool in plan.tools}, [])
    used = {tool.secret for tool in plan.tools}
    used |= {rule.credential.secret for tool in plan.tools for rule in tool.egress if rule.credential is not None}
    return msgspec.structs.replace(
        plan, stages=[stage], secrets=held(plan, used, "gateway"), models=[], outputs=[], student=None
    )


def contact(engine: Engine, plan: Plan, root: Path, home: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the definitions of each server's tools, as it gives them. Raises CSM-G014 when one cannot be used."""
    asked, run = asking(plan), f"audit-{uuid4().hex[:8]}"
    secrets, inputs, proof = read_secrets(asked, root), read_inputs(asked, root), seal(asked)
    lay = topology(asked, run, home=str(home), host=socket.gethostname())
    with _folder(home, run) as folder:
        log = RunLog(folder, run, proof.plan)
        driver = Driver(engine, folder, log, lambda _event, _tally: None, time.monotonic() + SECONDS)
        gateway = lay.trusted[Component.GATEWAY]
        asker = replace(gateway, command=("python3", "-m", "gateway", "audit"))
        mine = held_by(asked, secrets, Component.GATEWAY.value)
        part = encode(slices(asked)[Component.GATEWAY]).decode()
        birth = Birth(run="audit", seal=proof, slice=part, secrets=mine)
        try:
            how = converse(driver, asked, lay, (secrets, inputs), folder, asker, birth)
            if how is None or how.code != 0:
                message = "the gateway that asks MCP servers failed"
                raise CasemateError("CSM-R004", message, exit_code=ExitCode.STAGE_FAILED)
            said = volumes.read_tar(engine.get(lay.carrier.name, "/buffer", _ANSWER_BYTES), "buffer")
        finally:
            end(driver, lay, asker, run)
            log.close()
    return {tool.name: _tools(tool.name, said.get(f"{tool.name}.json", b"")) for tool in asked.tools}


@contextmanager
def _folder(home: Path, run: str) -> Iterator[Path]:
    """Make a folder as a run has it, whose lock tells others that somebody drives it; it goes when that is over."""
    folder = home / "runs" / run
    (folder / "logs").mkdir(parents=True, mode=0o700)
    try:
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder)


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

"""A sink outside of the project: each batch is applied by a fresh container that holds the sink's secret alone.

It is a run without an agent: a firewall with one way out, the MCP server when the sink is a tool, and customs' image
with the order to apply. Its events go into the log of the run whose writes they are.
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from policies.errors import CasemateError
from policies.plan import EgressRule, Output, Plan, encode
from policies.sinks import Batch, Order, refused
from policies.slices import SINK_STAGE, Birth, seal, slices
from policies.vocabulary import Component, Verdict
from sandbox.cells.agentless import converse, end, held, idle_stage
from sandbox.cells.driver import Driver
from sandbox.cells.supplies import read_inputs
from sandbox.engine.sweep import sweep_run
from sandbox.secrets import held_by, read_secrets
from sandbox.sinks.applying import Reach
from sandbox.topology.layout import GIT_IMAGE, Topology, topology
from sandbox.topology.specs import MIB, ContainerSpec, Mount, Tmpfs

COMMAND = ("python3", "-m", "gateway", "apply")
POSTGRES = 5432
Mode = Literal["first", "again", "undo"]


def applying(plan: Plan, output: Output) -> Plan:
    """Return the plan by which one output is applied: no agent, no other output, no other secret."""
    servers = [tool for tool in plan.tools if tool.name == output.target.get("server")]
    tools = {server.name: [output.target["tool"]] for server in servers}
    used = {output.secret, *(server.secret for server in servers)}
    used |= {rule.credential.secret for server in servers for rule in server.egress if rule.credential is not None}
    return msgspec.structs.replace(
        plan,
        stages=[idle_stage(SINK_STAGE, plan, tools, _ways(output))],
        tools=servers,
        secrets=held(plan, used, "customs"),
        inputs=plan.inputs if servers else [],
        models=[],
        outputs=[output],
        student=None,
    )


def _ways(output: Output) -> list[EgressRule]:
    """Return the rule for a database: what is spoken there begins without TLS, so nothing looks at it."""
    if output.sink != "sql":
        return []
    url = urlsplit(output.target["url"])
    rule = EgressRule(
        host=url.hostname or "",
        port=url.port or POSTGRES,
        scheme="tcp",
        inspect=False,
        methods=[],
        paths=[],
        place=f"outputs.{output.name}",
        addresses=output.addresses,
        quota=None,
    )
    return [rule]


class Outside:
    """The sink of one output, as the orchestrator sees it. `command` is what its container runs."""

    def __init__(
        self, driver: Driver, run: Path, plan: Plan, output: Output, root: Path, command: tuple[str, ...]
    ) -> None:
        self._driver, self._run, self._root = driver, run, root
        self._plan, self._command = applying(plan, output), command

    def settle(self, batch: Batch, *, again: bool) -> str:
        """Apply a batch, or find it; return the receipt."""
        return self._order(batch, "again" if again else "first", "")

    def undo(self, batch: Batch, receipt: str) -> None:
        """Take it back."""
        self._order(batch, "undo", receipt)

    def _order(self, batch: Batch, mode: Mode, receipt: str) -> str:
        plan, driver, owner = self._plan, self._driver, self._run.name
        # One that a killed orchestrator left may still be writing.
        sweep_run(driver.engine, owner)
        supplied = read_secrets(plan, self._root), read_inputs(plan, self._root)
        home, name = str(self._run.parent.parent), f"sink-{os.urandom(4).hex()}"
        lay = topology(plan, name, home=home, host=socket.gethostname(), owner=owner)
        spec = applier(lay, self._command, plan)
        order = Order(mode=mode, key=batch.key, digest=batch.digest, count=batch.count, receipt=receipt)
        birth = Birth(
            run=owner,
            seal=seal(plan),
            slice=encode(slices(plan)[Component.CUSTOMS]).decode(),
            secrets=held_by(plan, supplied[0], Component.CUSTOMS.value),
            facts={"order": encode(order).decode()},
        )
        driver.take_sent()
        try:
            converse(driver, plan, lay, supplied, self._run, spec, birth, {"rows": batch.rows})
        finally:
            end(driver, lay, spec, owner)
        said = driver.take_sent()
        if said is None:
            hint = "casemate apply RUN finds out what became of it"
            raise CasemateError("CSM-W020", "who applied it ended without a word", hint=hint)
        if said.verdict is not Verdict.ACCEPT:
            raise refused(said.rule or "CSM-W020", said.reason or "it was refused")
        return str(said.attrs["casemate.receipt"])


CLONE = 256 * MIB
"""Memory for what is taken of a repository: its trees, and the files that a patch changes."""


def applier(lay: Topology, command: tuple[str, ...], plan: Plan) -> ContainerSpec:
    """Return the container that applies: customs, with the doors that lead to the sink, and no network.

    To a repository it is an image with git, and room for a clone.
    """
    doors = [m for m in lay.trusted[Component.GATEWAY].mounts if m.target.startswith(("/doors/up-", "/tools/"))]
    egress = [m for m in lay.trusted[Component.FIREWALL].mounts if m.target == f"/doors/{SINK_STAGE}"]
    mounts = (*lay.customs.mounts, *(Mount(m.volume, m.target, read_only=True) for m in (*doors, *egress)))
    spec = replace(lay.customs, command=command, mounts=mounts)
    if all(output.sink != "git" for output in plan.outputs):
        return spec
    image = next(image.digest for image in plan.images if image.name == GIT_IMAGE)
    return replace(spec, image=image, tmpfs=(Tmpfs("/tmp", CLONE),))  # noqa: S108 - a private file system


def reached(driver: Driver, plan: Plan, run: Path, command: tuple[str, ...] = COMMAND) -> Reach:
    """Return how sinks outside of the project are reached. `run`: the folder of the run whose writes they are."""
    return lambda output, root: Outside(driver, run, plan, output, root, command)

"""Cells of MCP servers: each cell of a stage has its own, so that none carries anything from one to another.

A server is a container whose standard streams the orchestrator carries to a bridge, as bytes that it does not parse;
the bridge is a container of ours that offers them on a socket which only the gateway mounts beside it. Where the plan
lets a server connect, its cell is like a stage's: a relay whose ports lead to a door of its own at the firewall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from policies.plan import Plan, Stage, Tool
from policies.slices import server_door
from sandbox.topology.agent_env import proxy_env, trust_env, trusts
from sandbox.topology.relays import SERVER, relay
from sandbox.topology.specs import DOORS_GID, LABEL_ROLE, MIB, UIDS, ContainerSpec, Mount, Network, Tmpfs, VolumeSpec

TOOL_UID = 20001
SECRETS = "/run/secrets"
_WITH_SECRET = ("/bin/sh", "-c", 'export "$1=$(cat "$2")"; shift 2; exec "$@"', "sh")
"""Starts a command, with the content of a file in a variable: so it stands in no configuration of a container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCell:
    """One server of one stage: the bridge, the server itself, and its relay when it may connect or has a secret.

    `sockets` are volumes that trusted processes mount from the start of the run; `loads` are the stage's own, by
    the place where its carrier has them: the secret, named `secret`, at `secrets_at`; the authorities at `trust_at`.
    """

    server: str
    sockets: tuple[VolumeSpec, ...]
    bridge: ContainerSpec
    tool: ContainerSpec
    relay: ContainerSpec | None = None
    loads: Mapping[str, VolumeSpec] = field(default_factory=dict)
    secret: str | None = None

    @property
    def secrets_at(self) -> str:
        """Where the stage's carrier has the volume of the secret."""
        return f"/tools/{self.server}/secrets"

    @property
    def trust_at(self) -> str:
        """Where the stage's carrier has the volume of the authorities."""
        return f"/tools/{self.server}/casemate"


def tool_volume(prefix: str, cell: str, server: str) -> str:
    """Return the name of the volume in which the socket of a server is."""
    return f"{prefix}{cell}-tool-{server}"


def door_volume(prefix: str, cell: str, server: str) -> str:
    """Return the name of the volume in which the sockets of a server's egress door are."""
    return f"{prefix}{server_door(cell, server)}-egress"


def local_servers(plan: Plan, stage: Stage) -> list[Tool]:
    """Return the servers of a stage that run in a container here."""
    return [tool for tool in plan.tools if tool.name in stage.tools and tool.image is not None]


def trusting(plan: Plan, stage: Stage) -> bool:
    """Whether anybody in a stage's cells must trust more than the system's authorities."""
    servers = local_servers(plan, stage)
    return any(trusts(plan, rules) for rules in (stage.egress, *(server.egress for server in servers)))


def tool_cell(
    prefix: str,
    plan: Plan,
    stage: Stage,
    cell: str,
    server: Tool,
    images: Mapping[str, str],
    labels: Mapping[str, str],
) -> ToolCell:
    """Lay out one server of a cell of a stage. It reads the cell's inputs, and nothing else of it."""
    name, door = tool_volume(prefix, cell, server.name), door_volume(prefix, cell, server.name)
    sockets = [VolumeSpec(name=name, labels=labels, size=MIB, uid=UIDS["bridge"], gid=DOORS_GID)]
    if server.egress:
        sockets.append(VolumeSpec(name=door, labels=labels, size=MIB, uid=UIDS["firewall"]))
    laid = ToolCell(
        server=server.name,
        sockets=tuple(sockets),
        bridge=_bridge(name, images["casemate/gateway"], labels),
        tool=_tool(name, f"{prefix}{cell}-inputs", plan, server, images[server.image or ""], labels),
        secret=server.secret,
    )
    if not server.egress and server.secret is None:
        return laid
    loads, held = {}, []
    if server.egress:
        held.append(Mount(door, "/doors", read_only=True))
    if trusts(plan, server.egress):
        loads[laid.trust_at] = VolumeSpec(name=f"{name}-casemate", labels=labels)
    if server.secret is not None:
        # In memory, and behind the relay as long as that runs, which cannot read it: it belongs to another.
        loads[laid.secrets_at] = VolumeSpec(
            name=f"{name}-secrets", labels=labels, size=MIB, inodes=8, uid=TOOL_UID, gid=TOOL_UID, mode=0o500
        )
        held.append(Mount(f"{name}-secrets", "/hold/secrets", read_only=True))
    ports = sorted(rule.port for rule in server.egress if rule.scheme == "tcp")
    env = {f"PORT_{number}": str(port) for number, port in enumerate(ports)}
    ours = relay(f"{name}-relay", images["casemate/relay"], labels, held, stage.limits.wall_s, config=SERVER, env=env)
    return replace(laid, relay=ours, loads=loads)


def _bridge(name: str, image: str, labels: Mapping[str, str]) -> ContainerSpec:
    return ContainerSpec(
        name=f"{name}-bridge",
        role="bridge",
        image=image,
        uid=UIDS["bridge"],
        command=("python3", "-m", "gateway", "bridge"),
        workdir="/opt/app",
        mounts=(Mount(name, "/tools", read_only=False),),
        tmpfs=(Tmpfs("/tmp", MIB),),  # noqa: S108 - a private file system of the container
        labels={**labels, LABEL_ROLE: "bridge"},
        memory=128 * MIB,
        pids=16,
        log_bytes=0,
        birth=True,
    )


def _tool(name: str, inputs: str, plan: Plan, server: Tool, image: str, labels: Mapping[str, str]) -> ContainerSpec:
    mounts = [Mount(inputs, "/inputs", read_only=True)]
    env = {"HOME": "/tmp", "TMPDIR": "/tmp"}  # noqa: S108
    entrypoint: tuple[str, ...] = ()
    if server.egress:
        env |= proxy_env()
    if trusts(plan, server.egress):
        env |= trust_env()
        mounts.append(Mount(f"{name}-casemate", "/casemate", read_only=True))
    if server.secret is not None:
        mounts.append(Mount(f"{name}-secrets", SECRETS, read_only=True))
        if server.secret_env is not None:
            entrypoint = (*_WITH_SECRET, server.secret_env, f"{SECRETS}/{server.secret}")
    return ContainerSpec(
        name=name,
        role="tool",
        image=image,
        uid=TOOL_UID,
        gid=TOOL_UID,
        entrypoint=entrypoint,
        command=tuple(server.run),
        workdir="/tmp",  # noqa: S108
        network=f"{name}-relay" if server.egress or server.secret is not None else Network.NONE,
        mounts=tuple(mounts),
        tmpfs=(Tmpfs("/tmp", 64 * MIB),),  # noqa: S108 - a private file system of the container
        env=env,
        labels={**labels, LABEL_ROLE: "tool"},
        memory=768 * MIB,
        pids=128,
        log_bytes=0,  # what it says is for the gateway alone
        birth=True,
        init=True,
    )

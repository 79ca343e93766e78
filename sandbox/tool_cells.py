"""Cells of MCP servers: each stage has its own, so that no server carries anything from one stage to another.

A server is a container without a network, whose standard streams the orchestrator carries to a bridge, as bytes that it
does not parse; the bridge is a container of ours that offers them on a socket which only the gateway mounts beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.plan import Plan, Stage, Tool
from sandbox.specs import DOORS_GID, MIB, UIDS, ContainerSpec, Mount, Tmpfs, VolumeSpec

TOOL_UID = 20001
LABEL_ROLE = "casemate.role"


_SCRATCH = (Tmpfs("/tmp", 64 * MIB),)  # noqa: S108 - a private file system of the container
_BOUNDS: dict[str, Any] = {
    "uid": TOOL_UID,
    "gid": TOOL_UID,
    "workdir": "/tmp",  # noqa: S108
    "env": {"HOME": "/tmp", "TMPDIR": "/tmp"},  # noqa: S108
    "memory": 768 * MIB,
    "pids": 128,
    "log_bytes": 8 * MIB,
    "birth": True,
    "init": True,
}


@dataclass(frozen=True, slots=True)
class ToolCell:
    """One server of one stage: the volume of its socket, the bridge, and the server itself."""

    server: str
    volume: VolumeSpec
    bridge: ContainerSpec
    tool: ContainerSpec


def tool_volume(prefix: str, stage: str, server: str) -> str:
    """Return the name of the volume in which the socket of a server is."""
    return f"{prefix}{stage}-tool-{server}"


def local_servers(plan: Plan, stage: Stage) -> list[Tool]:
    """Return the servers of a stage that run in a container here."""
    return [tool for tool in plan.tools if tool.name in stage.tools and tool.image is not None]


def tool_cell(
    prefix: str, stage: Stage, server: Tool, images: Mapping[str, str], labels: Mapping[str, str]
) -> ToolCell:
    """Lay out one server of a stage. It reads the stage's inputs, and nothing else of it."""
    name = tool_volume(prefix, stage.name, server.name)
    volume = VolumeSpec(name=name, labels=labels, size=MIB, uid=UIDS["bridge"], gid=DOORS_GID)
    bridge = ContainerSpec(
        name=f"{name}-bridge",
        role="bridge",
        image=images["casemate/gateway"],
        uid=UIDS["bridge"],
        command=("python3", "-m", "gateway", "bridge"),
        workdir="/opt/app",
        mounts=(Mount(name, "/tools", read_only=False),),
        tmpfs=(Tmpfs("/tmp", MIB),),  # noqa: S108 - a private file system of the container
        labels={**labels, LABEL_ROLE: "bridge"},
        memory=128 * MIB,
        pids=16,
        birth=True,
    )
    tool = ContainerSpec(
        name=name,
        role="tool",
        image=images[server.image or ""],
        command=tuple(server.run),
        mounts=(Mount(f"{prefix}{stage.name}-inputs", "/inputs", read_only=True),),
        tmpfs=_SCRATCH,
        labels={**labels, LABEL_ROLE: "tool"},
        **_BOUNDS,
    )
    return ToolCell(server.name, volume, bridge, tool)


def contact_spec(server: Tool, images: Mapping[str, str], name: str) -> ContainerSpec:
    """Return the container in which a server is asked what it offers: as in a run, but without anybody's inputs."""
    return ContainerSpec(
        name=name,
        role="tool",
        image=images[server.image or ""],
        command=tuple(server.run),
        tmpfs=(*_SCRATCH, Tmpfs("/inputs", MIB)),
        labels={LABEL_ROLE: "tool", "casemate.audit": name},
        **_BOUNDS,
    )

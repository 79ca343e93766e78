"""Relays: the small trusted container whose network namespace is a cell, and whose loopback ports are its doors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sandbox.topology.specs import LABEL_ROLE, MIB, UIDS, ContainerSpec, Mount, Tmpfs

RELAY_READY = b"Loading success"
RELAY_GRACE_S = 120
STAGE, SERVER = "haproxy.cfg", "server.cfg"
"""Configurations in the relay's image: the three doors of a stage, and those of an MCP server."""


def relay(
    name: str,
    image: str,
    labels: Mapping[str, str],
    mounts: Sequence[Mount],
    wall_s: int,
    *,
    config: str = STAGE,
    env: Mapping[str, str] | None = None,
) -> ContainerSpec:
    """Return the relay of one cell, which ends by itself some time after `wall_s`."""
    return ContainerSpec(
        name=name,
        role="relay",
        image=image,
        uid=UIDS["relay"],
        # When nobody is left to end the stage, its doors close by themselves.
        command=(
            *("timeout", str(wall_s + RELAY_GRACE_S)),
            *("/usr/sbin/haproxy", "-W", "-db", "-f", f"/etc/casemate/{config}"),
        ),
        mounts=tuple(mounts),
        tmpfs=(Tmpfs("/tmp", MIB),),  # noqa: S108 - a private file system of the container
        env=env or {},
        labels={**labels, LABEL_ROLE: "relay"},
        cpu_millis=500,
        memory=128 * MIB,
        pids=16,
    )

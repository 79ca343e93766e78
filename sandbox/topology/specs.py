"""Specs: what a volume and a container are, before there are any. The engine executes them, and adds protection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MIB = 1 << 20
DOORS_GID = 10000
LABEL_ROLE = "casemate.role"
UIDS = {
    "relay": 10001,
    "firewall": 10002,
    "llm": 10003,
    "gateway": 10004,
    "customs": 10005,
    "model": 10006,
    "bridge": 10007,
}


class Network(StrEnum):
    """Networks that are not another container's: none at all, or the firewalls' way out."""

    NONE = "none"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """A named volume. With `size` (bytes) it lives in memory, owned by `uid`:`gid`."""

    name: str
    labels: Mapping[str, str]
    size: int | None = None
    inodes: int = 64
    uid: int = 0
    gid: int = DOORS_GID
    mode: int = 0o750


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume in a container."""

    volume: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A private memory file system of `size` bytes."""

    target: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """A container. `network` is a `Network` or the name of the container whose namespace it joins.

    `entrypoint`, when there is one, stands before `command` in place of the image's own. With `log_bytes` 0 the engine
    keeps nothing of what it says.
    """

    name: str
    role: str
    image: str
    uid: int
    gid: int = DOORS_GID
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = "/"
    network: Network | str = Network.NONE
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str]
    cpu_millis: int = 1000
    memory: int = 512 * MIB
    pids: int = 64
    log_bytes: int = 64 * MIB
    birth: bool = False
    init: bool = False
    runs: bool = True

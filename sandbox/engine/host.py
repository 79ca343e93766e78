"""The host: is there an engine, can it do what a cell needs; and, where root on Debian or Ubuntu allows it, get one."""

from __future__ import annotations

import ipaddress
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from policies.errors import CasemateError
from policies.events import clean
from sandbox.baseline import SECCOMP
from sandbox.engine.docker import Engine, WayOut

START_S = 60


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `doctor`. `ok` None: works, but worse than it could."""

    name: str
    ok: bool | None
    detail: str


def connect() -> Engine:
    """Return an engine that answers, with our seccomp profile, and the way out that this host's operator wants."""
    network = os.environ.get("CASEMATE_EGRESS_NETWORK") or None
    resolvers = tuple(filter(None, os.environ.get("CASEMATE_EGRESS_DNS", "").split(",")))
    for address in resolvers:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            hint = "give addresses, separated by commas"
            raise CasemateError(
                "CSM-R018", f"CASEMATE_EGRESS_DNS: {clean(address, 50)} is no address", hint=hint
            ) from error
    return Engine(SECCOMP.read_text(), way_out=WayOut(network=network, resolvers=resolvers))


def ensure_engine(progress: Callable[[str], None]) -> Engine:
    """Use an engine that answers; else, as root on Debian or Ubuntu, get one; else say what is missing."""
    try:
        return connect()
    except CasemateError:
        if os.environ.get("DOCKER_HOST") or os.geteuid() != 0:
            raise
    if not shutil.which("dockerd"):
        if not shutil.which("apt-get"):
            raise CasemateError("CSM-R001", "no Docker engine, and no apt-get to install one", hint="install Docker")
        progress("installing a Docker engine (Debian's docker.io)")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "docker.io", "mmdebstrap"]):
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)  # noqa: S603
            if done.returncode != 0:
                raise CasemateError("CSM-R001", f"{' '.join(command)} failed: {done.stderr[-500:]}")
        try:
            return connect()  # the package may have started it
        except CasemateError:
            pass
    progress("starting the Docker engine")
    log = Path("/var/log/casemate-dockerd.log")
    with log.open("ab") as stream:
        process = subprocess.Popen(["dockerd"], stdout=stream, stderr=stream, start_new_session=True)  # noqa: S607
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            return connect()
        except CasemateError:
            time.sleep(0.2)
    tail = log.read_text(errors="replace")[-800:]
    raise CasemateError("CSM-R001", f"dockerd does not start:\n{tail}", hint=f"see {log}; it needs root and cgroups")


def doctor(engine: Engine, missing_images: list[str]) -> Iterator[Check]:
    """Yield what was looked at on this host, and what cannot be enforced here."""
    info = engine.info()
    version = info["Version"]
    yield Check("engine", True, f"Docker {version['Version']}, API {version['ApiVersion']}, {info['OperatingSystem']}")
    kernel = str(info.get("KernelVersion", platform.release()))
    yield Check("kernel", True, kernel)
    options = " ".join(info.get("SecurityOptions") or [])
    yield Check("seccomp", "seccomp" in options, "available" if "seccomp" in options else "cells would have no filter")
    rootless, userns = "rootless" in options, "userns" in options
    detail = "root in a container is not root on the host" if rootless or userns else "off: uid 0 would be the host's"
    yield Check("user namespaces", True if rootless or userns else None, detail)
    for key, what in (("MemoryLimit", "memory"), ("PidsLimit", "pids"), ("CpuCfsQuota", "cpu")):
        yield Check(
            f"{what} limit", bool(info.get(key)), "enforced" if info.get(key) else "not enforced by this engine"
        )
    lsm = [name for name in ("apparmor", "selinux") if name in options]
    yield Check("LSM", True if lsm else None, ", ".join(lsm) or "neither AppArmor nor SELinux")
    for component in version.get("Components", []):
        if component["Name"] in ("runc", "containerd"):
            yield _known_holes(component["Name"], str(component["Version"]))
    yield Check("images", not missing_images, ", ".join(missing_images) or "built, and up to date")


_FIXED = {"runc": (1, 1, 12)}
"""The oldest release without a published way out of a container (CVE-2024-21626 for runc)."""


def _known_holes(name: str, version: str) -> Check:
    numbers = tuple(
        int(part) for part in version.split("+")[0].split("~")[0].lstrip("v").split(".")[:3] if part.isdigit()
    )
    fixed = _FIXED.get(name)
    if fixed and numbers < fixed:
        text = ".".join(map(str, fixed))
        return Check(name, None, f"{version}: older than {text}; a distribution may have patched it, so ask it")
    return Check(name, True, version)

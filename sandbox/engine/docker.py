"""The engine: the only place that talks to Docker. It executes specs; it decides nothing.

The engine and the orchestrator share no file system: everything travels by the engine's API, so that a remote engine
(`DOCKER_HOST`) is the same case as a local one.
"""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Literal

import docker
import docker.errors
import docker.types
import requests
from docker.models.containers import Container

from policies.canonical import digest_of
from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.archives import CHUNK, Chunks
from sandbox.engine.attached import Attached
from sandbox.topology.layout import LABEL_POOL, LABEL_RUN
from sandbox.topology.specs import ContainerSpec, Network, Tmpfs, VolumeSpec

EGRESS_NETWORK = "casemate-egress"
_API_TIMEOUT_S = 120
_BUILD_TIMEOUT_S = 1800
_POOL = 64
_SOCKET = "http+docker:"
"""The scheme that the library gives an engine behind a socket of this host."""
_SHUT = {"/dev/mqueue": "ro,size=4096,nr_inodes=1,mode=0555,nosuid,nodev,noexec"}
"""A place that the engine would mount writable for everybody."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended: its exit code, and whether the kernel killed it for want of memory."""

    code: int
    out_of_memory: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOut:
    """How firewalls leave this host: a network of the operator's, or our own bridge, and who resolves names there."""

    network: str | None = None
    resolvers: tuple[str, ...] = ()


_OWN = WayOut()


class Engine:
    """A Docker engine that answers. Raises `CasemateError` CSM-R001 when none does."""

    def __init__(self, seccomp: str, timeout_s: int = _API_TIMEOUT_S, way_out: WayOut = _OWN) -> None:
        """Connect. `seccomp` is the JSON text of the profile that every container gets."""
        self._seccomp, self._way_out = seccomp, way_out
        try:
            self._client = docker.from_env(timeout=timeout_s, max_pool_size=_POOL)
            if self._client.api.base_url.startswith(_SOCKET):
                self._client.api.trust_env = False  # no proxy: looking for one takes longer than many an answer
            self._client.ping()
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise CasemateError(
                "CSM-R001",
                f"no Docker engine answers: {error}",
                hint="start one, or point DOCKER_HOST at one; `casemate doctor --fix` installs one on Debian or Ubuntu",
            ) from error

    # ---- images

    def image_id(self, name: str) -> str | None:
        """Return the digest (image id) of a local image, or None."""
        try:
            return str(self._client.images.get(name).id)
        except docker.errors.ImageNotFound:
            return None

    def image_labels(self, name: str) -> dict[str, str]:
        """Return the labels of an image; empty when it does not exist."""
        try:
            return dict(self._client.images.get(name).labels)
        except docker.errors.ImageNotFound:
            return {}

    def pull(self, name: str) -> bool:
        """Pull an image; False when the registry cannot be reached or does not have it."""
        try:
            self._client.images.pull(name)
        except (docker.errors.APIError, requests.RequestException):
            return False
        return True

    def import_rootfs(self, tarball: Iterator[bytes], tag: str) -> None:
        """Make an image from a root file system that arrives as a tar stream."""
        repository, _, version = tag.partition(":")
        url = self._client.api._url("/images/create")  # type: ignore[attr-defined] # the public call cannot stream
        answer = self._client.api.post(
            url,
            params={"fromSrc": "-", "repo": repository, "tag": version or "latest"},
            data=tarball,
            headers={"Content-Type": "application/tar"},
            timeout=_BUILD_TIMEOUT_S,
        )
        answer.raise_for_status()

    def build(self, context: IO[bytes], tag: str, *, args: Mapping[str, str], labels: Mapping[str, str]) -> None:
        """Build an image from a context tarball, without a network unless `args` says otherwise."""
        try:
            self._client.images.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                buildargs=dict(args),
                labels=dict(labels),
                network_mode="none" if args.get("NETWORK") != "yes" else None,
                rm=True,
                forcerm=True,
                timeout=_BUILD_TIMEOUT_S,
            )
        except docker.errors.BuildError as error:
            log = "".join(str(part.get("stream", "")) for part in error.build_log if isinstance(part, dict))
            raise CasemateError("CSM-R017", f"image {tag} does not build: {error}\n{log[-2000:]}") from error

    def forget_stages(self) -> None:
        """Remove what the stages of builds have left that is labelled so, and in no image."""
        with contextlib.suppress(docker.errors.APIError):
            self._client.images.prune(filters={"dangling": True, "label": "casemate=stage"})

    def remove_image(self, name: str) -> None:
        """Remove an image if nothing uses it."""
        with contextlib.suppress(docker.errors.APIError):
            self._client.images.remove(name)

    # ---- volumes and containers

    def create_volume(self, spec: VolumeSpec) -> None:
        """Create a named volume; with a size it lives in memory, bounded, and owned by `spec.uid`."""
        options = {}
        if spec.size is not None:
            limits = f"size={spec.size},nr_inodes={spec.inodes},uid={spec.uid},gid={spec.gid},mode={spec.mode:04o}"
            options = {"type": "tmpfs", "device": "tmpfs", "o": f"{limits},nosuid,nodev"}
        self._client.volumes.create(spec.name, driver="local", driver_opts=options, labels=dict(spec.labels))

    def create(self, spec: ContainerSpec) -> None:
        """Create a hardened container. Every protection is here, in one place, for every container alike."""
        options: dict[str, Any] = {}
        match spec.network:
            case Network.NONE:
                options["network_mode"] = "none"
            case Network.EGRESS:
                options["network_mode"] = self._egress_network()
                options["dns"] = list(self._way_out.resolvers) or None
            case str() as cell:
                options["network_mode"] = f"container:{cell}"
        if spec.network in (Network.NONE, Network.EGRESS):
            options["hostname"] = "cell"
        self._client.containers.create(
            spec.image,
            list(spec.command) or None,
            entrypoint=list(spec.entrypoint) or None,
            name=spec.name,
            user=f"{spec.uid}:{spec.gid}",
            working_dir=spec.workdir,
            environment=dict(spec.env),
            labels=dict(spec.labels),
            mounts=[
                docker.types.Mount(m.target, m.volume, type="volume", read_only=m.read_only, no_copy=True)
                for m in spec.mounts
            ],
            tmpfs={**{tmpfs.target: _tmpfs_options(tmpfs, spec) for tmpfs in spec.tmpfs}, **_SHUT},
            # A carrier never runs; the engine unpacks archives only into a root that can be written.
            read_only=spec.runs,
            init=spec.init,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges", f"seccomp={self._seccomp}"],
            ipc_mode="none",
            # The engine refuses to grant more cores than it has.
            nano_cpus=min(spec.cpu_millis * 1_000_000, int(self._info["NCPU"]) * 1_000_000_000),
            mem_limit=spec.memory,
            memswap_limit=spec.memory,
            pids_limit=spec.pids,
            ulimits=[
                docker.types.Ulimit(name="core", soft=0, hard=0),
                docker.types.Ulimit(name="nofile", soft=4096, hard=4096),
            ],
            oom_score_adj=500,
            log_config=docker.types.LogConfig(
                type="json-file", config={"max-size": f"{spec.log_bytes}", "max-file": "2"}
            )
            if spec.log_bytes
            else docker.types.LogConfig(type="none"),
            # With `stdin_once` (implied) the container sees the end of its input when we close ours.
            stdin_open=spec.birth,
            **options,
        )

    def start(self, name: str) -> None:
        """Start a container."""
        self._container(name).start()

    def attach(self, name: str, *, stdin: bool, runs: bool = False) -> Attached:
        """Attach to a container that has not been started, or with what it has said if it `runs`: no byte is missed."""
        params = {"stdin": int(stdin), "stdout": 1, "stderr": 1, "stream": 1, "logs": int(runs)}
        return Attached(self._container(name).attach_socket(params=params))

    def logs(self, name: str, *, stdout: bool = True, stderr: bool = True, tail: int | Literal["all"] = "all") -> bytes:
        """Return what the engine kept of a container's output."""
        return bytes(self._container(name).logs(stdout=stdout, stderr=stderr, tail=tail))

    def wait(self, name: str) -> Exit:
        """Block until a container has ended."""
        container = self._container(name)
        code = int(container.wait(timeout=None)["StatusCode"])
        container.reload()
        return Exit(code=code, out_of_memory=bool(container.attrs["State"].get("OOMKilled")))

    def is_running(self, name: str) -> bool:
        """Tell whether a container runs; False when it does not exist."""
        try:
            return bool(self._container(name).attrs["State"]["Running"])
        except CasemateError:
            return False

    def kill(self, name: str, signal: str = "SIGKILL") -> None:
        """Send a signal; nothing happens when the container is gone."""
        with contextlib.suppress(docker.errors.APIError, CasemateError):
            self._container(name).kill(signal)

    def stop(self, name: str, grace_s: int = 5) -> None:
        """End a container, first politely."""
        with contextlib.suppress(docker.errors.APIError, CasemateError):
            self._container(name).stop(timeout=grace_s)

    def put(self, name: str, archive: bytes | Iterator[bytes]) -> None:
        """Unpack a tar archive, whole or as it comes, at the root of a container."""
        if not self._container(name).put_archive("/", archive):
            raise CasemateError("CSM-R003", f"cannot put files into {name}")

    @contextmanager
    def reading(self, name: str, path: str, limit: int | None = None) -> Iterator[tarfile.TarFile]:
        """Read a file or directory of a container as a tar archive that goes by once, of up to `limit` bytes.

        Raises CSM-R008 when it cannot be read, or is larger.
        """
        try:
            stream, _ = self._container(name).get_archive(path, chunk_size=CHUNK)
        except docker.errors.APIError as error:
            raise CasemateError("CSM-R008", f"{path} cannot be read", place=name) from error
        with tarfile.open(fileobj=Chunks(_bounded(stream, limit, name, path)), mode="r|") as archive:
            yield archive

    def get(self, name: str, directory: str, limit: int) -> bytes:
        """Return a tar archive of a directory of a container. Raises CSM-R008 over `limit` bytes."""
        stream, _ = self._container(name).get_archive(directory, chunk_size=CHUNK)
        return b"".join(_bounded(stream, limit, name, directory))

    # ---- by label

    def labelled(self, run: str | None = None) -> list[dict[str, str]]:
        """Return the labels of every container and volume of Casemate (of one run), with `name` and `kind`."""
        label = LABEL_RUN if run is None else f"{LABEL_RUN}={run}"
        found = [
            {**c.labels, "kind": "container", "name": str(c.name)}
            for c in self._client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        ]
        for volume in self._client.volumes.list(filters={"label": label}):
            labels = volume.attrs.get("Labels") or {}
            found.append({**labels, "kind": "volume", "name": str(volume.name)})
        return found

    def pooled(self, pool: str | None = None) -> list[dict[str, str]]:
        """Return the labels of every container and volume of the pool (of one set), with `name`, `kind` and `state`."""
        label = LABEL_POOL if pool is None else f"{LABEL_POOL}={pool}"
        found = [
            {**c.labels, "kind": "container", "name": str(c.name), "state": str(c.status)}
            for c in self._client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        ]
        for volume in self._client.volumes.list(filters={"label": label}):
            labels = volume.attrs.get("Labels") or {}
            found.append({**labels, "kind": "volume", "name": str(volume.name)})
        return found

    def create_once(self, spec: ContainerSpec) -> bool:
        """Create a container under a name that only one may have; False when somebody has it."""
        try:
            self.create(spec)
        except docker.errors.APIError as error:
            if error.status_code == 409:
                return False
            raise
        return True

    def rename(self, name: str, to: str) -> bool:
        """Rename a container; False when it is not there under that name."""
        try:
            self._client.api.rename(name, to)
        except docker.errors.APIError:
            return False
        return True

    def remove(self, kind: str, name: str) -> bool:
        """Remove a container or a volume by force; True when it is gone."""
        try:
            if kind == "container":
                self._client.api.remove_container(name, force=True, v=True)
            else:
                self._client.api.remove_volume(name, force=True)
        except docker.errors.NotFound:
            return True
        except docker.errors.APIError:
            return False
        return True

    # ---- facts

    @property
    def setting(self) -> str:
        """A digest of what every container gets from here: the seccomp profile and the way out."""
        way_out = {"network": self._way_out.network, "resolvers": list(self._way_out.resolvers)}
        return digest_of({"seccomp": self._seccomp, "way_out": way_out})

    def info(self) -> dict[str, Any]:
        """Return what the engine says of itself."""
        return {**self._info, "Version": self._client.version()}

    @cached_property
    def _info(self) -> dict[str, Any]:
        return dict(self._client.info())

    def inspect(self, name: str) -> dict[str, Any]:
        """Return the engine's whole record of a container."""
        return dict(self._container(name).attrs)

    def _egress_network(self) -> str:
        """Return the operator's network, or the one bridge for firewalls, on which they cannot see each other."""
        if self._way_out.network is not None:
            return self._way_out.network
        try:
            self._client.networks.get(EGRESS_NETWORK)
        except docker.errors.NotFound:
            with contextlib.suppress(docker.errors.APIError):  # somebody else was faster
                self._client.networks.create(
                    EGRESS_NETWORK,
                    driver="bridge",
                    options={"com.docker.network.bridge.enable_icc": "false"},
                    labels={"casemate": "egress"},
                    check_duplicate=True,
                )
        return EGRESS_NETWORK

    def _container(self, name: str) -> Container:
        try:
            return self._client.containers.get(name)
        except docker.errors.NotFound as error:
            raise CasemateError("CSM-R004", f"container {name} is gone", exit_code=ExitCode.STAGE_FAILED) from error


def _bounded(stream: Iterable[bytes], limit: int | None, name: str, path: str) -> Iterator[bytes]:
    total = 0
    for chunk in stream:
        total += len(chunk)
        if limit is not None and total > limit:
            raise CasemateError("CSM-R008", f"{path} is larger than {limit} bytes", place=name)
        yield chunk


def _tmpfs_options(tmpfs: Tmpfs, spec: ContainerSpec) -> str:
    return f"size={tmpfs.size},nr_inodes=16384,uid={spec.uid},gid={spec.gid},mode=0700,nosuid,nodev"

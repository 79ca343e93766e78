"""The outside, made by a test: a bridge with a DNS server that counts queries and an origin that speaks HTTP over TLS.

Runs reach it as a company's runs reach its network: by `CASEMATE_EGRESS_NETWORK`, `CASEMATE_EGRESS_DNS`, a `trust` of
the lab's own authority, and `addresses` of the bridge. Whatever arrives there is told afterwards; nothing else can tell
whether a name that was denied has leaked.

    with OutsideLab({"data.example.com": ["origin"], "inside.example.com": ["169.254.169.254"]}) as outside:
        lab.env |= outside.env
        (lab.folder / "ca.pem").write_bytes(outside.authority)
        lab.run(lab.workflow(AGENT, egress=[{"host": "data.example.com", "addresses": [outside.subnet]}],
                             top={"trust": ["ca.pem"]}))
        outside.requests, outside.queries
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import docker.types
from docker.models.containers import Container

from sandbox.archives import tar_of
from tests.authority import Authority

IMAGE = "casemate/agent-python"
"""Any image with Python does: what runs in it is `outside_servers.py`, with the standard library alone."""

SERVERS = Path(__file__).with_name("outside_servers.py")
START_S = 90.0


class OutsideLab:
    """A bridge with a DNS server and an origin on it, for as long as the `with` lasts.

    `names` are answered by the DNS server: a list of addresses, where "origin" stands for the origin's; with a list of
    lists, one answer after the other (rebinding). Every other name does not exist; all queries are kept.
    `origin` is the program that serves them, `config` what it finds in its config.json, `image` what it needs.
    """

    def __init__(
        self,
        names: Mapping[str, Sequence[str] | Sequence[Sequence[str]]],
        origin: Path = SERVERS,
        config: Mapping[str, object] | None = None,
        image: str = IMAGE,
    ) -> None:
        self._names, self._program, self._config, self._image = names, origin, config or {}, image
        self._client = docker.from_env()
        self._made: list[Container] = []
        self._ca = Authority()

    def __enter__(self) -> Self:
        name = f"casemate-test-outside-{uuid.uuid4().hex[:8]}"
        labels = {"casemate-test": "1"}
        self._network = self._client.networks.create(name, driver="bridge", labels=labels)
        try:
            self._network.reload()
            self.subnet = str(self._network.attrs["IPAM"]["Config"][0]["Subnet"])
            certificate, config = self._ca.server(sorted(self._names)), json.dumps(self._config).encode()
            self._origin = self._run(
                "origin", {"server.pem": certificate, "config.json": config}, self._program, self._image
            )
            address = self._address(self._origin)
            zone = {n: _replaced(answers, address) for n, answers in self._names.items()}
            self._dns = self._run("dns", {"config.json": json.dumps(zone).encode()})
            self.resolver = self._address(self._dns)
            self._await(self._origin)
            self._await(self._dns)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for container in self._made:
            container.remove(force=True, v=True)
        self._network.remove()

    @property
    def env(self) -> dict[str, str]:
        """What tells a host's operator's wish: firewalls of this run are on the lab's network."""
        return {"CASEMATE_EGRESS_NETWORK": str(self._network.name), "CASEMATE_EGRESS_DNS": self.resolver}

    @property
    def network(self) -> str:
        """The name of the bridge, for a control that is on it without protection."""
        return str(self._network.name)

    @property
    def origin(self) -> str:
        """The address of the origin."""
        return self._address(self._origin)

    @property
    def authority(self) -> bytes:
        """The certificate that vouches for the origin, as PEM."""
        return self._ca.pem

    @property
    def queries(self) -> list[str]:
        """Names that were asked for, in order, each with its type, as in `A data.example.com`."""
        return [str(line["query"]) for line in self._told(self._dns) if "query" in line]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Requests that arrived: scheme, name (SNI), method, path, headers (lower case), size of the body."""
        return [line for line in self._told(self._origin) if "method" in line]

    @property
    def told(self) -> list[dict[str, Any]]:
        """Everything that the origin told of, in order."""
        return self._told(self._origin)

    @property
    def connections(self) -> int:
        """TCP connections that arrived at the origin, on any of its ports."""
        return sum("connection" in line for line in self._told(self._origin))

    def ask(self, *words: str, user: str = "0") -> str:
        """Run a program beside the origin's, and return what it prints."""
        code, printed = self._origin.exec_run(list(words), user=user, workdir="/tmp")
        assert isinstance(printed, bytes)
        assert code == 0, printed
        return printed.decode()

    def _run(self, role: str, files: dict[str, bytes], program: Path = SERVERS, image: str = IMAGE) -> Container:
        container = self._client.containers.create(
            image, ["python3", "-u", "/srv/servers.py", role], user="0", network=self._network.name,
            labels={"casemate-test": "1"}, working_dir="/",
        )  # fmt: skip
        self._made.append(container)
        container.put_archive("/srv", tar_of({"servers.py": program.read_bytes(), **files}))
        container.start()
        return container

    def _address(self, container: Container) -> str:
        container.reload()
        return str(container.attrs["NetworkSettings"]["Networks"][self._network.name]["IPAddress"])

    def _await(self, container: Container) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if any("ready" in line for line in self._told(container)):
                return
            time.sleep(0.1)
        raise AssertionError(f"the outside did not start: {container.logs().decode(errors='replace')[-2000:]}")

    @staticmethod
    def _told(container: Container) -> list[dict[str, Any]]:
        lines = container.logs(stdout=True, stderr=False).decode().splitlines()
        return [json.loads(line) for line in lines]


def _replaced(answers: Sequence[str] | Sequence[Sequence[str]], origin: str) -> list[list[str]]:
    rounds = [answers] if all(isinstance(answer, str) for answer in answers) else answers
    return [[origin if address == "origin" else str(address) for address in answer] for answer in rounds]

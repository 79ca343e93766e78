"""Topology: from a plan to the volumes and containers of a run. Pure: it makes specs, the engine executes them.

Every container, trusted or not, has a read-only root, no capability, no new privileges, a seccomp profile and bounds;
the engine gives them all. What differs is written here: who has a network (the firewall alone, and only when the plan
lets something out), who mounts which door, who runs as whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.cells import parted
from policies.plan import Plan, Stage
from policies.slices import Tunnel, server_door, servers_with_egress, sink_tunnels, tool_tunnels, up_door
from policies.vocabulary import Component
from policies.writes import CUSTOMS_CORES
from sandbox.topology.agent_env import agent_env, trust_env, trusts
from sandbox.topology.relays import relay
from sandbox.topology.specs import LABEL_ROLE, MIB, UIDS, ContainerSpec, Mount, Network, Tmpfs, VolumeSpec
from sandbox.topology.tool_cells import ToolCell, door_volume, local_servers, tool_cell, tool_volume

LABEL_RUN = "casemate.run"
LABEL_HOME = "casemate.home"
LABEL_HOST = "casemate.host"
LABEL_POOL = "casemate.pool"

AGENT_UID = 20000
RESULTS = "/artifacts/_tools"
"""Where an agent finds results of tools that were too large; no stage has such a name."""
DOORS = {"egress": Component.FIREWALL, "llm": Component.LLM, "mcp": Component.GATEWAY}
IMAGES = {
    "relay": "casemate/relay",
    "firewall": "casemate/firewall",
    "llm": "casemate/llm",
    "gateway": "casemate/gateway",
    "customs": "casemate/customs",
}
"""The trusted images that every plan pins, beside those of its stages and local models."""
GIT_IMAGE = "casemate/git"
"""The image of who applies to a repository: pinned by plans that have such a sink."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a stage, or a shard of one, needs: volumes, relay, carrier (never started), tool servers, agent."""

    volumes: tuple[VolumeSpec, ...]
    relay: ContainerSpec
    carrier: ContainerSpec
    agent: ContainerSpec
    tools: tuple[ToolCell, ...]

    @property
    def relays(self) -> tuple[ContainerSpec, ...]:
        """The stage's relay, and those of its servers that have one."""
        return self.relay, *(tool.relay for tool in self.tools if tool.relay is not None)


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole run. `volumes` and `trusted` come first; `models` serve local models; `cells`, by name, follow."""

    volumes: tuple[VolumeSpec, ...]
    models: Mapping[str, ContainerSpec]
    trusted: Mapping[Component, ContainerSpec]
    cells: Mapping[str, Cell]
    carrier: ContainerSpec
    customs: ContainerSpec


def topology(
    plan: Plan,
    run: str,
    *,
    home: str,
    host: str,
    cells: Sequence[str] | None = None,
    replays: bool = False,
    pooled: str | None = None,
    owner: str | None = None,
) -> Topology:
    """Lay out the run `run` of `plan`. `home` and `host` say who may sweep what is left of it; without `cells`, it has
    those of every stage.

    A run that `replays` another asks no model, so it has neither a network nor a local model. With the id of a `pooled`
    set, which it has claimed, its trusted containers exist already, and doors and buffer are slots of that set. What is
    laid out for another run, the `owner`, is swept with that.
    """
    stages = {stage.name: stage for stage in plan.stages}
    names = [name for stage in plan.stages for name in stage.cells] if cells is None else cells
    labels = {LABEL_RUN: owner or run, LABEL_HOME: home, LABEL_HOST: host}
    lay = _Layout(plan, run, {name: stages[parted(name)[0]] for name in names}, labels, replays, pooled)
    return Topology(
        volumes=lay.run_volumes(),
        models={m.local: lay.model(m.local) for m in plan.models if m.local and not replays},
        trusted={Component.FIREWALL: lay.firewall(), Component.LLM: lay.llm(), Component.GATEWAY: lay.gateway()},
        cells={name: lay.cell(name) for name in names},
        carrier=lay.carrier(),
        customs=lay.customs(),
    )


class _Layout:
    def __init__(
        self,
        plan: Plan,
        run: str,
        cells: Mapping[str, Stage],
        labels: dict[str, str],
        replays: bool,
        pooled: str | None = None,
    ) -> None:
        self._plan, self._run, self._cells, self._labels, self._replays = plan, run, cells, labels, replays
        self._pooled = pooled
        self._images = {image.name: image.digest for image in plan.images}

    def name(self, part: str) -> str:
        return f"casemate-{self._run}-{part}"

    def memory(self, part: str, owner: str, *, size: int = MIB) -> VolumeSpec:
        """A volume in memory that only `owner` writes and the doors' group may enter."""
        return VolumeSpec(name=self.name(part), labels=self._labels, size=size, uid=UIDS[owner])

    def results(self, cell: str) -> VolumeSpec:
        """Where results of tools are that are too large for an answer: the gateway writes, and the agent reads."""
        size, mode = 16 * MIB, 0o755
        return VolumeSpec(
            name=self.name(f"{cell}-results"), labels=self._labels, size=size, uid=UIDS["gateway"], mode=mode
        )

    def disk(self, part: str) -> VolumeSpec:
        return VolumeSpec(name=self.name(part), labels=self._labels)

    def _door(self, cell: str, door: str) -> str:
        """Return the volume of a cell's door."""
        if self._pooled is None:
            return self.name(f"{cell}-{door}")
        return slot(self._pooled, f"{door}-{list(self._cells).index(cell)}")

    def run_volumes(self) -> tuple[VolumeSpec, ...]:
        if self._pooled is not None:
            return self.disk("customs-in"), self.disk("customs-out")
        doors = [self.memory(f"{cell}-{door}", owner.value) for cell in self._cells for door, owner in DOORS.items()]
        ups = [self.memory(up_door(m.alias), "firewall") for m in self._plan.models]
        models = [self.memory(f"model-{m.local}", "model") for m in self._plan.models if m.local]
        ups += [self.memory(tunnel.door, "firewall") for tunnel in _tunnels(self._plan)]
        tools = [volume for cell in self._cells for tool in self.tools(cell) for volume in tool.sockets]
        tools += [self.results(cell) for cell, stage in self._cells.items() if stage.tools]
        kept = [self.disk(part) for part in ("buffer", "customs-in", "customs-out", "recording")]
        return (*doors, *ups, *models, *tools, *kept)

    def carrier(self) -> ContainerSpec:
        """Never started: through it the engine's archive API reads and writes the run's volumes."""
        targets = {"/in": self.name("customs-in"), "/out": self.name("customs-out")}
        for part in ("buffer", "recording"):
            targets[f"/{part}"] = self.name(part) if self._pooled is None else slot(self._pooled, part)
        return ContainerSpec(
            name=self.name("carrier"),
            role="carrier",
            image=self._images[IMAGES["relay"]],
            uid=UIDS["relay"],
            mounts=tuple(Mount(volume, target, read_only=False) for target, volume in targets.items()),
            labels={**self._labels, LABEL_ROLE: "carrier"},
            runs=False,
        )

    def _stage_doors(self, door: str) -> list[Mount]:
        return [Mount(self.name(f"{cell}-{door}"), f"/doors/{cell}", read_only=False) for cell in self._cells]

    def _trusted(self, component: Component, mounts: list[Mount], **more: object) -> ContainerSpec:
        role = component.value
        return trusted(component, self.name(role), self._images[IMAGES[role]], self._labels, mounts, **more)

    def firewall(self) -> ContainerSpec:
        mounts = self._stage_doors("egress")
        mounts += [
            Mount(self.name(up_door(m.alias)), f"/doors/{up_door(m.alias)}", read_only=False) for m in self._plan.models
        ]
        mounts += [
            Mount(self.name(f"model-{m.local}"), f"/models/{m.local}", read_only=False)
            for m in self._plan.models
            if m.local
        ]
        mounts += [
            Mount(
                door_volume(self.name(""), cell, tool.name), f"/doors/{server_door(cell, tool.name)}", read_only=False
            )
            for cell, stage in self._cells.items()
            for owner, tool in servers_with_egress(self._plan)
            if owner == stage
        ]
        mounts += self._tool_ups()
        network = network_of(self._plan) if not self._replays else Network.NONE
        return self._trusted(Component.FIREWALL, mounts, network=network)

    def _tool_ups(self) -> list[Mount]:
        doors = [tunnel.door for tunnel in _tunnels(self._plan)]
        return [Mount(self.name(door), f"/doors/{door}", read_only=False) for door in doors]

    def llm(self) -> ContainerSpec:
        mounts = self._stage_doors("llm")
        mounts += [
            Mount(self.name(up_door(m.alias)), f"/doors/{up_door(m.alias)}", read_only=False) for m in self._plan.models
        ]
        mounts.append(Mount(self.name("recording"), "/recording", read_only=self._replays))
        return self._trusted(Component.LLM, mounts)

    def gateway(self) -> ContainerSpec:
        mounts = [*self._stage_doors("mcp"), Mount(self.name("buffer"), "/buffer", read_only=False)]
        mounts += self._tool_ups()
        mounts += [
            Mount(tool_volume(self.name(""), cell, tool.name), f"/tools/{cell}/{tool.name}", read_only=True)
            for cell, stage in self._cells.items()
            for tool in local_servers(self._plan, stage)
        ]
        for cell, stage in self._cells.items():
            if stage.tools:
                mounts.append(Mount(self.results(cell).name, f"/results/{cell}", read_only=False))
        return self._trusted(Component.GATEWAY, mounts)

    def customs(self) -> ContainerSpec:
        mounts = [
            Mount(self.name("customs-in"), "/in", read_only=True),
            Mount(self.name("customs-out"), "/out", read_only=False),
        ]
        return self._trusted(Component.CUSTOMS, mounts, memory=1024 * MIB, cpu_millis=CUSTOMS_CORES * 1000)

    def model(self, local: str) -> ContainerSpec:
        return ContainerSpec(
            name=self.name(f"model-{local}"),
            role="model",
            image=self._images[f"casemate/model-{local}"],
            uid=UIDS["model"],
            command=(local,),
            mounts=(Mount(self.name(f"model-{local}"), f"/models/{local}", read_only=False),),
            tmpfs=(Tmpfs("/tmp", 16 * MIB),),  # noqa: S108
            env={"HOME": "/tmp"},  # noqa: S108
            labels={**self._labels, LABEL_ROLE: "model"},
            cpu_millis=2000,
            memory=2048 * MIB,
        )

    def cell(self, part: str) -> Cell:
        stage = self._cells[part]
        workspace = self.name(f"{part}-workspace")
        loads = {target: self.name(f"{part}-{target}") for target in ("inputs", "artifacts", "casemate")}
        limits = stage.limits
        tools = self.tools(part)
        doors = [Mount(self._door(part, door), f"/doors/{door}", read_only=True) for door in DOORS]
        # Nothing reads it here: as long as the relay runs, the memory behind the workspace stays.
        held = Mount(workspace, "/hold/workspace", read_only=True)
        ours = relay(
            self.name(f"{part}-relay"), self._images[IMAGES["relay"]], self._labels, [*doors, held], limits.wall_s
        )
        carrier = ContainerSpec(
            name=self.name(f"{part}-carrier"),
            role="carrier",
            image=self._images[IMAGES["relay"]],
            uid=UIDS["relay"],
            mounts=(
                *(Mount(volume, f"/{target}", read_only=False) for target, volume in loads.items()),
                Mount(workspace, "/workspace", read_only=False),
                *(Mount(v.name, target, read_only=False) for tool in tools for target, v in tool.loads.items()),
            ),
            labels={**self._labels, LABEL_ROLE: "carrier"},
            runs=False,
        )
        scratch = min(64 * MIB, limits.disk)
        agent = ContainerSpec(
            name=self.name(f"{part}-agent"),
            role="agent",
            image=self._images[stage.image],
            uid=AGENT_UID,
            gid=AGENT_UID,
            command=tuple(stage.run),
            workdir="/workspace",
            network=ours.name,
            mounts=(
                *(Mount(volume, f"/{target}", read_only=True) for target, volume in loads.items()),
                Mount(workspace, "/workspace", read_only=False),
                *([Mount(self.results(part).name, RESULTS, read_only=True)] if stage.tools else []),
            ),
            tmpfs=(Tmpfs("/tmp", scratch),),  # noqa: S108
            env={
                **stage.env,
                **agent_env(self._run, part),
                **(trust_env() if trusts(self._plan, stage.egress) else {}),
            },
            labels={**self._labels, LABEL_ROLE: "agent"},
            cpu_millis=limits.cpu_millis,
            # What lies in /workspace and /tmp is memory, and is charged to the agent.
            memory=limits.memory + limits.disk + scratch,
            pids=limits.pids,
            log_bytes=8 * MIB,
            # An agent starts what it likes; somebody has to reap it.
            init=True,
        )
        volumes = (
            VolumeSpec(
                name=workspace,
                labels=self._labels,
                size=limits.disk,
                inodes=65536,
                uid=AGENT_UID,
                gid=AGENT_UID,
                mode=0o700,
            ),
            *(VolumeSpec(name=volume, labels=self._labels) for volume in loads.values()),
            *(volume for tool in tools for volume in tool.loads.values()),
        )
        return Cell(volumes=volumes, relay=ours, carrier=carrier, agent=agent, tools=tools)

    def tools(self, cell: str) -> tuple[ToolCell, ...]:
        stage = self._cells[cell]
        return tuple(
            tool_cell(self.name(""), self._plan, stage, cell, server, self._images, self._labels)
            for server in local_servers(self._plan, stage)
        )


COMMANDS = {
    Component.FIREWALL: ("python3", "-m", "proxy", "egress"),
    Component.LLM: ("python3", "-m", "proxy", "llm"),
    Component.GATEWAY: ("python3", "-m", "gateway", "serve"),
    Component.CUSTOMS: ("python3", "-m", "gateway", "customs"),
}


def trusted(
    component: Component, name: str, image: str, labels: Mapping[str, str], mounts: Sequence[Mount], **more: object
) -> ContainerSpec:
    """Return a trusted container, for a run or for a pool."""
    state = (Tmpfs("/state", 64 * MIB),) if component is Component.LLM else ()
    fields: dict[str, object] = {
        "tmpfs": (Tmpfs("/tmp", 16 * MIB), *state),  # noqa: S108 - a private file system of the container
        **more,
    }
    return ContainerSpec(
        name=name,
        role=component.value,
        image=image,
        uid=UIDS[component.value],
        command=COMMANDS[component],
        workdir="/opt/app",
        mounts=tuple(mounts),
        env={"HOME": "/tmp"},  # noqa: S108
        labels={**labels, LABEL_ROLE: component.value},
        birth=True,
        **fields,  # type: ignore[arg-type]
    )


def network_of(plan: Plan) -> Network:
    """Return the firewall's network: none unless the plan lets something out."""
    outside = any(stage.egress for stage in plan.stages) or any(not model.local for model in plan.models)
    outside = outside or bool(servers_with_egress(plan) or _tunnels(plan))
    return Network.EGRESS if outside else Network.NONE


def _tunnels(plan: Plan) -> list[Tunnel]:
    return tool_tunnels(plan) + sink_tunnels(plan)


def slot(pooled: str, part: str) -> str:
    """Return the name of a volume of a pooled set."""
    return f"casemate-pool-{pooled}-{part}"

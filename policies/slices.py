"""Slices: each trusted process gets its part of the plan, and can prove that it is a part of that plan.

The plan's digest is taken over the digest of the plan document and the digest of every slice cut from it:

    plan digest = sha256({"body": sha256(plan), "slices": sha256({component: sha256(slice)})})

A process gets the digest, the two inner levels (`Seal`) and its own slice, nothing else, and refuses to start when
one byte of any of them differs.
"""

from __future__ import annotations

from typing import Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from policies.canonical import digest, digest_of, merkle
from policies.errors import CasemateError
from policies.plan import (
    Budget,
    Count,
    Digest,
    EgressRule,
    Frozen,
    Limits,
    Model,
    Name,
    Output,
    Plan,
    Port,
    Stage,
    Tool,
    ToolRule,
    body_digest,
    decode,
    encode,
)
from policies.vocabulary import Component


class StageEgress(Frozen, frozen=True, kw_only=True):
    """The egress door of one stage, or of one MCP `server` of a stage, which is somebody else and has rules of its own.

    A proxy speaks HTTP on /doors/<door>/egress.sock; a `tcp` rule is a socket beside it, /doors/<door>/<port>.sock.
    The door is named after the cell, or by `server_door`. `shards`: how many cells the stage has, if it is in parts.
    """

    stage: Name
    shards: Count | None = None
    server: Name | None = None
    rules: list[EgressRule]
    max_connections: Count


class Tunnel(Frozen, frozen=True, kw_only=True):
    """A door of a trusted process that leads to exactly one destination, at /doors/<door>/up.sock.

    With `local`, the destination is the socket /models/<local>/model.sock and no network is involved; otherwise it is
    `host`:`port`, whose ClientHello must name `host`.
    """

    door: str
    holder: Name
    host: str
    port: Port
    local: str | None
    addresses: list[str] = msgspec.field(default_factory=list)


class FirewallSlice(Frozen, frozen=True, kw_only=True):
    """What the firewall may let out."""

    version: int
    stages: list[StageEgress]
    tunnels: list[Tunnel]
    trust: list[str]


class StageModels(Frozen, frozen=True, kw_only=True):
    """The LLM door of one stage, at /doors/<cell>/llm.sock."""

    stage: Name
    shards: Count | None = None
    models: list[Name]
    limits: Limits
    cache: Literal["none", "exact"]


class LlmSlice(Frozen, frozen=True, kw_only=True):
    """Which alias leads where, at which price, and under which ceilings; its tunnel is /doors/up-<alias>/up.sock."""

    version: int
    budget: Budget
    models: list[Model]
    stages: list[StageModels]
    trust: list[str]


class StageWrites(Frozen, frozen=True, kw_only=True):
    """The MCP door of one stage, at /doors/<cell>/mcp.sock."""

    stage: Name
    shards: Count | None = None
    outputs: list[Name]
    tools: dict[str, list[str]]
    tool_rules: list[ToolRule] = msgspec.field(default_factory=list)
    resources: dict[str, list[str]] = msgspec.field(default_factory=dict)
    prompts: dict[str, list[str]] = msgspec.field(default_factory=dict)


class GatewaySlice(Frozen, frozen=True, kw_only=True):
    """Which outputs a stage may propose, and which tools it may call.

    A container's standard streams are at /tools/<cell>/<server>/stdio.sock, the tunnel of a remote server at
    /doors/up-tool.<server>/up.sock.
    """

    version: int
    stages: list[StageWrites]
    outputs: list[Output]
    servers: list[Tool]
    trust: list[str]


class CustomsSlice(Frozen, frozen=True, kw_only=True):
    """What is checked, and where it goes. Who applies has one output, and the server that is its sink, if one is."""

    version: int
    outputs: list[Output]
    servers: list[Tool] = msgspec.field(default_factory=list)
    trust: list[str] = msgspec.field(default_factory=list)


Slice = FirewallSlice | LlmSlice | GatewaySlice | CustomsSlice
S = TypeVar("S", FirewallSlice, LlmSlice, GatewaySlice, CustomsSlice)

SLICE_VERSION = 1
MAX_CONNECTIONS = 256


class Seal(Frozen, frozen=True, kw_only=True):
    """Proof that a slice belongs to a plan."""

    plan: Digest
    body: Digest
    slices: dict[str, Digest]


class Birth(Frozen, frozen=True, kw_only=True):
    """The one message that a trusted process reads from its standard input, as JSON: all that it will ever be told.

    `slice` is the canonical JSON text of the slice; `secrets` are those that this process alone holds, by name;
    `facts` are what the run knows besides the plan: who faces agents gets, as `cells`, the names of those that it will
    meet; customs gets, as `buffer/<cell>`, the digest of the last line of that cell's write buffer, as the event log
    has it; the llm proxy gets `recording`: `write` or `read`. In a run that goes on, it also gets as `spent/<stage>`
    the calls, tokens and nano-USD so far, and the gateway `used/<output>` (rows and bytes of cells that completed) and
    `proposals/<cell>` (how many).
    """

    run: str
    seal: Seal
    slice: str
    secrets: dict[str, str]
    facts: dict[str, str] = msgspec.field(default_factory=dict)


SINK_STAGE = "sink"
"""The stage of the plan by which a sink is applied: no agent, and the sink's rules and servers."""


def up_door(alias: str) -> str:
    """Return the name of the tunnel door through which the llm proxy reaches the model `alias`."""
    return f"up-{alias}"


def server_door(cell: str, server: str) -> str:
    """Return the name of the egress door of a cell's MCP server that runs in a container; no cell has such a name."""
    return f"{cell}.{server}"


def tool_door(server: str) -> str:
    """Return the name of the tunnel door through which the gateway reaches the remote MCP server `server`."""
    return f"up-tool.{server}"


def token_door(server: str) -> str:
    """Return the name of the tunnel door through which the gateway gets its tokens for that server."""
    return f"up-token.{server}"


def servers_with_egress(plan: Plan) -> list[tuple[Stage, Tool]]:
    """Return each server in a container that may connect somewhere, with the stage whose it is."""
    return [
        (stage, tool)
        for stage in plan.stages
        for tool in plan.tools
        if tool.name in stage.tools and tool.image is not None and tool.egress
    ]


def remote_servers(plan: Plan) -> list[Tool]:
    """Return the servers elsewhere that some stage uses."""
    return [tool for tool in plan.tools if tool.url is not None and any(tool.name in s.tools for s in plan.stages)]


def tool_tunnels(plan: Plan) -> list[Tunnel]:
    """Return the gateway's tunnels: one to each remote server, and one to where it gets its tokens."""
    tools = remote_servers(plan)
    return [
        *(_tunnel(tool_door(t.name), Component.GATEWAY, t.url or "", t.addresses) for t in tools),
        *(_tunnel(token_door(t.name), Component.GATEWAY, t.oauth.token_url, t.addresses) for t in tools if t.oauth),
    ]


def applied(plan: Plan) -> list[Output]:
    """Return the outputs that `plan` applies: those that no stage proposes. In a compiled plan there is none."""
    proposed = {name for stage in plan.stages for name in stage.outputs}
    return [output for output in plan.outputs if output.name not in proposed]


def sink_servers(plan: Plan) -> set[str]:
    """Return the names of the servers that are sinks: who faces agents does not know them."""
    return {output.target["server"] for output in plan.outputs if output.sink == "mcp"}


def sink_door(output: str) -> str:
    """Return the name of the tunnel door through which the sink of an output is reached."""
    return f"up-sink.{output}"


def api_door(output: str) -> str:
    """Return the name of the tunnel door through which the API of an output's forge is reached."""
    return f"up-api.{output}"


def sink_tunnels(plan: Plan) -> list[Tunnel]:
    """Return the tunnels to sinks with a URL, for who applies. A plan with agents has none."""
    places = [
        (sink_door(output.name), output.target["repository" if output.sink == "git" else "url"], output.addresses)
        for output in applied(plan)
        if output.sink in ("http", "git", "mlflow")
    ]
    places += [
        (api_door(output.name), output.git.pull_request.api, output.addresses)
        for output in applied(plan)
        if output.git is not None and output.git.pull_request is not None
    ]
    return [_tunnel(door, Component.CUSTOMS, url, addresses) for door, url, addresses in places]


def _tunnel(door: str, holder: Component, text: str, addresses: list[str]) -> Tunnel:
    url = urlsplit(text)
    return Tunnel(
        door=door, holder=holder.value, host=url.hostname or "", port=url.port or 443, local=None, addresses=addresses
    )


def slices(plan: Plan) -> dict[Component, Slice]:
    """Cut the plan into the parts of the four trusted processes."""
    return {
        Component.FIREWALL: FirewallSlice(
            version=SLICE_VERSION,
            stages=[
                StageEgress(stage=stage.name, shards=_count(stage), rules=stage.egress, max_connections=MAX_CONNECTIONS)
                for stage in plan.stages
            ]
            + [
                StageEgress(
                    stage=stage.name,
                    shards=_count(stage),
                    server=tool.name,
                    rules=tool.egress,
                    max_connections=MAX_CONNECTIONS,
                )
                for stage, tool in servers_with_egress(plan)
            ],
            tunnels=[
                Tunnel(
                    door=up_door(m.alias),
                    holder=Component.LLM.value,
                    host=m.host,
                    port=m.port,
                    local=m.local,
                    addresses=m.addresses,
                )
                for m in plan.models
            ]
            + tool_tunnels(plan)
            + sink_tunnels(plan),
            trust=plan.trust,
        ),
        Component.LLM: LlmSlice(
            version=SLICE_VERSION,
            budget=plan.budget,
            models=plan.models,
            stages=[
                StageModels(stage=s.name, shards=_count(s), models=s.models, limits=s.limits, cache=s.cache)
                for s in plan.stages
            ],
            trust=plan.trust,
        ),
        Component.GATEWAY: GatewaySlice(
            version=SLICE_VERSION,
            stages=[
                StageWrites(
                    stage=s.name,
                    shards=_count(s),
                    outputs=s.outputs,
                    tools=s.tools,
                    tool_rules=s.tool_rules,
                    resources=s.resources,
                    prompts=s.prompts,
                )
                for s in plan.stages
            ],
            outputs=plan.outputs,
            servers=[tool for tool in plan.tools if tool.name not in sink_servers(plan)],
            trust=plan.trust,
        ),
        Component.CUSTOMS: CustomsSlice(
            version=SLICE_VERSION,
            outputs=plan.outputs,
            servers=plan.tools if applied(plan) else [],
            trust=plan.trust if applied(plan) else [],
        ),
    }


def _count(stage: Stage) -> int | None:
    return stage.shards.count if stage.shards is not None else None


def seal(plan: Plan) -> Seal:
    """Return the plan's seal; `seal(plan).plan` is the plan's digest."""
    body = body_digest(plan)
    parts = {component.value: digest(encode(part)) for component, part in slices(plan).items()}
    return Seal(plan=_root(body, parts), body=body, slices=parts)


def open_slice(birth: Birth, component: Component, kind: type[S]) -> S:
    """Return the verified slice of `component`; raise CSM-R010 when anything differs from what the seal promises."""

    def refuse(why: str) -> CasemateError:
        return CasemateError(
            "CSM-R010", why, place=component.value, hint="compile the workflow again and run the new plan"
        )

    if _root(birth.seal.body, birth.seal.slices) != birth.seal.plan:
        raise refuse("the seal does not match the plan's digest")
    if digest(birth.slice.encode()) != birth.seal.slices.get(component.value):
        raise refuse("the slice does not match the seal")
    part = decode(birth.slice.encode(), kind, code="CSM-R010", place=component.value)
    if part.version != SLICE_VERSION:
        raise refuse(f"slice version {part.version} is not {SLICE_VERSION}")
    return part


def read_birth(data: bytes, component: Component) -> Birth:
    """Parse the birth message; raise CSM-R010 on anything unexpected."""
    try:
        return msgspec.json.decode(data, type=Birth)
    except msgspec.MsgspecError as error:
        raise CasemateError("CSM-R010", f"birth message refused: {error}", place=component.value) from error


def _root(body: str, parts: dict[str, str]) -> str:
    return digest_of({"body": body, "slices": merkle(parts)})

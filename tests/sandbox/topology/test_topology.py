"""Who has a network, who mounts what, who runs as whom."""

from __future__ import annotations

from typing import Any

import msgspec

from policies.plan import Shards, Tool
from policies.vocabulary import Component
from sandbox.topology.layout import Cell, Topology, topology
from sandbox.topology.specs import ContainerSpec, Network
from tests.plans import plan


def with_server(**changes: Any) -> Topology:
    """A run whose stage `one` has an MCP server that may connect and has a secret; `changes` are the server's."""
    base = plan()
    rule = msgspec.structs.replace(base.stages[0].egress[0], host="db.example.com", port=5432, scheme="tcp")
    made: dict[str, Any] = {"name": "db", "image": "casemate/agent-python", "url": None, "secret": "password"}
    made |= {"egress": [rule], "run": ["serve"], "secret_env": "PGPASSWORD", **changes}
    one, two = base.stages
    return lay(tools=[Tool(**made)], stages=[msgspec.structs.replace(one, tools={"db": ["query"]}), two])


def test_a_server_that_connects_does_so_from_a_cell_of_its_own() -> None:
    top = with_server()
    (tool,) = top.cells["one"].tools
    assert tool.relay is not None
    assert (tool.tool.network, tool.relay.network) == (tool.relay.name, Network.NONE)
    assert tool.relay.env == {"PORT_0": "5432"}
    doors = {name: {m.volume for m in cell.relay.mounts} for name, cell in top.cells.items()}
    mine = {m.volume for m in tool.relay.mounts}
    assert not mine & (doors["one"] | doors["two"])
    firewall = {m.volume: m.target for m in top.trusted[Component.FIREWALL].mounts}
    (door,) = mine & firewall.keys()
    assert firewall[door] == "/doors/one.db"
    assert top.cells["two"].tools == ()


def test_a_server_without_egress_or_secret_has_no_network_at_all() -> None:
    (tool,) = with_server(egress=[], secret=None, secret_env=None).cells["one"].tools
    assert tool.relay is None
    assert tool.tool.network is Network.NONE
    assert "HTTPS_PROXY" not in tool.tool.env


def test_a_servers_secret_is_in_memory_and_mounted_where_only_it_can_read_it() -> None:
    top = with_server(egress=[])
    (tool,) = top.cells["one"].tools
    volume = tool.loads[tool.secrets_at]
    assert volume.size is not None
    assert (volume.uid, volume.mode) == (tool.tool.uid, 0o500)
    others = [*everything(top), tool.bridge]
    holders = {spec.role for spec in others for mount in spec.mounts if mount.volume == volume.name}
    assert holders == {"carrier"}  # which never runs
    assert tool.relay is not None
    assert tool.relay.uid != volume.uid
    assert [m.target for m in tool.tool.mounts if m.volume == volume.name and m.read_only] == ["/run/secrets"]
    assert tool.tool.entrypoint[-2:] == ("PGPASSWORD", "/run/secrets/password")
    assert tool.tool.log_bytes == tool.bridge.log_bytes == 0


def lay(**changes: object) -> Topology:
    return topology(msgspec.structs.replace(plan(), **changes), "r1", home="/h", host="here")


def everything(top: Topology) -> list[ContainerSpec]:
    cells = [spec for cell in top.cells.values() for spec in (cell.relay, cell.carrier, cell.agent)]
    return [*cells, *top.trusted.values(), *top.models.values(), top.customs, top.carrier]


def test_only_the_firewall_has_a_network() -> None:
    top = lay()
    networks = {spec.role: spec.network for spec in everything(top) if spec.role != "agent"}
    assert networks.pop("firewall") is Network.EGRESS
    assert set(networks.values()) == {Network.NONE}


def test_not_even_the_firewall_has_one_when_the_plan_lets_nothing_out() -> None:
    base = plan()
    stages = [msgspec.structs.replace(stage, egress=[], models=[]) for stage in base.stages]
    top = lay(stages=stages, models=[m for m in base.models if m.local], secrets=[])
    assert top.trusted[Component.FIREWALL].network is Network.NONE


def test_an_agent_joins_its_own_relay_and_mounts_no_door() -> None:
    top = lay()
    for name, cell in top.cells.items():
        assert cell.agent.network == cell.relay.name
        assert name in cell.relay.name
        mounted = {mount.target for mount in cell.agent.mounts}
        assert mounted == {"/inputs", "/artifacts", "/casemate", "/workspace"}
        assert {mount.target for mount in cell.agent.mounts if not mount.read_only} == {"/workspace"}


def test_no_relay_mounts_a_door_of_another_stage() -> None:
    top = lay()
    doors = {name: {m.volume for m in cell.relay.mounts} for name, cell in top.cells.items()}
    assert not doors["one"] & doors["two"]


def test_shards_share_no_volume_but_with_trusted_processes() -> None:
    base = plan()
    shards = Shards(over="seeds", size=1, parallel=2, count=3)
    one = msgspec.structs.replace(base.stages[0], shards=shards)
    top = lay(stages=[one, base.stages[1]])
    assert list(top.cells) == ["one.0", "one.1", "one.2", "two"]
    mine = [{m.volume for spec in (c.relay, c.carrier, c.agent) for m in spec.mounts} for c in top.cells.values()]
    assert len(set.union(*mine)) == sum(map(len, mine))
    assert [cell.agent.network for cell in top.cells.values()] == [cell.relay.name for cell in top.cells.values()]
    agent = top.cells["one.2"].agent
    assert (agent.env["CASEMATE_STAGE"], agent.env["CASEMATE_SHARD"]) == ("one", "2")
    assert "CASEMATE_SHARD" not in top.cells["two"].agent.env
    gateway = {m.target for m in top.trusted[Component.GATEWAY].mounts}
    assert {"/doors/one.0", "/doors/one.2", "/doors/two"} <= gateway


def test_a_leg_has_doors_for_its_own_cells_alone() -> None:
    top = topology(plan(), "r1", home="/h", host="here", cells=["two"])
    assert list(top.cells) == ["two"]
    doors = {m.target for m in top.trusted[Component.LLM].mounts if "up-" not in m.target}
    assert doors == {"/doors/two", "/recording"}


def test_nobody_is_root_and_agents_share_no_group_with_doors() -> None:
    top = lay()
    for spec in everything(top):
        assert spec.uid != 0
        assert spec.gid != 0
    uids = {spec.role: spec.uid for spec in everything(top) if spec.runs}
    assert len(set(uids.values())) == len(uids)
    agent = top.cells["one"].agent
    assert agent.gid != top.cells["one"].relay.gid


def test_only_carriers_do_not_run_and_only_trusted_processes_are_born_with_a_message() -> None:
    for spec in everything(lay()):
        assert spec.runs == (spec.role != "carrier")
        assert spec.birth == (spec.role in {"firewall", "llm", "gateway", "customs"})


def test_no_environment_holds_a_secret() -> None:
    for spec in everything(lay()):
        for key, value in spec.env.items():
            assert not key.endswith("_KEY") or value == "casemate-placeholder-not-a-key"


def test_everything_is_labelled_for_the_sweep_and_bounded() -> None:
    top = lay()
    for spec in everything(top):
        assert spec.labels["casemate.run"] == "r1"
        assert spec.memory > 0
        assert spec.cpu_millis > 0
        assert spec.pids > 0
        assert spec.log_bytes > 0
    cells: list[Cell] = list(top.cells.values())
    volumes = [*top.volumes, *(volume for cell in cells for volume in cell.volumes)]
    assert all(volume.labels["casemate.run"] == "r1" for volume in volumes)
    assert len({volume.name for volume in volumes}) == len(volumes)
    mounted = {mount.volume for spec in everything(top) for mount in spec.mounts}
    assert mounted == {volume.name for volume in volumes}

"""Layout of pooled sets: slots are as separate as doors are, and what a process is told is what a relay mounts."""

from __future__ import annotations

import msgspec
import pytest

from policies.plan import Plan
from policies.vocabulary import Component
from sandbox.engine.pool import CELLS, CLAIM, MODELS, ROLES, claim, fit, members, pool_set, pooled_name, slots
from sandbox.topology.layout import DOORS, IMAGES, slot, topology
from sandbox.topology.specs import ContainerSpec, Network
from tests.plans import plan

SET = "0a1b2c3d"
DIGESTS = dict.fromkeys(IMAGES.values(), "sha256:" + "1" * 64)


def test_only_the_firewall_of_a_set_has_a_network_and_only_if_asked() -> None:
    for network in (Network.EGRESS, Network.NONE):
        _, containers = pool_set(SET, DIGESTS, network, home="/h", host="here")
        assert {spec.role: spec.network for spec in containers} == {
            "firewall": network,
            "llm": Network.NONE,
            "gateway": Network.NONE,
        }


def test_a_slot_is_a_volume_of_its_own_that_only_its_owner_writes() -> None:
    volumes, containers = pool_set(SET, DIGESTS, Network.NONE, home="/h", host="here")
    assert len({volume.name for volume in volumes}) == len(volumes) == CELLS * len(DOORS) + MODELS + 2
    owners = {volume.name: volume.uid for volume in volumes if volume.size is not None}
    assert len(owners) == CELLS * len(DOORS) + MODELS
    for spec in containers:
        stage_slots = [
            m.volume for m in spec.mounts if not m.target.startswith(("/slots/up-", "/buffer", "/recording"))
        ]
        assert len(stage_slots) == CELLS
        assert {owners[name] for name in stage_slots} == {spec.uid}
        assert spec.birth
        assert spec.labels["casemate.pool"] == SET


def test_a_relay_mounts_its_own_slots_and_processes_are_told_the_same() -> None:
    of = plan()
    top = topology(of, "r1", home="/h", host="here", pooled=SET)
    told = {c: dict(pair.split("=") for pair in text.split()) for c, text in slots(of, names_of(of)).items()}
    taken: set[str] = set()
    for name, cell in top.cells.items():
        doors = {m.target: m.volume for m in cell.relay.mounts if m.target.startswith("/doors/")}
        assert doors == {f"/doors/{d}": f"casemate-pool-{SET}-{told[c][name]}" for d, c in DOORS.items()}
        assert not taken & set(doors.values())
        taken |= set(doors.values())
    ups = {door: slot for door, slot in told[Component.FIREWALL].items() if door.startswith("up-")}
    assert len(ups) == len(of.models)
    assert ups.items() <= told[Component.LLM].items()
    assert not ups.keys() & told[Component.GATEWAY].keys()


def test_a_run_with_a_set_makes_no_door_of_its_own() -> None:
    cold = topology(plan(), "r1", home="/h", host="here")
    warm = topology(plan(), "r1", home="/h", host="here", pooled=SET)
    assert {v.name for v in warm.volumes} == {"casemate-r1-customs-in", "casemate-r1-customs-out"}
    assert {s.name for s in warm.trusted.values()} == {s.name for s in cold.trusted.values()}
    mounted = {m.target: m.volume for m in warm.carrier.mounts}
    assert mounted["/buffer"] == f"casemate-pool-{SET}-buffer"
    assert mounted["/recording"] == f"casemate-pool-{SET}-recording"


class Shelf:
    """What an engine has of the pool, in memory: the few verbs that claiming needs."""

    setting = "s"

    def __init__(self, *sets: str, network: Network = Network.EGRESS) -> None:
        self.things: list[dict[str, str]] = []
        self.lost: set[str] = set()
        for name in sets:
            fits = fit(self, DIGESTS, network)  # type: ignore[arg-type]
            labels = {"casemate.pool": name, "casemate.fit": fits}
            self.things.append({**labels, "kind": "volume", "name": slot(name, "buffer")})
            for role in ROLES:
                named = {"name": pooled_name(name, role.value), "casemate.role": role.value}
                self.things.append({**labels, **named, "kind": "container", "state": "running"})

    def pooled(self, pool: str | None = None) -> list[dict[str, str]]:
        return [dict(t) for t in self.things if pool in (None, t["casemate.pool"])]

    def create_once(self, spec: ContainerSpec) -> bool:
        if any(t["name"] == spec.name for t in self.things):
            return False
        self.things.append({**spec.labels, "kind": "container", "name": spec.name, "state": "created"})
        return True

    def rename(self, name: str, to: str) -> bool:
        if name in self.lost:
            return False
        found = [t for t in self.things if t["name"] == name]
        for thing in found:
            thing["name"] = to
        return bool(found)

    def is_running(self, name: str) -> bool:
        return any(t["name"] == name and t.get("state") == "running" for t in self.things)

    def remove(self, kind: str, name: str) -> bool:
        self.things = [t for t in self.things if (t["kind"], t["name"]) != (kind, name)]
        return True


def names_of(of: Plan) -> list[str]:
    return [stage.name for stage in of.stages]


def claimed(shelf: Shelf, run: str = "r1", **changes: object) -> str | None:
    base = msgspec.structs.replace(plan(), models=[m for m in plan().models if not m.local], **changes)
    images = [msgspec.structs.replace(i, digest=DIGESTS.get(i.name, i.digest)) for i in base.images]
    of = msgspec.structs.replace(base, images=images)
    return claim(shelf, of, names_of(of), run, {})  # type: ignore[arg-type]


def test_a_set_is_claimed_once() -> None:
    shelf = Shelf("a", "b")
    assert [claimed(shelf, run) for run in ("r1", "r2", "r3")] == ["a", "b", None]
    assert {t["name"] for t in shelf.pooled("a") if t["kind"] == "container"} == {
        f"{CLAIM}a",
        *(f"casemate-r1-{role.value}" for role in ROLES),
    }


def test_a_set_of_another_network_image_or_size_is_not_claimed() -> None:
    assert claimed(Shelf("a", network=Network.NONE)) is None
    other = Shelf("a")
    other.setting = "another profile"
    assert claimed(other) is None
    stages = [msgspec.structs.replace(plan().stages[0], name=f"s{n}", needs=[]) for n in range(CELLS + 1)]
    assert claimed(Shelf("a"), stages=stages) is None
    assert claimed(Shelf("a"), stages=stages[:CELLS]) == "a"
    assert claim(Shelf("a"), plan(), names_of(plan()), "r1", {}) is None  # type: ignore[arg-type] # it has a local model


@pytest.mark.parametrize("role", ROLES)
def test_a_set_with_a_dead_member_is_broken_and_not_claimed(role: Component) -> None:
    shelf = Shelf("a", "b")
    for thing in shelf.things:
        if thing["name"] == pooled_name("a", role.value):
            thing["state"] = "exited"
    assert [member.state for member in members(shelf)] == ["broken", "waits"]  # type: ignore[arg-type]
    assert claimed(shelf) == "b"


@pytest.mark.parametrize("role", ROLES[1:])
def test_a_set_that_is_claimed_by_halves_is_removed_and_the_next_one_taken(role: Component) -> None:
    shelf = Shelf("a", "b")
    shelf.lost = {pooled_name("a", role.value)}  # drained at this very moment
    assert claimed(shelf) == "b"
    assert shelf.pooled("a") == []

"""Trusted containers that were started beforehand: a run takes a set of them, uses it once, and spares itself the wait.

Mounts, labels and network of a container are fixed when it is created, and stages are not known then. So a set has
slots: volumes for doors, each of them alone as always, of which a run takes as many as it has stages and models. The
process learns at its birth which slot is which door. A set is claimed by creating a container (which never runs) under
the one name that claims it: the engine lets one of many have a name. Then its containers are renamed to what the run
would have called them. What was claimed goes with its run, whatever happens; nothing goes back.

A set fits a plan when it was made of the same images, for the same kind of network, by the same setting of the engine.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from policies.canonical import digest_of
from policies.plan import Plan
from policies.slices import up_door
from policies.vocabulary import Component
from sandbox.engine.docker import Engine
from sandbox.topology.layout import DOORS, IMAGES, LABEL_HOME, LABEL_HOST, LABEL_POOL, network_of, slot, trusted
from sandbox.topology.specs import LABEL_ROLE, MIB, UIDS, ContainerSpec, Mount, Network, Tmpfs, VolumeSpec

LABEL_FIT = "casemate.fit"
S = TypeVar("S", VolumeSpec, ContainerSpec)
CELLS, MODELS = 4, 4
"""For how many cells and models a set has slots."""

DRAINED = "casemate-drained-"
CLAIM = "casemate-claim-"
ROLES = (Component.FIREWALL, Component.LLM, Component.GATEWAY)


@dataclass(frozen=True, slots=True)
class Member:
    """A set that nobody has taken: its id, what it fits, and whether it waits, is starting, or is broken."""

    id: str
    fit: str
    state: Literal["waits", "starting", "broken"]


def pool_set(
    pooled: str, images: Mapping[str, str], network: Network, *, home: str, host: str
) -> tuple[list[VolumeSpec], list[ContainerSpec]]:
    """Lay out a set of trusted containers for a run that nobody knows yet. `images`: digest by name."""
    labels = {LABEL_POOL: pooled, LABEL_HOME: home, LABEL_HOST: host}

    def memory(part: str, owner: str) -> VolumeSpec:
        return VolumeSpec(name=slot(pooled, part), labels=labels, size=MIB, uid=UIDS[owner])

    ups = [f"up-{n}" for n in range(MODELS)]
    parts = {component: [f"{door}-{n}" for n in range(CELLS)] for door, component in DOORS.items()}
    volumes = [memory(part, component.value) for component, mine in parts.items() for part in mine]
    volumes += [memory(part, "firewall") for part in ups]
    volumes += [VolumeSpec(name=slot(pooled, part), labels=labels) for part in ("buffer", "recording")]
    containers = []
    for component, mine in parts.items():
        shared = ups if component is not Component.GATEWAY else []
        mounts = [Mount(slot(pooled, part), f"/slots/{part}", read_only=False) for part in (*mine, *shared)]
        own = {Component.GATEWAY: "buffer", Component.LLM: "recording"}.get(component)
        if own is not None:
            mounts.append(Mount(slot(pooled, own), f"/{own}", read_only=False))
        spec = trusted(component, slot(pooled, component.value), images[IMAGES[component.value]], labels, mounts)
        kind = network if component is Component.FIREWALL else Network.NONE
        # Doors are links from here to slots, which the process makes when it is born.
        containers.append(replace(spec, network=kind, tmpfs=(*spec.tmpfs, Tmpfs("/doors", MIB))))
    return volumes, containers


def fit(engine: Engine, images: Mapping[str, str], network: Network) -> str:
    """Return what a set must have been made of. `images`: digest by name."""
    made_of = {role.value: images[IMAGES[role.value]] for role in ROLES}
    return digest_of({"images": made_of, "network": network.value, "setting": engine.setting, "slots": [CELLS, MODELS]})


def fill(engine: Engine, keep: int, network: Network, home: str, host: str) -> list[str]:
    """Remove sets that are broken or fit no more, and start as many as are missing; return the ids of those started."""
    images = {name: str(engine.image_id(name)) for name in IMAGES.values()}
    wanted = fit(engine, images, network)
    fits = {fit(engine, images, kind) for kind in (Network.NONE, Network.EGRESS)}
    kept = 0
    for member in members(engine):
        if member.state == "broken" or member.fit not in fits:
            remove(engine, member.id)
        elif member.fit == wanted:
            kept += 1
    return [_start(engine, images, network, wanted, home, host) for _ in range(keep - kept)]


def _start(engine: Engine, images: Mapping[str, str], network: Network, wanted: str, home: str, host: str) -> str:
    name = secrets.token_hex(4)
    volumes, containers = pool_set(name, images, network, home=home, host=host)
    try:
        for volume in volumes:
            engine.create_volume(_labelled(volume, wanted))
        for spec in containers:
            engine.create(_labelled(spec, wanted))
            engine.start(spec.name)
    except BaseException:
        remove(engine, name)
        raise
    return name


def _labelled(spec: S, wanted: str) -> S:
    return replace(spec, labels={**spec.labels, LABEL_FIT: wanted})


def members(engine: Engine) -> list[Member]:
    """Return the sets that nobody has taken, in a fixed order."""
    found: defaultdict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    taken = set()
    for thing in engine.pooled():
        name = thing[LABEL_POOL]
        if thing["kind"] == "volume":
            found[name].setdefault("volume", thing)
        elif thing["name"] == pooled_name(name, thing[LABEL_ROLE]):
            found[name][thing[LABEL_ROLE]] = thing
        else:
            taken.add(name)
    return [
        Member(name, next(iter(parts.values()))[LABEL_FIT], _state(parts))
        for name, parts in sorted(found.items())
        if name not in taken
    ]


def _state(parts: Mapping[str, Mapping[str, str]]) -> Literal["waits", "starting", "broken"]:
    states = [parts.get(role.value, {}).get("state") for role in ROLES]
    if all(state == "running" for state in states):
        return "waits"
    return "starting" if set(states) <= {"running", "created", None} else "broken"


def claim(engine: Engine, plan: Plan, cells: Sequence[str], run: str, labels: Mapping[str, str]) -> str | None:
    """Take a set for `cells` of `run` and return its id; None when none fits. By `labels` a run is swept.

    Renaming alone is no claim: the engine finds a container by its name before it locks it, so two renames of one
    container may both succeed, one after the other. A new name is given once.
    """
    if len(cells) > CELLS or len(plan.models) > MODELS or plan.tools or any(m.local for m in plan.models):
        return None  # a set has no slot for it
    wanted = fit(engine, {image.name: image.digest for image in plan.images}, network_of(plan))
    for member in members(engine):
        if member.fit != wanted or member.state != "waits":
            continue
        if not _mark(engine, member.id, {image.name: image.digest for image in plan.images}, labels):
            continue  # somebody else was faster
        renamed = all(
            engine.rename(pooled_name(member.id, role.value), f"casemate-{run}-{role.value}") for role in ROLES
        )
        if renamed and all(engine.is_running(f"casemate-{run}-{role.value}") for role in ROLES):
            return member.id
        remove(engine, member.id)
    return None


def _mark(engine: Engine, name: str, images: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether this claim of a set is the one that counts."""
    return engine.create_once(
        ContainerSpec(
            name=f"{CLAIM}{name}",
            role="claim",
            image=images[IMAGES["relay"]],
            uid=UIDS["relay"],
            labels={**labels, LABEL_POOL: name, LABEL_ROLE: "claim"},
            runs=False,
        )
    )


def pooled_name(name: str, role: str) -> str:
    """Return what a container of a set is called while it waits."""
    return f"casemate-pool-{name}-{role}"


def remove(engine: Engine, name: str) -> list[str]:
    """Remove a set, containers first; return the names of what could not be removed."""
    things = sorted(engine.pooled(name), key=lambda thing: thing["kind"] != "container")
    return [thing["name"] for thing in things if not engine.remove(thing["kind"], thing["name"])]


def drain(engine: Engine) -> Iterator[tuple[str, list[str]]]:
    """Remove every set that nobody has taken; yield each id with the names of what is left of it."""
    images = {name: str(engine.image_id(name)) for name in IMAGES.values()}
    for member in members(engine):
        # Claimed first, like a run would: a set that a run takes at this moment is not drained.
        claimed = _mark(engine, member.id, images, {})
        if claimed:
            engine.rename(pooled_name(member.id, ROLES[0].value), f"{DRAINED}{member.id}")
        if claimed or member.state != "waits":
            yield member.id, remove(engine, member.id)


def slots(plan: Plan, cells: Sequence[str]) -> dict[Component, str]:
    """Return what each process of a set is told at its birth: `door=slot`, separated by spaces."""
    told: dict[Component, str] = {}
    ups = [f"{up_door(model.alias)}=up-{n}" for n, model in enumerate(plan.models)]
    for door, component in DOORS.items():
        doors = [f"{cell}={door}-{n}" for n, cell in enumerate(cells)]
        told[component] = " ".join([*doors, *(ups if component is not Component.GATEWAY else [])])
    return told

"""Verbs about this host: engine, images, and what crashed runs left."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.cli.base import as_json_option, console, say, say_json, warn


@click.command()
@click.option("--fix", is_flag=True, help="Install and start what is missing, where that is possible.")
@as_json_option
def doctor(fix: bool, as_json: bool) -> int:
    """Look at this host: engine, limits, images, and what cannot be enforced. Exit 1 if something is missing."""
    from sandbox.engine import host
    from sandbox.engine.images import build_all, missing

    engine = host.ensure_engine(_progress) if fix else host.connect()
    if fix:
        build_all(engine, _progress)
    checks = list(host.doctor(engine, missing(engine)))
    if as_json:
        say_json([{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks])
    else:
        marks = {True: "[green]ok  [/]", None: "[yellow]note[/]", False: "[red]MISS[/]"}
        for item in checks:
            console().print(f"{marks[item.ok]} {item.name}: ", end="")
            console().print(item.detail, markup=False)
    return ExitCode.DONE if all(item.ok is not False for item in checks) else ExitCode.INTERNAL


@click.group()
def images() -> None:
    """The trusted images."""


@images.command()
@click.argument("names", nargs=-1)
def build(names: tuple[str, ...]) -> int:
    """Build the trusted images that are missing or out of date, or those that are named."""
    from sandbox.engine.host import ensure_engine
    from sandbox.engine.images import IMAGES, OPTIONAL, build_all

    known = {spec.name: spec for spec in (*IMAGES, *OPTIONAL)}
    if unknown := [name for name in names if name not in known]:
        raise CasemateError("CSM-R018", f"no such image: {', '.join(unknown)}", exit_code=ExitCode.USAGE)
    specs = tuple(known[name] for name in names) or IMAGES
    for name, digest in build_all(ensure_engine(_progress), _progress, specs).items():
        say(f"{name}  {digest}")
    return ExitCode.DONE


@click.command()
def gc() -> int:
    """Remove containers and volumes that crashed runs of this host left behind, by their label."""
    from sandbox.durable.salvage import salvage_orphan
    from sandbox.engine.host import connect
    from sandbox.engine.sweep import sweep_orphans

    swept, left = sweep_orphans(connect(), salvage_orphan)
    for run in swept:
        say(f"swept {run}")
    for name in left:
        warn(f"could not remove {name}")
    say(f"{len(swept)} runs swept")
    return ExitCode.INTERNAL if left else ExitCode.DONE


@click.group("pool")
def pool_group() -> None:
    """Trusted containers that wait for runs."""


@pool_group.command("fill")
@click.option("--keep", type=click.IntRange(1, 64), default=1, show_default=True, help="How many sets are to wait.")
@click.option(
    "--network",
    type=click.Choice(["egress", "none"]),
    default="egress",
    show_default=True,
    help="Whether the firewall has a way out; runs that let nothing out take sets without one.",
)
@as_json_option
def pool_fill(keep: int, network: str, as_json: bool) -> int:
    """Start trusted containers beforehand, so that runs need not wait for them. Each set is used once."""
    from sandbox.engine import pool
    from sandbox.engine.host import connect
    from sandbox.engine.images import missing
    from sandbox.topology.specs import Network

    engine = connect()
    if absent := missing(engine):
        hint = "run `casemate images build`"
        raise CasemateError("CSM-R016", f"images are missing: {', '.join(absent)}", hint=hint)
    started = pool.fill(engine, keep, Network(network), str(Path.cwd()), socket.gethostname())
    if as_json:
        say_json({"started": started})
    else:
        say(f"{len(started)} sets started, {keep} wait")
    return ExitCode.DONE


@pool_group.command("list")
@as_json_option
def pool_list(as_json: bool) -> int:
    """List the sets that wait."""
    from sandbox.engine import pool
    from sandbox.engine.host import connect

    rows = [{"set": m.id, "fits": m.fit, "state": m.state} for m in pool.members(connect())]
    if as_json:
        say_json(rows)
    else:
        for row in rows:
            say(f"{row['set']}  {row['state']}")
    return ExitCode.DONE


@pool_group.command("drain")
@as_json_option
def pool_drain(as_json: bool) -> int:
    """Remove the sets that wait."""
    from sandbox.engine import pool
    from sandbox.engine.host import connect

    drained = dict(pool.drain(connect()))
    left = [name for names in drained.values() for name in names]
    if as_json:
        say_json({"drained": list(drained), "left": left})
    else:
        say(f"{len(drained)} sets drained")
    for name in left:
        warn(f"could not remove {name}")
    return ExitCode.INTERNAL if left else ExitCode.DONE


def _progress(text: str) -> None:
    warn(f"· {text}")


COMMANDS: tuple[click.Command, ...] = (doctor, images, pool_group, gc)

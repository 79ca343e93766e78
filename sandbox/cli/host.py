"""Verbs about this host: engine, images, and what crashed runs left."""

from __future__ import annotations

import click

from policies.vocabulary import ExitCode
from sandbox.cli.base import as_json_option, console, say, say_json, warn


@click.command()
@click.option("--fix", is_flag=True, help="Install and start what is missing, where that is possible.")
@as_json_option
def doctor(fix: bool, as_json: bool) -> int:
    """Look at this host: engine, limits, images, and what cannot be enforced. Exit 1 if something is missing."""
    from sandbox import host
    from sandbox.images import build_all, missing

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
def build() -> int:
    """Build the trusted images that are missing or out of date."""
    from sandbox.host import ensure_engine
    from sandbox.images import build_all

    for name, digest in build_all(ensure_engine(_progress), _progress).items():
        say(f"{name}  {digest}")
    return ExitCode.DONE


@click.command()
def gc() -> int:
    """Remove containers and volumes that crashed runs of this host left behind, by their label."""
    from sandbox.host import connect
    from sandbox.sweep import sweep_orphans

    swept, left = sweep_orphans(connect())
    for run in swept:
        say(f"swept {run}")
    for name in left:
        warn(f"could not remove {name}")
    say(f"{len(swept)} runs swept")
    return ExitCode.INTERNAL if left else ExitCode.DONE


def _progress(text: str) -> None:
    warn(f"· {text}")


COMMANDS: tuple[click.Command, ...] = (doctor, images, gc)

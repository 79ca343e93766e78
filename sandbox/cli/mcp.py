"""Verbs about MCP servers."""

from __future__ import annotations

from pathlib import Path

import click

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.cli.base import as_json_option, load, say, say_json, store, warn, workflow_argument


@click.group()
def mcp() -> None:
    """What MCP servers offer to agents, and what of it a person has approved."""


@mcp.command()
@workflow_argument
@click.option("--approve", multiple=True, metavar="SERVER.TOOL", help="Pin a tool, as one that only reads.")
@click.option("--approve-sink", multiple=True, metavar="SERVER.TOOL", help="Pin a tool that writes, for a sink.")
@as_json_option
def audit(workflow: Path, approve: tuple[str, ...], approve_sink: tuple[str, ...], as_json: bool) -> int:
    """Open each server, and show every definition word for word. Exit 4 if a pinned one has changed."""
    from sandbox.engine.host import connect
    from sandbox.mcp.audit import approved, offers, render, risks
    from sandbox.mcp.contact import contact
    from sandbox.mcp.pins import read_pins, write_pins

    plan, root = load(workflow)
    pins, live = read_pins(root), contact(connect(), plan, root, store(root).home)
    found = {}
    for server in plan.tools:
        found[server.name] = offers(live[server.name], pins.get(server.name, ()))
        if as_json:
            continue
        for risk in risks(server):
            warn(f"{server.name} is started with {risk}")
        for offer in found[server.name]:
            say("\n".join(render(server.name, offer)))
    if as_json:
        say_json({
            server: [{"name": o.name, "state": o.state, "reads": o.reads, "definition": o.definition} for o in offered]
            for server, offered in found.items()
        })  # fmt: skip
    after, unknown = approved(pins, found, approve)
    after, strange = approved(after, found, approve_sink, reads=False)
    if unknown := unknown + strange:
        raise CasemateError("CSM-R018", f"no such tool: {', '.join(unknown)}", exit_code=ExitCode.USAGE)
    if approve or approve_sink:
        write_pins(root, after)
        return ExitCode.DONE
    changed = any(o.state in ("changed", "gone", "twice") for offered in found.values() for o in offered)
    return ExitCode.REFUSED if changed else ExitCode.DONE


COMMANDS = (mcp,)

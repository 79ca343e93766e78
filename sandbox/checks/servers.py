"""MCP servers: where they may connect, and how they get their secret."""

from __future__ import annotations

from collections.abc import Iterator

from sandbox.checks.egress import bad_header
from sandbox.checks.stages import WEAKENING
from sandbox.checks.subject import Subject
from sandbox.checks.tools import url_problems
from sandbox.language.findings import Finding
from sandbox.topology.agent_env import proxy_env

MAX_PORTS, EGRESS_PORT = 4, 3128


def elsewhere(subject: Subject) -> Iterator[Finding]:
    """C039: a remote server with egress rules, which would say nothing."""
    for name, tool in subject.workflow.tools.items():
        if tool.url is not None and tool.egress:
            message = f'"{name}" runs elsewhere; from here, nothing but its url is reached'
            yield subject.finding("CSM-C039", message, "tools", name, "egress")


def secrets(subject: Subject) -> Iterator[Finding]:
    """C027, C039: a variable for a secret that there is not, or one that means something else."""
    for name, tool in subject.workflow.tools.items():
        variable, where = tool.secret_env, ("tools", name, "secret_env")
        if variable is None:
            continue
        if tool.image is None or tool.secret is None or not tool.run:
            message = (
                f'"{name}" gets no secret in a variable without an image, a secret, and the whole command in `run`'
            )
            yield subject.finding("CSM-C039", message, *where)
        elif variable in WEAKENING | {"HOME", "TMPDIR", "PATH", *proxy_env()}:
            yield subject.finding("CSM-C027", f"{variable} is no place for a secret", *where)


def logins(subject: Subject) -> Iterator[Finding]:
    """C007, C039: who a remote server is told that we are."""
    for name, tool in subject.workflow.tools.items():
        for field in ("header", "oauth"):
            if getattr(tool, field) is not None and (tool.url is None or tool.secret is None):
                message = f"{field} is for a remote server with a secret"
                yield subject.finding("CSM-C039", message, "tools", name, field)
        if tool.header is not None and (tool.oauth is not None or bad_header(tool.header)):
            yield subject.finding("CSM-C007", f"{tool.header} is no header for a secret", "tools", name, "header")
        if tool.oauth is not None:
            yield from url_problems(subject, tool.oauth.token_url, "tools", name, "oauth", "token_url")


def ports(subject: Subject) -> Iterator[Finding]:
    """C007: `tcp` rules: those of an MCP server in a container, at most four, each with a port of its own."""
    for index, stage in enumerate(subject.workflow.stages):
        for position, rule in enumerate(stage.egress):
            if rule.scheme == "tcp":
                hint = "let an MCP server speak with it, and give the stage the server's tools"
                where = ("stages", index, "egress", position, "scheme")
                yield subject.finding("CSM-C007", "no agent gets a port to speak what it likes", *where, hint=hint)
    for name, tool in subject.workflow.tools.items():
        rules = [(position, rule.port) for position, rule in enumerate(tool.egress) if rule.scheme == "tcp"]
        given = [port for _, port in rules]
        for order, (position, port) in enumerate(rules):
            if given.index(port) < order or order >= MAX_PORTS or port == EGRESS_PORT:
                message = f"port {port} of the cell is taken, or one more than {MAX_PORTS}"
                yield subject.finding("CSM-C007", message, "tools", name, "egress", position, "port")


CHECKS = (elsewhere, secrets, logins, ports)

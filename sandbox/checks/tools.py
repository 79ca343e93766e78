"""Tools: MCP servers that are declared, reachable in one way, and given to stages by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from policies.events import clean
from policies.writes import RESERVED_TOOLS
from sandbox.checks.egress import host_problem
from sandbox.checks.subject import Subject
from sandbox.language.findings import Finding, Severity, did_you_mean
from sandbox.language.workflow import tool_use
from sandbox.mcp.pins import NAME as PINS
from sandbox.mcp.tool_rules import likeness, problems

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-$&-)+-\[\]-~]+\*?")
_PATH = re.compile(r"(/(?!\.\.?(/|\Z))[A-Za-z0-9._+,=:@-]+)+")


def declared(subject: Subject) -> Iterator[Finding]:
    """C039: a server is a container or a URL, and its transport the one that this has."""
    for name, tool in subject.workflow.tools.items():
        if (tool.image is None) == (tool.url is None):
            message = f'"{name}" needs an image or a url, and not both'
            yield subject.finding("CSM-C039", message, "tools", name, key=True)
            continue
        wanted = "stdio" if tool.image else "http"
        if tool.transport not in (None, wanted):
            message = f'"{name}" speaks {wanted}, not {tool.transport}'
            yield subject.finding("CSM-C039", message, "tools", name, "transport")
        if tool.url is not None:
            yield from url_problems(subject, tool.url, "tools", name, "url")


def url_problems(subject: Subject, text: str, *where: str) -> Iterator[Finding]:
    """Yield what is wrong with the address of something that is spoken to over TLS."""
    try:
        url = urlsplit(text)
        plain = (
            url.scheme == "https" and url.hostname and not (url.username or url.password or url.query or url.fragment)
        )
        valid = bool(plain) and (url.port or 443) > 0
    except ValueError:
        valid = False
    if not valid:
        message = "a url reads https://host[:port]/path, without user, query or fragment"
        yield subject.finding("CSM-C039", message, *where)
    elif problem := host_problem(urlsplit(text).hostname or "", wildcard=False):
        yield subject.finding(problem[0], problem[1], *where)


def used(subject: Subject) -> Iterator[Finding]:
    """C039: a stage asks for a server that is not declared."""
    tools = subject.workflow.tools
    for index, stage in enumerate(subject.workflow.stages):
        for name in stage.tools:
            if name not in tools:
                where = ("stages", index, "tools", name)
                hint = did_you_mean(name, tools)
                yield subject.finding("CSM-C039", f'undeclared tool "{name}"', *where, key=True, hint=hint)


def read_only(subject: Subject) -> Iterator[Finding]:
    """C039: a tool that an output writes with is a write tool, whatever its server says; no stage calls it directly."""
    sinks = {(o.sink.server, o.sink.tool): name for name, o in subject.workflow.outputs.items() if o.sink.kind == "mcp"}
    for server, tool, where in _given(subject):
        if (server, tool) in sinks:
            message = f'"{server}.{tool}" writes: it is the sink of the output "{sinks[server, tool]}"'
            yield subject.finding("CSM-C039", message, *where, hint="propose the output; customs calls the tool")


def pinned(subject: Subject) -> Iterator[Finding]:
    """C060, C061: a tool that nobody has looked at, or that nobody said only reads. `run` refuses such a plan."""
    if not subject.workflow.tools:
        return
    if (problem := subject.facts.problems.get(PINS)) is not None:
        yield subject.finding(problem.code, problem.message, "tools", key=True, hint=problem.hint)
        return
    for server, tool, where in _given(subject):
        pins = {pin.name for pin in subject.facts.pins.get(server, ()) if pin.reads}
        if server in subject.workflow.tools and tool not in pins:
            hint = did_you_mean(tool, pins) if pins else None
            yield subject.finding(
                "CSM-C060",
                f'"{server}.{tool}" is not pinned as a tool that only reads',
                *where,
                severity=Severity.WARNING,
                hint=hint or f"read `casemate mcp audit`, then approve with `--approve {server}.{tool}`",
            )


def judgeable(subject: Subject) -> Iterator[Finding]:
    """C017, C018, C045, C046, C062: a pinned definition by which nothing could be judged in bounded time."""
    for server, tool, where in _given(subject):
        for pin in subject.facts.pins.get(server, ()):
            for found in problems(pin.definition) if pin.name == tool else ():
                message = f'"{server}.{tool}": {found.message}'
                yield subject.finding(found.code, message, *where, hint=found.hint)


def distinct(subject: Subject) -> Iterator[Finding]:
    """C062: two names that an agent of a stage, or whoever reads its log, takes for one another."""
    for index, stage in enumerate(subject.workflow.stages):
        seen = {likeness(name): f"writes.{name}" for name in (*stage.outputs, *RESERVED_TOOLS)}
        for server, tool, where in _given(subject):
            if where[1] == index:
                if (first := seen.get(likeness(tool))) is not None:
                    message = f'"{server}.{tool}" looks like "{first}"'
                    yield subject.finding("CSM-C062", message, *where, hint="give them to different stages")
                seen.setdefault(likeness(tool), f"{server}.{tool}")


def guarded(subject: Subject) -> Iterator[Finding]:
    """C063: a guard of something that is not there, or that admits nothing that it could mean."""
    for server, tool, where in _given(subject):
        entry = subject.workflow.stages[int(where[1])].tools[server][int(where[-1])]
        pin = next((pin for pin in subject.facts.pins.get(server, ()) if pin.name == tool), None)
        for argument, guard in tool_use(entry).guard.items():
            at = (*where, "guard", argument)
            schema = pin.definition.get("inputSchema") if pin is not None else None
            known = schema.get("properties") if isinstance(schema, dict) else None
            if isinstance(known, dict) and argument not in known:
                message = f'"{server}.{tool}" has no argument "{clean(argument, 80)}"'
                yield subject.finding("CSM-C063", message, *at, key=True, hint=did_you_mean(argument, known))
            elif isinstance(known, dict) and not _texts(known[argument]):
                message = f'"{clean(argument, 80)}" is not plainly a text or a list of texts'
                yield subject.finding("CSM-C063", message, *at, key=True)
            if guard.below is not None and not _PATH.fullmatch(guard.below):
                message = f'"{clean(guard.below, 80)}" is not an absolute path without "." and ".."'
                yield subject.finding("CSM-C063", message, *at, "below", hint="as in /inputs/repo")
            for position, host in enumerate(guard.hosts):
                if problem := host_problem(host):
                    yield subject.finding("CSM-C063", problem[1], *at, "hosts", position)


def listed(subject: Subject) -> Iterator[Finding]:
    """C039: a resource that is no URI with one reading, and no beginning of one."""
    for index, stage in enumerate(subject.workflow.stages):
        for server, used in stage.tools.items():
            for position, entry in enumerate(used):
                resource = tool_use(entry).resource
                if resource and (not _URI.fullmatch(resource) or ".." in resource):
                    message = f'"{clean(resource, 100)}" is no URI, nor the beginning of one and *'
                    yield subject.finding("CSM-C039", message, "stages", index, "tools", server, position, "resource")


def _texts(schema: object) -> bool:
    """Whether a schema admits nothing but texts, lists of texts, and null."""
    match schema:
        case {"type": "string" | "null"}:
            return True
        case {"type": "array", "items": items}:
            return isinstance(items, dict) and items.get("type") == "string"
        case {"anyOf": [*options]}:
            return bool(options) and all(map(_texts, options))
        case _:
            return False


def _given(subject: Subject) -> Iterator[tuple[str, str, tuple[str | int, ...]]]:
    """Yield server and tool that a stage was given, and where that stands."""
    for index, stage in enumerate(subject.workflow.stages):
        for server, used in stage.tools.items():
            for position, entry in enumerate(used):
                if name := tool_use(entry).name:
                    yield server, name, ("stages", index, "tools", server, position)


CHECKS = (declared, used, read_only, pinned, judgeable, distinct, guarded, listed)

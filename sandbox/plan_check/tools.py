"""Invariants of a finished plan: what a stage may do with the tools, resources and prompts of its servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sandbox.plan_check.hosts import host_problems

Json = dict[str, Any]


def tool_rules_narrow(plan: Json) -> Iterator[str]:
    """A rule about a tool is about one that the stage has, once, and says something that can hold."""
    for stage in plan["stages"]:
        given = [(server, tool) for server, tools in stage["tools"].items() for tool in tools]
        ruled = [(rule["server"], rule["tool"]) for rule in stage["tool_rules"]]
        if len(set(ruled)) != len(ruled) or not set(ruled) <= set(given):
            yield f"stage {stage['name']}: rules about tools that it does not have, or twice about one"
        for rule in stage["tool_rules"]:
            where = f"stage {stage['name']}: {rule['server']}.{rule['tool']}"
            if rule["calls"] == 0 or (rule["calls"] is None and not rule["guards"]):
                yield f"{where} has a rule that says nothing"
            for guard in rule["guards"]:
                below, hosts = guard["below"], guard["hosts"]
                if below is None and not guard["no_dash"] and not hosts:
                    yield f"{where}: a guard of {guard['argument']!r} that guards nothing"
                if below is not None and (below[:1] != "/" or {"", ".", ".."} & set(below.split("/")[1:])):
                    yield f"{where}: {below!r} is no plain path"
                yield from (f"{where}: {problem}" for host in hosts for problem in host_problems(host))


def texts_are_named(plan: Json) -> Iterator[str]:
    """Resources and prompts are of servers that the stage has, and a resource is a URI or the beginning of one."""
    for stage in plan["stages"]:
        for server in (*stage["resources"], *stage["prompts"]):
            if server not in stage["tools"]:
                yield f"stage {stage['name']}: resources or prompts of {server}, which it does not have"
        for uris in stage["resources"].values():
            for uri in uris:
                if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s*]+\*?", uri) or ".." in uri:
                    yield f"stage {stage['name']}: {uri!r} is no resource"

"""What a plan asks for that this version cannot enforce. Such a plan compiles and can be explained; it is not run.

A field that is accepted and then ignored would be a permission nobody gave or a check nobody made.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.errors import CasemateError
from policies.plan import Output, Plan
from policies.vocabulary import ExitCode

PROVIDERS = {"anthropic", "gemini", "local", "openai", "openai-compatible"}

APPLIED = {"dataset", "file", "git", "http", "mcp", "mlflow", "sql"}
"""Kinds of sinks."""


def unenforced(plan: Plan) -> list[str]:
    """Return, in words, everything that would be ignored; empty when the plan can be run."""
    found = [f"model {m.alias}: provider {m.provider}" for m in plan.models if m.provider not in PROVIDERS]
    pinned = {(tool.name, pin.name) for tool in plan.tools for pin in tool.pins if pin.reads}
    for stage in plan.stages:
        wanted = {(server, tool) for server, tools in stage.tools.items() for tool in tools}
        found += [f"stage {stage.name}: {'.'.join(one)}, which nobody pinned" for one in sorted(wanted - pinned)]
    for output in plan.outputs:
        found += _output(output)
        found += _server(output, plan)
    return found


def refuse_unenforced(plan: Plan) -> None:
    """Raise CSM-R021 when anything that `plan` asks for would be ignored."""
    found = unenforced(plan)
    if found:
        hint = "it can be checked, compiled and explained; leave these out to run it"
        raise CasemateError("CSM-R021", "; ".join(found[:10]), hint=hint, exit_code=ExitCode.REFUSED)


def _output(output: Output) -> Iterator[str]:
    if output.sink not in APPLIED:
        yield f"output {output.name}: sink {output.sink}"


def _server(output: Output, plan: Plan) -> Iterator[str]:
    """Yield what keeps a tool from being a sink: no agent may meet its server, and a person must have looked at it."""
    server, tool = output.target.get("server"), output.target.get("tool")
    if output.sink != "mcp":
        return
    if any(server in stage.tools for stage in plan.stages):
        yield f"output {output.name}: {server} is a stage's server too; declare another one for the sink"
    pins = {pin.name for one in plan.tools if one.name == server for pin in one.pins if not pin.reads}
    if tool not in pins:
        yield f"output {output.name}: {server}.{tool}, which nobody pinned as a tool that writes"

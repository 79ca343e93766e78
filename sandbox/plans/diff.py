"""What a plan allows, as a set of plain statements, and how two plans differ.

Every permission is one statement with a number or a word; more statements, or a larger number, is wider. So "widened"
is a comparison of two dictionaries, and nothing has to understand what a permission means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policies.canonical import digest_of
from policies.plan import EgressRule, Guard, Output, Pin, Plan, Repository, Stage, Tool

Permissions = dict[str, int]
_UNBOUNDED = 10**15


@dataclass(frozen=True, slots=True)
class Difference:
    """Statements that were added or grew, and statements that were removed or shrank."""

    widened: tuple[str, ...]
    narrowed: tuple[str, ...]


def permissions(plan: Plan) -> Permissions:
    """Return everything that a plan allows. A statement's number is its size; restrictions count as negative sizes."""
    found: Permissions = {}
    budget = plan.budget
    for name in ("usd_nanos", "tokens", "calls", "wall_s"):
        found[f"run may use {name}"] = getattr(budget, name)
    found |= dict(_sizes("day may use", budget.per_day, "usd_nanos", "tokens", "calls"))
    for secret in plan.secrets:
        found[f"{secret.holder} holds {secret.name} ({secret.origin} {secret.key}) for {secret.destination}"] = 1
    for model in plan.models:
        where = model.local or f"{model.host}:{model.port}{model.base_path}"
        found[f"{model.alias} is {model.provider} {model.model} at {where}"] = 1
        found |= {f"{model.alias} may answer as {name}": 1 for name in model.names}
        found[f"{model.alias} may answer tokens"] = model.max_output_tokens
        found |= {f"{model.alias} may be in {network}": 1 for network in model.addresses}
        for other in (*model.fallback, *(f"{r.kind} {r.use}" for r in model.routes)):
            found[f"{model.alias} may become {other}"] = 1
    for tool in plan.tools:
        found |= _tool(tool)
    for stage in plan.stages:
        found |= dict(_stage(stage))
    for output in plan.outputs:
        found |= dict(_output(output))
    found |= {f"run trusts the authority {digest_of(text)[7:19]}": 1 for text in plan.trust}
    if plan.student is not None:
        found[f"student {plan.student.model} may be exposed: {plan.student.verdict}"] = 1
        found |= {f"exception {digest}": 1 for digest in plan.student.exceptions}
    return found


def _tool(tool: Tool) -> Permissions:
    found: Permissions = {}
    found[f"tool {tool.name} is {tool.image or tool.url}"] = 1
    found |= {f"tool {tool.name} reaches {rule}": size for rule, size in _rules(tool.egress).items()}
    found |= {f"tool {tool.name} runs {' '.join(tool.run)}": 1 for _ in tool.run[:1]}
    found |= {f"tool {tool.name} may be in {network}": 1 for network in tool.addresses}
    if tool.secret_env is not None:
        found[f"tool {tool.name} has {tool.secret} in {tool.secret_env}"] = 1
    if tool.header is not None:
        found[f"tool {tool.name} is told {tool.secret} in {tool.header}"] = 1
    if tool.oauth is not None:
        end = tool.oauth
        found[f"tool {tool.name} gets tokens at {end.token_url} as {end.client_id}"] = 1
        found |= {f"tool {tool.name} has the scope {scope}": 1 for scope in end.scopes}
    for pin in tool.pins:
        found[f"tool {tool.name}.{pin.name} is {digest_of(pin.definition)[7:19]}, {_use(pin)}"] = 1
    return found


def _use(pin: Pin) -> str:
    return "only reads" if pin.reads else "writes"


def _rules(rules: list[EgressRule], cells: int = 1) -> Permissions:
    """State what rules allow. Where several lead to one place, what they may move is added up, over all `cells`."""
    found: Permissions = {}
    for rule in rules:
        where = f"{rule.scheme}://{rule.host}:{rule.port}"
        for method in rule.methods or ["any method"]:
            for path in rule.paths or [""]:
                found[f"{where} by {method}" + (f" under {path}" if path else "")] = 1
        if rule.scheme == "https" and not rule.inspect:
            found[f"{where} unseen"] = 1
        for network in rule.addresses:
            found[f"{where} in {network}"] = 1
        if (added := rule.credential) is not None:
            found[f"{where} with {added.secret} in {added.header} {added.scheme}".rstrip()] = 1
        for name in ("requests", "bytes"):
            most = getattr(rule.quota, name) if rule.quota is not None else None
            size = found.get(f"{where} moving {name}", 0) + (_UNBOUNDED if most is None else most * cells)
            found[f"{where} moving {name}"] = min(size, _UNBOUNDED)
    return found


def _stage(stage: Stage) -> Iterator[tuple[str, int]]:
    name = f"stage {stage.name}"
    yield f"{name} runs {stage.image} {' '.join(stage.run)}", 1
    for key, value in stage.env.items():
        yield f"{name} has {key}={value}", 1
    for kind, items in (("reads", stage.inputs), ("reads artifacts of", stage.needs), ("asks", stage.models)):
        for item in items:
            yield f"{name} {kind} {item}", 1
    yield from _calling(name, stage)
    for rule, size in _rules(stage.egress, len(stage.cells)).items():
        yield f"{name} reaches {rule}", size
    for output in stage.outputs:
        yield f"{name} proposes {output}", 1
    limits = stage.limits
    for limit in ("cpu_millis", "memory", "pids", "disk", "wall_s", "calls", "tokens", "usd_nanos"):
        yield f"{name} may use {limit}", getattr(limits, limit)
    yield from _asking(name, stage)
    if stage.retry:
        yield f"{name} may run again", stage.retry.attempts
    if stage.shards:
        yield f"{name} may run at once", stage.shards.parallel
    if stage.profile != "default":
        yield f"{name} is under profile {stage.profile}", -1


def _calling(name: str, stage: Stage) -> Iterator[tuple[str, int]]:
    """State which tools a stage calls. Whether other guards admit more cannot be told, so they count as wider."""
    for server, resources in stage.resources.items():
        yield from ((f"{name} reads {uri} of {server}", 1) for uri in resources)
    for server, prompts in stage.prompts.items():
        yield from ((f"{name} gets the prompt {prompt} of {server}", 1) for prompt in prompts)
    rules = {(rule.server, rule.tool): rule for rule in stage.tool_rules}
    for server, tools in stage.tools.items():
        for tool in tools:
            rule = rules.get((server, tool))
            words = [f"{guard.argument} {guarded(guard)}" for guard in rule.guards] if rule is not None else []
            yield f"{name} calls {server}.{tool} with {'; '.join(words) or 'any argument'}", 1
            most = rule.calls if rule is not None else None
            yield f"{name} calls {server}.{tool} times", _UNBOUNDED if most is None else most * len(stage.cells)


def guarded(guard: Guard) -> str:
    """Return in words what an argument may be."""
    words = [f"below {guard.below}"] if guard.below is not None else []
    words += ["without a leading dash"] if guard.no_dash else []
    words += [f"at {' or '.join(guard.hosts)}"] if guard.hosts else []
    return ", ".join(words)


def _asking(name: str, stage: Stage) -> Iterator[tuple[str, int]]:
    yield from _sizes(f"{name} may ask in a minute:", stage.limits.rate, "requests", "tokens", "parallel")
    yield from _sizes(f"{name} may use in one call:", stage.limits.call, "tokens", "usd_nanos")
    if stage.cache != "none":
        yield f"{name} may get an answer again", 1


def _sizes(what: str, limit: object, *names: str) -> Iterator[tuple[str, int]]:
    """Yield limits that may be absent: absent is wider than any number."""
    for name in names:
        value = getattr(limit, name, None)
        yield f"{what} {name}", _UNBOUNDED if value is None else value


def _output(output: Output) -> Iterator[tuple[str, int]]:
    name = f"output {output.name}"
    settings = " ".join(f"{key}={value}" for key, value in sorted(output.target.items()))
    yield f"{name} goes to {output.sink} {output.path} {settings}".rstrip(), 1
    for network in output.addresses:
        yield f"{name} may be in {network}", 1
    if output.git is not None:
        yield from _patches(name, output.git)
    yield f"{name} may have rows", output.per_run
    yield f"{name} may have bytes", output.max_bytes
    for field in output.schema.get("properties", {}):
        yield f"{name} has the field {field}", 1
    # whether another schema admits more cannot be told, so it counts as wider
    yield f"{name} has the schema {digest_of(output.schema)[7:19]}", 1
    # what follows restricts: a statement that is gone, or a smaller number, is wider
    for kind in output.scan:
        yield f"{name} is scanned for {kind}", -1
    for kind, action in output.findings.items():
        yield f"{name} with {kind} is not rejected: {action}", 1
    for host in output.hosts:
        yield f"{name} may link to {host}", 1
    for probes in output.probes:
        yield f"{name} holds nothing of {probes.path} ({probes.digest[7:19]})", -1
    for field in output.unique:
        yield f"{name} is unique by {field}", -1
    for field, bound in output.bounds.items():
        yield f"{name} bounds {field} by {bound.min}..{bound.max} sigma {bound.sigma} of {bound.history}", -1
    yield from _approval(name, output)
    if output.atomic == "batch":
        yield f"{name} is all or nothing", -1
    for quota in ("per_day", "per_minute"):
        value = getattr(output, quota)
        yield f"{name} may have rows {quota}", _UNBOUNDED if value is None else value


def _approval(name: str, output: Output) -> Iterator[tuple[str, int]]:
    if output.approval != "never":
        yield f"{name} waits for approval ({output.approval})", -1
    if output.approve_over is not None:
        yield f"{name} waits for approval when it is large", -1
        yield f"{name} waits for approval above rows", output.approve_over
    if output.approvers is not None:
        # whether other people are as careful cannot be told, so it counts as wider
        keys = ", ".join(f"{person} ({key})" for person, key in output.approvers.keys.items())
        yield f"{name} waits for signatures of {keys}", -output.approvers.need


def _patches(name: str, git: Repository) -> Iterator[tuple[str, int]]:
    """State what a patch may be, and how it is offered."""
    yield f"{name} goes on {git.base} as {git.prefix}* by {git.author} <{git.email}>, let in as {git.user}", 1
    for size in ("files", "lines", "bytes"):
        yield f"{name} may change in one patch: {size}", getattr(git, size)
    if git.paths:
        yield f"{name} changes only {' '.join(git.paths)}", -1
    if git.protected == "hold":
        yield f"{name} may change protected paths when a person agrees", 1
    for glob in git.unprotected:
        yield f"{name} may change protected paths at {glob}", 1
    if git.executable:
        yield f"{name} may make files executable", 1
    if (pull := git.pull_request) is not None:
        yield f"{name} opens pull requests of {pull.project} at {pull.forge} {pull.api}", 1
        yield from ((f"{name} labels them {label}", 1) for label in pull.labels)
        if pull.draft:
            yield f"{name} opens them as drafts", -1


def difference(old: Permissions, new: Permissions) -> Difference:
    """Compare what two plans allow."""
    widened: list[str] = []
    narrowed: list[str] = []
    for statement in sorted(old.keys() | new.keys()):
        before, after = old.get(statement, 0), new.get(statement, 0)
        if before == after:
            continue
        change = f"{statement}: {before:,} → {after:,}" if abs(before) > 1 or abs(after) > 1 else statement
        if after < 0 or before < 0:
            change = f"no longer: {statement}" if after > before else f"now: {statement}"
        (widened if after > before else narrowed).append(change)
    return Difference(tuple(widened), tuple(narrowed))

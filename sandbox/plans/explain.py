"""Explain: a plan in words. Per stage: what it can reach, read, spend and propose; and who holds which secret."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from policies.canonical import digest
from policies.plan import EgressRule, Limits, Model, Output, Plan, Repository, Stage, Tool
from policies.slices import seal
from sandbox.plans.diff import guarded


def explain(plan: Plan, only: str | None = None) -> Iterator[str]:
    """Yield the lines of an explanation, of the whole plan or of one stage."""
    yield f"{plan.name}  plan {seal(plan).plan[:19]}…"
    budget = plan.budget
    spend = f"{money(budget.usd_nanos)}, {budget.tokens:,} tokens, {budget.calls:,} calls, {budget.wall_s} s"
    yield f"  may spend at most {spend}"
    if (day := budget.per_day) is not None:
        words = [money(day.usd_nanos)] if day.usd_nanos is not None else []
        words += [f"{n:,} {what}" for n, what in ((day.tokens, "tokens"), (day.calls, "calls")) if n is not None]
        yield f"  and at most {', '.join(words)} a day, in all of its runs on this host"
    for stage in plan.stages:
        if only in (None, stage.name):
            yield ""
            yield from _stage(plan, stage)
    if only is None:
        yield ""
        yield from _secrets(plan)
        if plan.trust:
            yield f"trusts authorities beside the system's: {', '.join(map(_fingerprint, plan.trust))}"


def _stage(plan: Plan, stage: Stage) -> Iterator[str]:
    limits = stage.limits
    yield f"stage {stage.name}"
    yield f"  runs      {' '.join(stage.run)}  in {stage.image}"
    if (parts := stage.shards) is not None:
        yield f"            {parts.count:,} times, each for {parts.size} of {parts.over}; {parts.parallel} at once"
    after = f", after {', '.join(stage.needs)}" if stage.needs else ""
    size = f"{limits.memory >> 20} MiB memory, {limits.disk >> 20} MiB disk, {limits.pids} pids"
    each = "each in " if stage.shards else ""
    yield f"  within    {each}{limits.wall_s} s, {limits.cpu_millis / 1000:g} cpu, {size}{after}"
    inputs = [f"/inputs/{i.target}" for i in plan.inputs if i.name in stage.inputs]
    inputs += [f"/artifacts/{need}" for need in stage.needs]
    yield f"  reads     {', '.join(inputs) or 'nothing'}"
    models = {m.alias: m for m in plan.models}
    asks = [_model(models[alias]) for alias in stage.models]
    yield f"  asks      {'; '.join(asks) or 'no model'}"
    if asks:
        together = ", all of its shards together" if stage.shards else ""
        spend = f"{limits.calls:,} calls, {limits.tokens:,} tokens, {money(limits.usd_nanos)}"
        yield f"            at most {spend}{together}"
        yield from _rates(limits)
        if stage.cache != "none":
            yield "            the same question gets the same answer, at no cost"
    reaches = [_rule(rule) for rule in stage.egress]
    reaches += ["each quota is of one shard"] if stage.shards and any(rule.quota for rule in stage.egress) else []
    yield f"  reaches   {', '.join(reaches) or 'nothing: no address, no name, no neighbour'}"
    outputs = {o.name: o for o in plan.outputs}
    proposes = [_output(outputs[name]) for name in stage.outputs]
    yield f"  proposes  {'; '.join(proposes) or 'nothing'}"
    calls = [f"{server}.{tool}" for server, tools in stage.tools.items() for tool in tools]
    yield f"  calls     {', '.join(calls) or 'no tool'}"
    for what, given in (("resources", stage.resources), ("prompts", stage.prompts)):
        for server, names in given.items():
            yield f"            {what} of {server}: {', '.join(names)}"
    for rule in stage.tool_rules:
        words = [f"at most {rule.calls:,} times"] if rule.calls is not None else []
        words += [f"{guard.argument} {guarded(guard)}" for guard in rule.guards]
        yield f"            {rule.server}.{rule.tool}: {'; '.join(words)}"
    for tool in plan.tools:
        if tool.name in stage.tools:
            yield f"            {_server(tool)}"
    yield "  holds     no secret"


def _server(tool: Tool) -> str:
    if tool.url is not None:
        how = f"in {tool.header}" if tool.header else "as a bearer token"
        how = f"for a token of {tool.oauth.token_url}" if tool.oauth else how
        who = f"; {tool.secret} {how}" if tool.secret else ""
        return f"{tool.name} is at {tool.url}{_networks(tool.addresses)}{who}"
    reaches = ", ".join(_rule(rule) for rule in tool.egress) or "nothing"
    has = f", and has {tool.secret}" if tool.secret is not None else ""
    where = f" in {tool.secret_env}" if tool.secret_env is not None else ""
    return f"{tool.name} runs here, in {tool.image}; it reaches {reaches}{has}{where}"


def _rule(rule: EgressRule) -> str:
    methods = f" {','.join(rule.methods)}" if rule.methods else ""
    paths = f" under {','.join(rule.paths)}" if rule.paths else ""
    more = ["inspected"] if rule.inspect else []
    if rule.credential is not None:
        more.append(f"the firewall adds {rule.credential.secret} in {rule.credential.header}")
    quota = {"requests": rule.quota.requests, "bytes": rule.quota.bytes} if rule.quota is not None else {}
    more += [f"at most {most:,} {name}" for name, most in quota.items() if most is not None]
    extra = f" ({'; '.join(more)})" if more else ""
    return f"{rule.scheme}://{rule.host}:{rule.port}{methods}{paths}{_networks(rule.addresses)}{extra}"


def _networks(addresses: list[str]) -> str:
    return f" (also in {', '.join(addresses)})" if addresses else ""


def _rates(limits: Limits) -> Iterator[str]:
    rate, call = limits.rate, limits.call
    if rate is not None:
        minute = [f"{n:,} {what}" for what, n in (("requests", rate.requests), ("tokens", rate.tokens)) if n]
        words = [f"{' and '.join(minute)} in any minute"] if minute else []
        words += [f"{rate.parallel} calls at once"] if rate.parallel else []
        yield f"            at most {', '.join(words)}"
    if call is not None:
        words = [f"{call.tokens:,} tokens"] if call.tokens is not None else []
        words += [money(call.usd_nanos)] if call.usd_nanos is not None else []
        yield f"            at most {', '.join(words)} a call"


def _model(model: Model) -> str:
    at = f"at {model.host}:{model.port}{_networks(model.addresses)}"
    where = "served here without a network" if model.local else at
    return f"{model.alias} = {model.model} ({where})"


def _output(output: Output) -> str:
    checks = ["schema", f"at most {output.per_run:,} rows", *(f"{f} bounded" for f in output.bounds)]
    checks += [f"unique by {', '.join(output.unique)}"] if output.unique else []
    checks += [_scanned(output, kind) for kind in output.scan]
    checks += _patches(output.git) if output.git is not None else []
    checks += [f"nothing of {probes.path}" for probes in output.probes]
    how = "all or nothing" if output.atomic == "batch" else "row by row"
    place = output.path if output.git is None else _branches(output.target["repository"], output.git)
    return f"{output.name} → {place} ({'; '.join([*checks, *_waits(output)])}; {how})"


def _waits(output: Output) -> Iterator[str]:
    """Say when rows wait for a person, and for whom."""
    if output.approval == "always":
        yield "waits for approval"
    elif output.approve_over is not None:
        yield f"waits for approval above {output.approve_over:,} rows"
    if (who := output.approvers) is not None:
        yield f"an approval is signed by {who.need} of {', '.join(who.keys)}"


def _branches(repository: str, git: Repository) -> str:
    offered = f", offered as pull requests at {git.pull_request.api}" if git.pull_request is not None else ""
    return f"branches {git.prefix}* of {repository} on {git.base}{offered}"


def _patches(git: Repository) -> list[str]:
    found = [f"patches of at most {git.files:,} files, {git.lines:,} added lines, {git.bytes >> 10:,} KiB"]
    found += [f"of {' or '.join(git.paths)} only"] if git.paths else []
    but = f" but {', '.join(git.unprotected)}" if git.unprotected else ""
    found.append(f"protected paths{but} {'rejected' if git.protected == 'reject' else 'held'}")
    return [*found, "may make files executable"] if git.executable else found


def _secrets(plan: Plan) -> Iterator[str]:
    yield "secrets"
    for secret in plan.secrets:
        origin = f"{secret.origin} {secret.key}"
        yield f"  {secret.name} ({origin}): held by {secret.holder}, goes to {secret.destination} only"
    if not plan.secrets:
        yield "  none"


def _fingerprint(certificate: str) -> str:
    return digest(ssl.PEM_cert_to_DER_cert(certificate))[7:23]


def money(nanos: int) -> str:
    """Return nano-USD for people."""
    return f"${nanos / 1_000_000_000:,.6f}".rstrip("0").rstrip(".") if nanos else "$0"


def _scanned(output: Output, kind: str) -> str:
    words = f"links to {' or '.join(output.hosts)} only" if kind == "links" and output.hosts else f"no {kind}"
    action = {str(name): action for name, action in output.findings.items()}.get(kind)
    return f"{words} (else {'taken out' if action == 'redact' else 'held'})" if action else words

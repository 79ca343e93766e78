"""The compiler: from a checked workflow and the facts to a plan. Pure; the same input gives the same bytes.

It is only called with a workflow without findings of severity error, so it has nothing left to refuse but what it
cannot express. `plan_check` verifies its result independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import PurePosixPath
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import msgspec

from policies.plan import (
    Approvers,
    Bound,
    Budget,
    CallLimit,
    ClientCredentials,
    DayBudget,
    EgressQuota,
    EgressRule,
    Guard,
    HeaderCredential,
    Image,
    Input,
    Limits,
    Model,
    Output,
    Plan,
    Price,
    ProbeFile,
    Rate,
    Retry,
    Route,
    SecretBinding,
    Source,
    Stage,
    Student,
    Tool,
    ToolRule,
)
from sandbox.compiler import repositories
from sandbox.compiler.resolve import Facts
from sandbox.language.source import Document
from sandbox.language.workflow import (
    DaySpec,
    EgressSpec,
    LimitsSpec,
    ModelSpec,
    OauthSpec,
    OutputSpec,
    OverSpec,
    StageSpec,
    ToolUseSpec,
    Workflow,
    nanos,
    per_minute,
    quantity,
    sink_destination,
    tool_destination,
    tool_use,
)
from sandbox.lineage.registry import ModelEntry
from sandbox.topology.layout import GIT_IMAGE, IMAGES
from sandbox.topology.shards import planned

PROVIDERS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
}
_OWN_FIELDS = ("kind", "path", "secret", "addresses", "base", "prefix", "author", "user", "patch", "pull_request")
"""Settings of a sink that are fields of an output; the others are its target."""


def wanted_images(workflow: Workflow) -> list[str]:
    """Return the names of every image that a run of `workflow` needs, sorted."""
    local = [f"casemate/model-{m.model}" for m in workflow.models.values() if m.provider == "local"]
    tools = [tool.image for tool in workflow.tools.values() if tool.image]
    sinks = [GIT_IMAGE for output in workflow.outputs.values() if output.sink.kind == "git"]
    return sorted({*IMAGES.values(), *(stage.image for stage in workflow.stages), *local, *tools, *sinks})


def compile_plan(workflow: Workflow, document: Document, facts: Facts, registry: dict[str, ModelEntry]) -> Plan:
    """Return the plan. Raises `KeyError` only when called with a workflow that has findings."""
    models = [_model(alias, spec, registry[spec.model], facts) for alias, spec in sorted(workflow.models.items())]
    return Plan(
        casemate=1,
        name=workflow.name,
        task="one",
        source=Source(
            workflow=document.file,
            digest=document.digest,
            files={path: fact.digest for path, fact in sorted(facts.files.items())},
            registry=facts.registry,
            policies=facts.policies,
            prices=facts.price_source,
        ),
        budget=Budget(
            usd_nanos=nanos(workflow.budget.usd),
            tokens=workflow.budget.tokens,
            calls=workflow.budget.calls,
            wall_s=quantity(workflow.budget.wall),
            per_day=_day(workflow.budget.per_day),
        ),
        secrets=[_secret(name, workflow, models) for name in sorted(workflow.secrets)],
        models=models,
        images=[Image(name=name, digest=facts.images[name] or "") for name in wanted_images(workflow)],
        tools=[
            Tool(
                name=name,
                image=t.image,
                url=t.url,
                secret=t.secret,
                secret_env=t.secret_env,
                header=t.header.lower() if t.header else None,
                oauth=_oauth(t.oauth),
                egress=_egress(t.egress, facts, f"tools.{name}"),
                run=t.run,
                addresses=sorted(t.addresses),
                pins=list(facts.pins.get(name, ())),
            )
            for name, t in sorted(workflow.tools.items())
        ],
        inputs=[
            Input(
                name=name,
                path=item.path,
                target=PurePosixPath(item.path).name,
                digest=facts.files[item.path].digest,
                size=facts.files[item.path].size,
            )
            for name, item in sorted(workflow.inputs.items())
        ],
        stages=[_stage(index, spec, workflow, document, facts) for index, spec in enumerate(workflow.stages)],
        outputs=[_output(name, spec, facts) for name, spec in sorted(workflow.outputs.items())],
        student=_student(workflow, facts),
        trust=sorted({certificate for path in workflow.trust for certificate in facts.trust[path]}),
    )


def _oauth(spec: OauthSpec | None) -> ClientCredentials | None:
    if spec is None:
        return None
    return ClientCredentials(token_url=spec.token_url, client_id=spec.client_id, scopes=sorted(spec.scopes))


def _day(spec: DaySpec | None) -> DayBudget | None:
    if spec is None:
        return None
    usd = None if spec.usd is None else nanos(spec.usd)
    return DayBudget(usd_nanos=usd, tokens=spec.tokens, calls=spec.calls)


def _model(alias: str, spec: ModelSpec, entry: ModelEntry, facts: Facts) -> Model:
    local = entry.id if spec.provider == "local" else None
    url = urlsplit(spec.base_url or PROVIDERS.get(spec.provider, ""))
    return Model(
        alias=alias,
        provider=spec.provider,
        model=spec.model,
        host=f"{local}.local" if local else (url.hostname or ""),
        port=443 if local else (url.port or 443),
        base_path="/v1" if local else url.path.rstrip("/"),
        local=local,
        secret=spec.secret,
        price=_price(alias, spec, facts),
        max_output_tokens=spec.max_output_tokens or entry.max_output_tokens,
        addresses=sorted(spec.addresses),
        names=sorted(set(entry.aliases) - {spec.model}),
        fallback=spec.fallback,
        routes=[
            Route(kind=cast("Literal['small', 'early']", kind), below=r.below, use=r.use)
            for kind, r in sorted(spec.route.items())
        ],
    )


def _price(alias: str, spec: ModelSpec, facts: Facts) -> Price:
    """Return what the workflow states, or else what is listed."""
    stated = spec.price
    if stated is None:
        known = facts.prices[alias]  # without one: CSM-C026
        return Price(
            input=known.input,
            output=known.output,
            cache_read=known.cache_read,
            cache_write=known.cache_write,
            cache_write_1h=known.cache_write_1h,
        )
    write = None if stated.cache_write is None else _a_token(stated.cache_write)
    return Price(
        input=_a_token(stated.input),
        output=_a_token(stated.output),
        cache_read=None if stated.cache_read is None else _a_token(stated.cache_read),
        cache_write=write,
        cache_write_1h=None if write is None else max(write, 2 * _a_token(stated.input)),
    )


def _a_token(usd: float) -> int:
    """Return nano-USD a token of USD per million; rounded up, so that a ceiling is never passed by rounding."""
    return ceil(nanos(usd) / 1_000_000)


def _secret(name: str, workflow: Workflow, models: list[Model]) -> SecretBinding:
    """Bind a secret to the one process that holds it, and to the one place where it goes."""
    rules = [rule for owner in workflow.stages for rule in owner.egress]
    rules += [rule for owner in workflow.tools.values() for rule in owner.egress]
    sinks = {output.sink.server for output in workflow.outputs.values()}
    uses: list[tuple[Literal["firewall", "llm", "gateway", "customs"], str]] = [
        *(("firewall", r.host) for r in rules if r.credential and r.credential.secret == name),
        *(("llm", m.host) for m in models if m.secret == name),
        *(
            ("customs" if tool in sinks else "gateway", urlsplit(tool_destination(tool, t)).hostname or tool)
            for tool, t in workflow.tools.items()
            if t.secret == name
        ),
        *(("customs", sink_destination(o)) for o in workflow.outputs.values() if o.sink.secret == name),
    ]
    holder, destination = uses[0]
    spec = workflow.secrets[name]
    origin = cast("Literal['env', 'file', 'command']", spec.origin)
    return SecretBinding(name=name, origin=origin, key=spec.key, holder=holder, destination=destination)


def _student(workflow: Workflow, facts: Facts) -> Student | None:
    if workflow.lineage is None:
        return None
    return Student(
        model=workflow.lineage.student.model,
        init_root=workflow.lineage.student.init_root,
        policy="no-same-init",
        verdict=cast("Any", facts.exposure or "unknown"),
        exceptions=sorted(facts.files[path].digest for path in workflow.lineage.exceptions),
    )


def _egress(
    specs: Sequence[EgressSpec], facts: Facts, place: str, document: Document | None = None
) -> list[EgressRule]:
    rules = []
    for position, spec in enumerate(specs):
        for host in facts.ecosystems.get(spec.ecosystem, ()) if spec.ecosystem else (spec.host,):
            rule = EgressRule(
                host=host,
                port=spec.port or (80 if spec.scheme == "http" else 443),
                scheme=cast("Literal['https', 'http', 'tcp']", spec.scheme),
                inspect=spec.inspect,
                methods=sorted(spec.methods),
                paths=sorted(spec.paths),
                credential=_credential(spec),
                quota=_quota(spec),
                addresses=sorted(spec.addresses),
                place=f"{place}.{position}" if document is None else place,
            )
            rules.append(rule)
    return rules


def _credential(spec: EgressSpec) -> HeaderCredential | None:
    given = spec.credential
    if given is None:
        return None
    return HeaderCredential(header=given.header.lower(), secret=given.secret, scheme=given.scheme)


def _quota(spec: EgressSpec) -> EgressQuota | None:
    if spec.quota is None:
        return None
    size = spec.quota.bytes
    return EgressQuota(requests=spec.quota.requests, bytes=None if size is None else quantity(size))


def _stage(index: int, spec: StageSpec, workflow: Workflow, document: Document, facts: Facts) -> Stage:
    return Stage(
        name=spec.name,
        image=spec.image,
        run=spec.run,
        env=dict(sorted(spec.env.items())),
        needs=sorted(spec.needs),
        inputs=sorted(workflow.inputs if spec.inputs is None else spec.inputs),
        models=sorted(spec.models),
        tools={name: _used(used, "name") for name, used in sorted(spec.tools.items())},
        resources={name: r for name, used in sorted(spec.tools.items()) if (r := _used(used, "resource"))},
        prompts={name: p for name, used in sorted(spec.tools.items()) if (p := _used(used, "prompt"))},
        tool_rules=_tool_rules(spec),
        egress=[
            rule
            for position, one in enumerate(spec.egress)
            for rule in _egress([one], facts, str(document.place(("stages", index, "egress", position))), document)
        ],
        outputs=sorted(spec.outputs),
        limits=_limits(spec.limits, workflow),
        profile=cast("Literal['default', 'explore', 'ci-fork']", spec.profile),
        shards=planned(parts.over, parts.size, parts.parallel, facts.files[workflow.inputs[parts.over].path].items)
        if (parts := spec.shards)
        else None,
        retry=Retry(attempts=spec.retry.attempts, on=cast("Any", sorted(spec.retry.on))) if spec.retry else None,
        cache=cast("Literal['none', 'exact']", spec.cache),
        locks=sorted(spec.locks),
    )


def _used(entries: Sequence[str | ToolUseSpec], what: str) -> list[str]:
    """Return the tools, resources or prompts among the entries of one server."""
    return sorted(name for entry in entries if (name := getattr(tool_use(entry), what)))


def _tool_rules(spec: StageSpec) -> list[ToolRule]:
    rules = [
        ToolRule(
            server=server,
            tool=use.name,
            calls=use.calls,
            guards=[
                Guard(argument=argument, below=guard.below, no_dash=guard.no_dash, hosts=sorted(guard.hosts))
                for argument, guard in sorted(use.guard.items())
            ],
        )
        for server, used in spec.tools.items()
        for use in map(tool_use, used)
        if use.calls is not None or use.guard
    ]
    return sorted(rules, key=lambda rule: (rule.server, rule.tool))


def _limits(spec: LimitsSpec, workflow: Workflow) -> Limits:
    budget = workflow.budget
    return Limits(
        cpu_millis=max(10, int(spec.cpu * 1000)),
        memory=quantity(spec.memory),
        pids=spec.pids,
        disk=quantity(spec.disk),
        wall_s=min(quantity(spec.wall), quantity(budget.wall)),
        calls=budget.calls if spec.calls is None else spec.calls,
        tokens=budget.tokens if spec.tokens is None else spec.tokens,
        usd_nanos=nanos(budget.usd if spec.usd is None else spec.usd),
        rate=Rate(
            requests=per_minute(spec.rate.requests),
            tokens=per_minute(spec.rate.tokens),
            parallel=spec.rate.parallel,
        )
        if spec.rate
        else None,
        call=CallLimit(
            usd_nanos=None if spec.call.usd is None else nanos(spec.call.usd),
            tokens=spec.call.tokens,
        )
        if spec.call
        else None,
    )


def _output(name: str, spec: OutputSpec, facts: Facts) -> Output:
    path = str(PurePosixPath(spec.sink.path)) if spec.sink.path else ""
    settings = {k: v for k, v in msgspec.to_builtins(spec.sink).items() if k not in _OWN_FIELDS}
    over = spec.approval.over if isinstance(spec.approval, OverSpec) else None
    return Output(
        name=name,
        sink=cast("Any", spec.sink.kind),
        path=path,
        format=cast("Any", PurePosixPath(path).suffix[1:] if spec.sink.kind == "dataset" else ""),
        target={k: v for k, v in sorted(settings.items()) if v is not None},
        secret=spec.sink.secret,
        addresses=sorted(spec.sink.addresses),
        schema=cast("dict[str, Any]", facts.schemas[name]),
        bounds={
            field: Bound(
                min=b.min,
                max=b.max,
                sigma=b.sigma,
                history=b.history,
                anchor=facts.anchors.get(b.history or name, {}).get(field) if b.sigma is not None else None,
            )
            for field, b in sorted(spec.bounds.items())
        },
        unique=spec.unique,
        scan=cast("Any", sorted({"secrets", *spec.scan})),
        findings=cast("Any", dict(sorted(spec.findings.items()))),
        hosts=sorted(spec.hosts),
        git=repositories.repository(spec.sink),
        per_run=spec.quota.per_run,
        per_day=spec.quota.per_day,
        per_minute=spec.quota.per_minute,
        max_bytes=quantity(spec.quota.bytes),
        atomic=cast("Literal['batch', 'each']", spec.atomic),
        approval="never" if isinstance(spec.approval, OverSpec) else cast("Any", spec.approval),
        approve_over=over,
        probes=[ProbeFile(path=path, digest=facts.files[path].digest) for path in sorted(spec.contamination)],
        approvers=Approvers(need=who.need, keys={person: facts.keys[person] for person in sorted(who.of)})
        if (who := spec.approvers)
        else None,
    )

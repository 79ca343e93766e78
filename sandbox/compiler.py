"""The compiler: from a checked workflow and the facts to a plan. Pure; the same input gives the same bytes.

It is only called with a workflow without findings of severity error, so it has nothing left to refuse but what it
cannot express. `plan_check` verifies its result independently.
"""

from __future__ import annotations

from math import ceil
from pathlib import PurePosixPath
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from policies.plan import (
    Bound,
    Budget,
    EgressRule,
    Image,
    Input,
    Limits,
    Model,
    Output,
    Plan,
    Price,
    SecretBinding,
    Source,
    Stage,
)
from sandbox.registry import ModelEntry
from sandbox.resolve import Facts
from sandbox.source import Document
from sandbox.topology import IMAGES
from sandbox.workflow import LimitsSpec, ModelSpec, OutputSpec, StageSpec, Workflow, nanos, quantity

OPENAI = "https://api.openai.com/v1"
MAX_OUTPUT_BYTES = 256 << 20


def wanted_images(workflow: Workflow) -> list[str]:
    """Return the names of every image that a run of `workflow` needs, sorted."""
    local = [f"casemate/model-{m.model}" for m in workflow.models.values() if m.provider == "local"]
    return sorted({*IMAGES.values(), *(stage.image for stage in workflow.stages), *local})


def compile_plan(workflow: Workflow, document: Document, facts: Facts, registry: dict[str, ModelEntry]) -> Plan:
    """Return the plan. Raises `KeyError` only when called with a workflow that has findings."""
    models = [_model(alias, spec, registry[spec.model]) for alias, spec in sorted(workflow.models.items())]
    return Plan(
        casemate=1,
        name=workflow.name,
        task="one",
        source=Source(
            workflow=document.file,
            digest=document.digest,
            files={path: fact.digest for path, fact in sorted(facts.files.items())},
        ),
        budget=Budget(
            usd_nanos=nanos(workflow.budget.usd),
            tokens=workflow.budget.tokens,
            calls=workflow.budget.calls,
            wall_s=quantity(workflow.budget.wall),
        ),
        secrets=[
            SecretBinding(
                name=name,
                origin=cast("Literal['env', 'file', 'command']", spec.origin),
                key=spec.key,
                holder="llm",
                destination=next(m.host for m in models if m.secret == name),
            )
            for name, spec in sorted(workflow.secrets.items())
        ],
        models=models,
        images=[Image(name=name, digest=facts.images[name] or "") for name in wanted_images(workflow)],
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
        stages=[_stage(index, spec, workflow, document) for index, spec in enumerate(workflow.stages)],
        outputs=[_output(name, spec, facts) for name, spec in sorted(workflow.outputs.items())],
    )


def _model(alias: str, spec: ModelSpec, entry: ModelEntry) -> Model:
    local = entry.id if spec.provider == "local" else None
    url = urlsplit(spec.base_url or OPENAI)
    price = spec.price
    assert price is not None  # noqa: S101 - CSM-C026
    return Model(
        alias=alias,
        provider=spec.provider,
        model=spec.model,
        host=f"{local}.local" if local else (url.hostname or ""),
        port=443 if local else (url.port or 443),
        base_path="/v1" if local else url.path.rstrip("/"),
        local=local,
        secret=spec.secret,
        # USD per million tokens to nano-USD a token; rounded up, so that a ceiling is never passed by rounding
        price=Price(input=ceil(nanos(price.input) / 1_000_000), output=ceil(nanos(price.output) / 1_000_000)),
        max_output_tokens=spec.max_output_tokens or entry.max_output_tokens,
    )


def _stage(index: int, spec: StageSpec, workflow: Workflow, document: Document) -> Stage:
    return Stage(
        name=spec.name,
        image=spec.image,
        run=spec.run,
        env=dict(sorted(spec.env.items())),
        needs=sorted(spec.needs),
        inputs=sorted(workflow.inputs if spec.inputs is None else spec.inputs),
        models=sorted(spec.models),
        egress=[
            EgressRule(
                host=rule.host,
                port=rule.port or (443 if rule.scheme == "https" else 80),
                scheme=cast("Literal['https', 'http']", rule.scheme),
                methods=sorted(rule.methods),
                place=str(document.place(("stages", index, "egress", position))),
            )
            for position, rule in enumerate(spec.egress)
        ],
        outputs=sorted(spec.outputs),
        limits=_limits(spec.limits, workflow),
    )


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
    )


def _output(name: str, spec: OutputSpec, facts: Facts) -> Output:
    path = PurePosixPath(spec.sink.path)
    return Output(
        name=name,
        sink="dataset",
        path=str(path),
        format="parquet" if path.suffix == ".parquet" else "jsonl",
        schema=cast("dict[str, Any]", facts.schemas[name]),
        bounds={field: Bound(min=b.min, max=b.max) for field, b in sorted(spec.bounds.items())},
        unique=spec.unique,
        scan=["secrets"],
        per_run=spec.quota.per_run,
        max_bytes=MAX_OUTPUT_BYTES,
        atomic=cast("Literal['batch', 'each']", spec.atomic),
    )

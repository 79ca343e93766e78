"""Models: known to the registry, priced, and reachable in the way that their provider is."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from urllib.parse import urlsplit

from sandbox.checks.egress import host_problem
from sandbox.checks.subject import Subject
from sandbox.language.findings import Finding, did_you_mean
from sandbox.lineage.registry import registry

_WIRE = {
    "openai": "chat completions",
    "openai-compatible": "chat completions",
    "local": "chat completions",
    "anthropic": "messages",
    "gemini": "generateContent",
}
"""The wire format of each provider: an agent that asks in one cannot read another."""


def known(subject: Subject) -> Iterator[Finding]:
    """C011: a model that the registry does not have, or that cannot be served locally."""
    for alias, model in subject.workflow.models.items():
        entry = registry().get(model.model)
        if entry is None:
            hint = did_you_mean(model.model, registry())
            yield subject.finding("CSM-C011", f'unknown model "{model.model}"', "models", alias, "model", hint=hint)
        elif (model.provider == "local") != entry.local:
            where = "is served locally" if entry.local else "has no local image"
            yield subject.finding("CSM-C011", f'"{model.model}" {where}', "models", alias, "provider")


def priced(subject: Subject) -> Iterator[Finding]:
    """C026: without a price there is no ceiling, so there is no call."""
    for alias, model in subject.workflow.models.items():
        if model.price is None and alias not in subject.facts.prices:
            hint = "state price: {input: …, output: …} in USD per million tokens; a local model may cost 0"
            yield subject.finding("CSM-C026", f'model "{alias}" has no price', "models", alias, key=True, hint=hint)


def cache_rates(subject: Subject) -> Iterator[Finding]:
    """C007: a cache that costs more to read, or less to write, than input: then a reservation would not bound it."""
    for alias, model in subject.workflow.models.items():
        price = model.price
        if price is not None and price.cache_read is not None and price.cache_read > price.input:
            message = "cache_read is dearer than input"
            yield subject.finding("CSM-C007", message, "models", alias, "price", "cache_read")
        if price is not None and price.cache_write is not None and price.cache_write < price.input:
            message = "cache_write is cheaper than input"
            yield subject.finding("CSM-C007", message, "models", alias, "price", "cache_write")


def output_ceiling(subject: Subject) -> Iterator[Finding]:
    """C030: more output tokens than the model can give."""
    for alias, model in subject.workflow.models.items():
        entry = registry().get(model.model)
        if entry and model.max_output_tokens and model.max_output_tokens > entry.max_output_tokens:
            message = f"{model.model} gives at most {entry.max_output_tokens} tokens a call"
            yield subject.finding("CSM-C030", message, "models", alias, "max_output_tokens")


def addressed(subject: Subject) -> Iterator[Finding]:
    """C006, C007, C019, C020: a base_url where one is needed, over TLS, without credentials, to a host by name."""
    for alias, model in subject.workflow.models.items():
        if model.provider == "local":
            for key in ("base_url", "addresses"):
                if getattr(model, key):
                    yield subject.finding("CSM-C007", f"a local model takes no {key}", "models", alias, key)
            continue
        if model.base_url is None:
            if model.provider == "openai-compatible":
                yield subject.finding("CSM-C006", 'missing field "base_url"', "models", alias)
            continue
        try:
            url = urlsplit(model.base_url)
            plain = (
                url.scheme == "https"
                and url.hostname
                and not (url.username or url.password or url.query or url.fragment)
            )
            valid = bool(plain) and (url.port or 443) > 0
        except ValueError:
            valid = False
            url = urlsplit("")
        if not valid:
            message = "base_url must read https://host[:port]/path, without user, query or fragment"
            yield subject.finding("CSM-C007", message, "models", alias, "base_url")
        elif problem := host_problem(url.hostname or "", wildcard=False):
            yield subject.finding(problem[0], problem[1], "models", alias, "base_url")


def used(subject: Subject) -> Iterator[Finding]:
    """C012: a stage asks for an alias that is not declared."""
    models = subject.workflow.models
    for index, stage in enumerate(subject.workflow.stages):
        for position, alias in enumerate(stage.models):
            if alias not in models:
                hint = did_you_mean(alias, models)
                yield subject.finding(
                    "CSM-C012", f'undeclared model "{alias}"', "stages", index, "models", position, hint=hint
                )


def detours(subject: Subject) -> Iterator[Finding]:
    """C043: fallbacks and routes to what is not declared, or round in a circle; C053: to another wire format."""
    models = subject.workflow.models
    for alias, model in models.items():
        for position, other in enumerate(model.fallback):
            if other not in models or other == alias:
                message = f'fallback to "{other}", which is {"itself" if other == alias else "not declared"}'
                hint = did_you_mean(other, models.keys() - {alias})
                yield subject.finding("CSM-C043", message, "models", alias, "fallback", position, hint=hint)
            elif _WIRE[models[other].provider] != _WIRE[model.provider]:
                yield _translated(subject, alias, other, "fallback", position)
        for kind, route in model.route.items():
            if route.use not in models or route.use == alias:
                message = f'route to "{route.use}", which is {"itself" if route.use == alias else "not declared"}'
                yield subject.finding("CSM-C043", message, "models", alias, "route", kind, "use")
            elif _WIRE[models[route.use].provider] != _WIRE[model.provider]:
                yield _translated(subject, alias, route.use, "route", kind, "use")
    graph = {a: [*m.fallback, *(r.use for r in m.route.values())] for a, m in models.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        if len(set(circle)) > 1:
            yield subject.finding(
                "CSM-C043", f"detours in a circle: {' → '.join(circle)}", "models", circle[0], key=True
            )


def _translated(subject: Subject, alias: str, other: str, *where: str | int) -> Finding:
    message = f'"{other}" does not speak the wire format of "{alias}", and nothing is translated'
    hint = f"name a model of a provider that speaks {_WIRE[subject.workflow.models[alias].provider]}"
    return subject.finding("CSM-C053", message, "models", alias, *where, hint=hint)


CHECKS = (known, priced, cache_rates, output_ceiling, addressed, used, detours)

"""Invariants of a finished plan that are about models and what they may cost; see `invariants`, whose they are.

Like it, this shares no code with the compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Problem = str
Json = dict[str, Any]


def ceilings_hold(plan: Json) -> Iterator[Problem]:
    """No stage may do more than the run, none is without a bound, and every model has a price and an end."""
    budget = plan["budget"]
    for key, most in (budget["per_day"] or {}).items():
        if most is not None and most < budget[key]:
            yield f"a day has less {key} than a run"
    for stage in plan["stages"]:
        limits = stage["limits"]
        for key in ("usd_nanos", "tokens", "calls", "wall_s"):
            if limits[key] > budget[key]:
                yield f"stage {stage['name']}: {key} is above the run's"
        for key in ("cpu_millis", "memory", "pids", "disk", "wall_s"):
            if not limits[key] > 0:
                yield f"stage {stage['name']}: no bound on {key}"
    for model in plan["models"]:
        if not model["max_output_tokens"] > 0:
            yield f"model {model['alias']}: no bound on output"
        if min(model["price"]["input"], model["price"]["output"]) < 0:
            yield f"model {model['alias']}: a price below zero"
        rates = [model["price"][key] for key in ("cache_read", "input", "cache_write", "cache_write_1h")]
        stated = [rate for rate in rates if rate is not None]
        if stated != sorted(stated) or (rates[2] is None) != (rates[3] is None):
            yield f"model {model['alias']}: a cache that a reservation does not bound"


def detours_end(plan: Json) -> Iterator[Problem]:
    """Fallbacks and routes lead to declared models, never in a circle, and shards run over declared inputs."""
    models = {m["alias"]: [*m["fallback"], *(r["use"] for r in m["routes"])] for m in plan["models"]}
    for alias, others in models.items():
        yield from (f"model {alias}: no model {other}" for other in others if other not in models)
        seen, ahead = set(), [o for o in others if o in models]
        while ahead:
            other = ahead.pop()
            if other == alias:
                yield f"model {alias} comes back to itself"
                break
            if other not in seen:
                seen.add(other)
                ahead += [o for o in models[other] if o in models]
    inputs = {item["name"] for item in plan["inputs"]}
    tools = {tool["name"] for tool in plan["tools"]}
    for stage in plan["stages"]:
        yield from (f"stage {stage['name']}: {p}" for p in _shard_problems(stage["shards"], stage["inputs"], inputs))
        yield from (f"stage {stage['name']}: no tool {name}" for name in stage["tools"] if name not in tools)
    for tool in plan["tools"]:
        if (tool["image"] is None) == (tool["url"] is None):
            yield f"tool {tool['name']} is neither a container nor remote"


def _shard_problems(shards: Json | None, mine: list[str], inputs: set[str]) -> Iterator[Problem]:
    if shards is None:
        return
    if shards["over"] not in inputs or shards["over"] not in mine or not shards["size"] > 0:
        yield "shards over nothing"
    if not 0 < shards["count"] <= 10_000 or not shards["parallel"] > 0:
        yield "no shards, or too many"


def detours_keep_the_wire(plan: Json) -> Iterator[Problem]:
    """What a model may become speaks as it does: nothing is translated."""
    tongues = {"anthropic": "messages", "gemini": "generateContent"}
    speaks = {m["alias"]: tongues.get(m["provider"], "openai") for m in plan["models"]}
    for model in plan["models"]:
        for other in (*model["fallback"], *(r["use"] for r in model["routes"])):
            if speaks.get(other) != speaks[model["alias"]]:
                yield f"model {model['alias']} may become {other}, which speaks otherwise"


def rates_are_limits(plan: Json) -> Iterator[Problem]:
    """A rate of zero, or one call above its stage, is no limit that anybody meant."""
    for stage in plan["stages"]:
        limits = stage["limits"]
        rate, call = limits["rate"] or {}, limits["call"] or {}
        for key, value in rate.items():
            if value is not None and not value > 0:
                yield f"stage {stage['name']}: a rate of {value} {key}"
        for key, value in call.items():
            if value is not None and value > limits[key]:
                yield f"stage {stage['name']}: {key} of one call is above the stage's"


def reached(plan: Json, aliases: list[str]) -> list[str]:
    """Return what calls of some models may come to."""
    onward = {m["alias"]: [*m["fallback"], *(r["use"] for r in m["routes"])] for m in plan["models"]}
    found: list[str] = []
    ahead = list(aliases)
    while ahead:
        if (alias := ahead.pop()) not in found:
            found.append(alias)
            ahead += onward[alias]
    return found

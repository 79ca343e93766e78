"""Which model a call goes to, and which come after it when that one fails. Pure.

Routes first (`early` before `small`), once: those of the model that is routed to do not count. Then its fallbacks, in
the order of the plan, once too. Every one was compiled, priced and judged for lineage like any model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policies.plan import Model
from proxy.llm.formats.base import Format
from proxy.llm.formats.table import speaks


def target(model: Model, input_tokens: int, calls: int) -> str:
    """Return the alias that a call for `model` goes to.

    `input_tokens` is the request's upper bound, `calls` the number of the stage's calls for this alias so far.
    """
    sizes = {"early": calls, "small": input_tokens}
    for route in sorted(model.routes, key=lambda one: one.kind):
        if sizes[route.kind] < route.below:
            return route.use
    return model.alias


def chain(alias: str, models: Mapping[str, Model], form: Format) -> list[str]:
    """Return the aliases to ask, one after the other; only those that speak the format can stand in."""
    wanted = [alias, *models[alias].fallback]
    return [one for one in dict.fromkeys(wanted) if one in models and speaks(models[one].provider, form)]


def reach(aliases: Iterable[str], models: Mapping[str, Model]) -> set[str]:
    """Return every alias that a stage's calls may come to."""
    found: set[str] = set()
    for alias in aliases:
        routed = [alias, *(route.use for route in models[alias].routes)]
        found.update(routed)
        found.update(other for one in routed if one in models for other in models[one].fallback)
    return found & models.keys()

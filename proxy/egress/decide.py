"""The egress policy: rules only allow, and what no rule admits is denied. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from policies.hosts import matches
from policies.plan import EgressRule
from policies.vocabulary import Verdict
from proxy.egress.paths import ambiguity, within
from proxy.egress.types import Decision, EgressRequest


def decide(request: EgressRequest, rules: Sequence[EgressRule]) -> Decision:
    """Return the first rule that admits `request`; deny when none does.

    Where any rule for a destination inspects, its tunnel is inspected, and what is read in it is judged by the
    inspecting rules alone: a rule for an opaque tunnel never admits a request that can be seen.
    """
    code, reason = "CSM-P003", f"no rule allows {request.scheme}://{request.host}:{request.port}"
    there = [rule for rule in rules if _leads_there(request, rule)]
    if request.scheme == "https" and any(rule.inspect for rule in there):
        there = [rule for rule in there if rule.inspect]
    for rule in there:
        if why := _unfit(request, rule):
            code, reason = "CSM-P009", f"{rule.place} does not allow {why}"
            continue
        return Decision(verdict=Verdict.ALLOW, rule=rule, code=None, reason=f"allowed by {rule.host}")
    return Decision(verdict=Verdict.DENY, rule=None, code=code, reason=reason)


def destinations(rules: Sequence[EgressRule]) -> list[str]:
    """Return the hosts that the rules allow, for the agent that was denied, each once and in the order of the plan."""
    return list(dict.fromkeys(rule.host for rule in rules))


def _leads_there(request: EgressRequest, rule: EgressRule) -> bool:
    return request.scheme == rule.scheme and request.port == rule.port and matches(request.host, rule.host)


def _unfit(request: EgressRequest, rule: EgressRule) -> str | None:
    """Return what about a request that can be seen does not fit the rule; None for a tunnel, which shows nothing."""
    if request.method == "CONNECT":
        return None
    if request.scheme == "https" and not rule.inspect:
        return "a request outside of a tunnel"
    if rule.methods and request.method not in rule.methods:
        return request.method
    if rule.paths:
        if why := ambiguity(request.path):
            return f"a path with {why}"
        if not within(request.path, rule.paths):
            return "this path"
    return None

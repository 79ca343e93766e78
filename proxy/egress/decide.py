"""The egress policy: rules only allow, and what no rule admits is denied. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from policies.plan import EgressRule
from policies.vocabulary import Verdict
from proxy.egress.types import Decision, EgressRequest


def decide(request: EgressRequest, rules: Sequence[EgressRule]) -> Decision:
    """Return the first rule that admits `request`; deny when none does."""
    code, reason = "CSM-P003", f"no rule allows {request.scheme}://{request.host}:{request.port}"
    for rule in rules:
        if not _leads_there(request, rule):
            continue
        if request.scheme == "http" and rule.methods and request.method not in rule.methods:
            code, reason = "CSM-P009", f"{rule.place} does not allow {request.method}"
            continue
        reason, networks = f"allowed by {rule.host}", tuple(rule.addresses)
        return Decision(verdict=Verdict.ALLOW, rule=rule.place, code=None, reason=reason, networks=networks)
    return Decision(verdict=Verdict.DENY, rule=None, code=code, reason=reason)


def matches(host: str, pattern: str) -> bool:
    """Whether a canonical host is the exact name, or one label below the suffix of `*.suffix`.

    Threat: suffix confusion. `*.example.com` admits neither `example.com`, `a.b.example.com` nor `notexample.com`.
    """
    if pattern.startswith("*."):
        label, dot, rest = host.partition(".")
        return bool(label and dot) and rest == pattern[2:]
    return host == pattern


def destinations(rules: Sequence[EgressRule]) -> list[str]:
    """Return the hosts that the rules allow, for the agent that was denied, each once and in the order of the plan."""
    return list(dict.fromkeys(rule.host for rule in rules))


def _leads_there(request: EgressRequest, rule: EgressRule) -> bool:
    return request.scheme == rule.scheme and request.port == rule.port and matches(request.host, rule.host)

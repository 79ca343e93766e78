"""Egress: rules that name a host, and only as wide as a person would expect."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from sandbox.checks.subject import Subject
from sandbox.findings import Finding
from sandbox.workflow import EgressSpec

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z")


def host_problem(host: str, *, wildcard: bool = True) -> tuple[str, str] | None:
    """Return code and message of what is wrong with a host in a rule, or None.

    A host is lower-case ASCII (IDNA already applied), without a trailing dot; `*.` may stand in front of at least two
    labels, and stands for exactly one.
    """
    bare = host.removeprefix("*.") if wildcard else host
    labels = bare.split(".")
    if _is_address(bare, labels):
        return "CSM-C020", f'"{host}" is an IP address; rules name hosts'
    if "*" in bare or (host != bare and len(labels) < 2):
        return "CSM-C019", f'"{host}" is too wide'
    if len(labels) < 2 or len(bare) > 253 or not all(map(_LABEL.match, labels)) or not labels[-1][0].isalpha():
        return "CSM-C007", f'"{host}" is not a host name in lower-case ASCII'
    return None


def _is_address(bare: str, labels: list[str]) -> bool:
    if _NUMBER.match(labels[-1]):
        return True
    try:
        ipaddress.ip_address(bare.strip("[]"))
    except ValueError:
        return False
    return True


def _every_rule(subject: Subject) -> Iterator[tuple[EgressSpec, tuple[str | int, ...]]]:
    for index, stage in enumerate(subject.workflow.stages):
        yield from ((rule, ("stages", index, "egress", n)) for n, rule in enumerate(stage.egress))
    for name, tool in subject.workflow.tools.items():
        yield from ((rule, ("tools", name, "egress", n)) for n, rule in enumerate(tool.egress))


def public_suffixes(subject: Subject) -> Iterator[Finding]:
    """C019: a pattern below a public suffix admits whoever registers a name there."""
    wide = [(rule, where) for rule, where in _every_rule(subject) if rule.host.startswith("*.")]
    if not wide:
        return
    from publicsuffixlist import PublicSuffixList  # 40 ms, and few workflows have a pattern

    suffixes = PublicSuffixList()
    for rule, where in wide:
        bare = rule.host.removeprefix("*.")
        if suffixes.publicsuffix(bare) == bare and "." in bare:
            message = f'"{bare}" is a public suffix: anybody can register a name below it'
            yield subject.finding("CSM-C019", message, *where, "host", hint="name the host")


def ecosystems(subject: Subject) -> Iterator[Finding]:
    """C035: an ecosystem of which this host knows no host."""
    for rule, where in _every_rule(subject):
        if rule.ecosystem and not subject.facts.ecosystems.get(rule.ecosystem):
            message = f"this host has no configuration for {rule.ecosystem}, so there is no host to allow"
            yield subject.finding("CSM-C035", message, *where, "ecosystem", hint="configure it, or name hosts")
        elif rule.ecosystem and (rule.methods or rule.scheme != "https" or rule.port):
            message = "an ecosystem stands for its hosts over TLS; it takes no scheme, port or methods"
            yield subject.finding("CSM-C007", message, *where)


PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
"""What a company numbers its own network with. Loopback, link-local and the rest are no destination for anybody."""


def network_problem(text: str) -> str | None:
    """Return what is wrong with a network that a host may resolve to, or None."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return f'"{text}" is not a network, as in 10.20.0.0/16'
    if str(network) != text:
        return f'"{text}" is not canonical; write {network}'
    if not any(network.version == wide.version and network.subnet_of(wide) for wide in PRIVATE):  # type: ignore[arg-type]
        return f'"{text}" is not inside a private range ({", ".join(map(str, PRIVATE))})'
    return None


def networks(subject: Subject) -> Iterator[Finding]:
    """C051: private networks that a host may resolve to, no wider than private."""
    given = [(rule.addresses, where) for rule, where in _every_rule(subject)]
    given += [(model.addresses, ("models", alias)) for alias, model in subject.workflow.models.items()]
    for addresses, where in given:
        for position, text in enumerate(addresses):
            if problem := network_problem(text):
                yield subject.finding("CSM-C051", problem, *where, "addresses", position)


def authorities(subject: Subject) -> Iterator[Finding]:
    """C021 to C023, C052: certificates that cannot be read, or are none."""
    for position, path in enumerate(subject.workflow.trust):
        if (problem := subject.facts.problems.get(path)) is not None:
            yield subject.finding(problem.code, problem.message, "trust", position, hint=problem.hint)


def rules(subject: Subject) -> Iterator[Finding]:
    """C007, C019, C020: hosts; C007: methods where they cannot be seen."""
    for rule, where in _every_rule(subject):
        if not rule.ecosystem:
            if problem := host_problem(rule.host):
                hint = "name the host, or *.example.com for one label below it"
                yield subject.finding(problem[0], problem[1], *where, "host", hint=hint)
            if rule.methods and rule.scheme != "http":
                message = "methods of an encrypted tunnel cannot be seen, so they cannot be limited"
                yield subject.finding(
                    "CSM-C007", message, *where, "methods", hint="remove methods, or use scheme: http"
                )


CHECKS = (rules, public_suffixes, ecosystems, networks, authorities)

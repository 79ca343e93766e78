"""Egress: rules that name a host, and only as wide as a person would expect."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from sandbox.checks.subject import Subject, every_rule
from sandbox.language.findings import Finding
from sandbox.language.workflow import EgressSpec

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_PATH = re.compile(r"/\Z|(/(?!\.\.?(/|\Z))[A-Za-z0-9._~!$&'()*+,=:@-]+)+/?\Z")
_FRAMING = {"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect",
            "keep-alive", "accept-encoding", "http2-settings"}  # fmt: skip
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


def public_suffixes(subject: Subject) -> Iterator[Finding]:
    """C019: a pattern below a public suffix admits whoever registers a name there."""
    wide = [(rule, where) for rule, where in every_rule(subject.workflow) if rule.host.startswith("*.")]
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
    for rule, where in every_rule(subject.workflow):
        if not rule.ecosystem:
            continue
        if not subject.facts.ecosystems.get(rule.ecosystem):
            message = f"this host has no configuration for {rule.ecosystem}, so there is no host to allow"
            yield subject.finding("CSM-C035", message, *where, "ecosystem", hint="configure it, or name hosts")
        if rule.methods or rule.scheme != "https" or rule.port or _limits(rule):
            message = "an ecosystem stands for its hosts over TLS; it takes no scheme, port, methods or other limits"
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
    given = [(rule.addresses, where) for rule, where in every_rule(subject.workflow)]
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
    """C007, C019, C020: hosts; C007: limits of what cannot be seen."""
    for rule, where in every_rule(subject.workflow):
        if not rule.ecosystem:
            if problem := host_problem(rule.host):
                hint = "name the host, or *.example.com for one label below it"
                yield subject.finding(problem[0], problem[1], *where, "host", hint=hint)
            yield from (
                subject.finding("CSM-C007", why, *where, at, hint=hint or None) for at, why, hint in _unseen(rule)
            )


def _limits(rule: EgressSpec) -> bool:
    return bool(rule.inspect or rule.paths or rule.credential or rule.quota)


def _unseen(rule: EgressSpec) -> Iterator[tuple[str, str, str]]:
    """Yield where a rule limits what it cannot see: the field, what is wrong, and a hint."""
    if rule.scheme == "tcp":
        given = rule.inspect or rule.methods or rule.paths or rule.credential
        if given or not rule.port or rule.host.startswith("*"):
            yield "scheme", "nothing of tcp can be seen: it takes a host that is named in full, a port, and no more", ""
        return
    hint = "add inspect: true, so that the firewall ends the TLS of this host; or use scheme: http"
    for field in ("methods", "paths"):
        if getattr(rule, field) and rule.scheme != "http" and not rule.inspect:
            yield field, f"{field} of an encrypted tunnel cannot be seen, so they cannot be limited", hint
    if rule.inspect and rule.scheme == "http":
        yield "inspect", "plain http can be read as it is", "remove inspect"
    for path in rule.paths:
        if not _PATH.match(path):
            yield "paths", f'"{path}" has more than one reading', "write a plain path, as in /api/v1"
    if rule.credential is not None:
        if not rule.inspect or rule.host.startswith("*"):
            message = "a secret is only put into inspected requests to one host that is named in full"
            yield "credential", message, "add inspect: true, and name the host"
        if bad_header(rule.credential.header):
            yield "credential", f"{rule.credential.header} is no header for a secret", "use Authorization"


def bad_header(name: str) -> bool:
    """Whether a header says how a message is read or carried, so that no secret may stand in it."""
    return name.lower() in _FRAMING or name.lower().startswith("proxy-")


def twofold(subject: Subject) -> Iterator[Finding]:
    """C007: a host that one rule inspects and another does not."""
    workflow = subject.workflow
    owners = [(stage.egress, ("stages", n)) for n, stage in enumerate(workflow.stages)]
    owners += [(tool.egress, ("tools", name)) for name, tool in workflow.tools.items()]  # type: ignore[misc]
    for given, owner in owners:
        named = [(n, r.host, r) for n, r in enumerate(given) if r.scheme == "https" and not r.ecosystem]
        known = subject.facts.ecosystems
        named += [(n, host, r) for n, r in enumerate(given) for host in known.get(r.ecosystem or "", ())]
        seen = [(host, rule.port or 443) for _, host, rule in named if rule.inspect]
        for n, host, rule in named:
            if not rule.inspect and any(port == (rule.port or 443) and _overlap(host, other) for other, port in seen):
                message = f'"{host}" is inspected by another rule; an opaque tunnel would go around it'
                yield subject.finding("CSM-C007", message, *owner, "egress", n, hint="inspect in both, or in none")


def _overlap(one: str, other: str) -> bool:
    """Whether some name fits both hosts of rules."""
    if one.startswith("*.") != other.startswith("*."):
        pattern, name = (one, other) if one.startswith("*.") else (other, one)
        return name.partition(".")[2] == pattern[2:]
    return one == other


CHECKS = (rules, twofold, public_suffixes, ecosystems, networks, authorities)

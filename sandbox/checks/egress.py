"""Egress: rules that name a host, and only as wide as a person would expect."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from sandbox.checks.subject import Subject
from sandbox.findings import Finding

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
    if len(labels) < 2 or len(bare) > 253 or not all(_LABEL.match(label) for label in labels):
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


def rules(subject: Subject) -> Iterator[Finding]:
    """C007, C019, C020: hosts; C007: methods where they cannot be seen."""
    for index, stage in enumerate(subject.workflow.stages):
        for position, rule in enumerate(stage.egress):
            where = ("stages", index, "egress", position)
            if problem := host_problem(rule.host):
                hint = "name the host, or *.example.com for one label below it"
                yield subject.finding(problem[0], problem[1], *where, "host", hint=hint)
            if rule.methods and rule.scheme != "http":
                message = "methods of an encrypted tunnel cannot be seen, so they cannot be limited"
                yield subject.finding(
                    "CSM-C007", message, *where, "methods", hint="remove methods, or use scheme: http"
                )


CHECKS = (rules,)

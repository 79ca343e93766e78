"""Invariants of a finished plan: hosts and networks that a rule may name. It shares no code with the compiler."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

_HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")


def host_problems(host: str) -> Iterator[str]:
    """Yield what keeps a name from being a host that a rule may name."""
    try:
        ipaddress.ip_address(host)
        yield f"{host} is an address"
    except ValueError:
        if not _HOST.match(host) or (host.startswith("*.") and host.count(".") < 2):
            yield f"{host!r} is no host that a rule may name"


def network_problems(texts: list[str]) -> Iterator[str]:
    """Yield what is not a private network in its one canonical spelling."""
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            yield f"{text!r} is no network"
            continue
        shared = network.version == 4 and network.overlaps(ipaddress.ip_network("100.64.0.0/10"))
        reserved = network.is_loopback or network.is_link_local or network.is_unspecified or network.is_multicast
        if str(network) != text or reserved or network.prefixlen < 7 or not (network.is_private or shared):
            yield f"{text!r} is no private network"

"""Names to addresses: which addresses may be reached at all (pure), and the one checked address that is connected to.

Threat: an allowed name that resolves to the host's own network, to a metadata service, or to another address at the
second look-up (rebinding). So every address of the answer must be public, and the connection goes to the checked one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from proxy.egress.relay import CHUNK
from proxy.egress.types import Refused

Resolve = Callable[[str, int], Awaitable[list[str]]]
Permitted = Callable[[str], bool]

RESOLVE_SECONDS = 10.0
CONNECT_SECONDS = 10.0

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = frozenset(
    map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "169.254.169.254", "192.0.0.192", "fd00:ec2::254"))
)
"""Metadata services of clouds, some of which have a public address, or one of a private network."""
_COMPATIBLE = ipaddress.IPv6Network("::/96")


def is_public(text: str) -> bool:
    """Whether an address is one that anybody on the internet reaches, whatever it is wrapped in."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if address in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        if address.sixtofour is not None or address.teredo is not None or address in _COMPATIBLE:
            return False
        if address.is_site_local:
            return False
    if address in _METADATA:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def is_inside(text: str, networks: Sequence[str]) -> bool:
    """Whether an address is in one of the private networks that a rule names; a metadata service is in none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address not in _METADATA and any(address in ipaddress.ip_network(network) for network in networks)


async def system_resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name, by the resolver of the system. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The way out. The fields are seams: tests give a resolver and trust of their own, and allow loopback."""

    resolve: Resolve = system_resolve
    permitted: Permitted = is_public
    trust: ssl.SSLContext | None = None
    """Whom to believe who they are; without it, nobody: no TLS connection is made."""

    async def pin(self, host: str, port: int, networks: Sequence[str] = ()) -> str:
        """Return the one address to connect to, public or in `networks` (CIDR).

        Raises `Refused`: P006, or P005 if any address is forbidden.
        """
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                addresses = await self.resolve(host, port)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise Refused("CSM-P006", "the name does not resolve", host=host) from error
        if not addresses:
            raise Refused("CSM-P006", "the name has no address", host=host)
        if not all(self.permitted(address) or is_inside(address, networks) for address in addresses):
            # one forbidden address among good ones is a rebinding attempt, not an accident
            raise Refused("CSM-P005", "the name resolves to an address that no rule allows", host=host)
        return next((address for address in addresses if ":" not in address), addresses[0])

    async def connect(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a pinned address; raise `Refused` (P006)."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(address, port)
        except OSError as error:
            raise Refused("CSM-P006", f"no connection: {type(error).__name__}") from error

    async def connect_tls(
        self, address: str, port: int, host: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a pinned address, and let it prove that it is `host`; raise `Refused` (P006, P014)."""
        if self.trust is None:
            raise Refused("CSM-P014", "there are no trust anchors", host=host)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(
                    address, port, ssl=self.trust, server_hostname=host, limit=CHUNK, ssl_shutdown_timeout=2
                )
        except ssl.SSLCertVerificationError as error:
            raise Refused("CSM-P014", error.verify_message, host=host) from error
        except OSError as error:
            raise Refused("CSM-P006", f"no connection: {type(error).__name__}", host=host) from error


def client_context(anchors: Sequence[str] = ()) -> ssl.SSLContext:
    """Return what upstream servers are verified with: the system's authorities, and the PEM texts of the plan's."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for anchor in anchors:
        context.load_verify_locations(cadata=anchor)
    return context

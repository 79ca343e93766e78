"""The one normaliser: from a request head to the `EgressRequest` that it means, or a refusal. Pure.

What a name of a host is, `policies/hosts.py` says.
"""

from __future__ import annotations

import re

from policies import hosts
from policies.events import clean
from proxy.egress.types import EgressRequest, Head, Refused

_PATH = re.compile(r"[\x21\x22\x24-\x7e]*")  # visible ASCII without "#": a fragment is never sent
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)")
_DEFAULT_PORT = 80
_TLS_PORT = 443


def normalise(head: Head) -> EgressRequest:
    """Return what the head asks for; raise `Refused` when it is not exactly one allowed kind of proxy request."""
    if head.method == "CONNECT":
        host, port = authority(head.target, default=None)
        _same_host(head, host, port, default=None)
        return EgressRequest(scheme="https", host=host, port=port, method="CONNECT", path="")
    parts = _SCHEME.fullmatch(head.target)
    if parts is None:
        raise Refused("CSM-P001", "not a proxy request: the target must be an absolute http:// URL or CONNECT")
    scheme, where, path = parts[1].lower(), parts[2], parts[3]
    if scheme != "http":
        raise Refused("CSM-P010", f"scheme {clean(scheme, 20)} is not proxied; use CONNECT for https", host=where)
    host, port = authority(where, default=_DEFAULT_PORT)
    if not _PATH.fullmatch(path):
        raise Refused("CSM-P001", "malformed path", host=host)
    path = path if path.startswith("/") else "/" + path
    _same_host(head, host, port, default=_DEFAULT_PORT)
    _refuse_upgrade(head, host)
    return EgressRequest(scheme="http", host=host, port=port, method=head.method, path=path)


def normalise_inner(head: Head, host: str, port: int) -> EgressRequest:
    """Return what a head asks for that was read inside the inspected tunnel to `host`:`port`; raise `Refused`.

    The target is a path, or an absolute https URL of the same place. `Host` must name that place.
    """
    parts = _SCHEME.fullmatch(head.target)
    path = head.target
    if head.method == "CONNECT" or head.target == "*":
        raise Refused("CSM-P010", f"{head.method} {clean(head.target, 50)} inside a tunnel", host=host)
    if parts is not None:
        if parts[1].lower() != "https":
            raise Refused("CSM-P008", f"an {clean(parts[1], 20)} URL inside a tunnel", host=host)
        named, path = _place(parts[2], host), parts[3]
        if named != (host, port):
            raise Refused("CSM-P008", f"the target names {clean(parts[2], 100)}", host=host)
        path = path if path.startswith("/") else "/" + path
    if not path.startswith("/") or not _PATH.fullmatch(path):
        raise Refused("CSM-P001", "malformed path", host=host)
    if head.get("host") is None:
        raise Refused("CSM-P001", "no Host header", host=host)
    _same_host(head, host, port, default=_TLS_PORT)
    _refuse_upgrade(head, host)
    return EgressRequest(scheme="https", host=host, port=port, method=head.method, path=path)


def _place(text: str, host: str) -> tuple[str, int]:
    try:
        return authority(text, default=_TLS_PORT)
    except Refused as error:
        raise Refused("CSM-P008", f"the target is refused: {error.reason}", host=host) from error


def authority(text: str, *, default: int | None) -> tuple[str, int]:
    """Return the canonical host and the port of `host:port` as it came off the wire; raise `Refused`.

    `text` is Latin-1, one character a byte; bytes beyond ASCII must be UTF-8.
    Without `default`, a port must be written.
    """
    try:
        return hosts.authority(text.encode("latin-1").decode("utf-8"), default=default)
    except UnicodeDecodeError as error:
        raise Refused("CSM-P001", "not an internationalised host name", host=text) from error
    except hosts.NotAHostError as error:
        raise Refused("CSM-P004" if error.address else "CSM-P001", error.reason, host=error.host) from error


def _same_host(head: Head, host: str, port: int, *, default: int | None) -> None:
    """Refuse a Host header that names another place than the target.

    Threat: a policy that judges the one while the upstream serves the other.
    """
    text = head.get("host")
    if text is None:
        return
    try:
        named = authority(text, default=default if default is not None else port)
    except Refused as error:
        raise Refused("CSM-P008", f"Host header refused: {error.reason}", host=host) from error
    if named != (host, port):
        raise Refused("CSM-P008", f"Host header names {clean(text, 100)}", host=host)


def _refuse_upgrade(head: Head, host: str) -> None:
    tokens = {token.strip().lower() for token in (head.get("connection") or "").split(",")}
    if "upgrade" in tokens or head.get("upgrade") is not None or head.get("http2-settings") is not None:
        # WebSocket and h2c: after the upgrade nobody could judge what passes
        raise Refused("CSM-P010", "protocol upgrades are not allowed", host=host)
    if head.method in ("TRACE", "PRI"):
        raise Refused("CSM-P010", f"method {head.method} is not proxied", host=host)

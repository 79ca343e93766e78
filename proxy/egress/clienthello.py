"""The strict parser of a TLS ClientHello (RFC 8446, 4.1.2), as far as its server name. Pure.

Threat: an allowed CONNECT used as a pipe for something else (SSH, another TLS host behind the same front end). So
nothing is sent on before a complete, well-formed ClientHello has named the allowed host in the clear.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.egress.types import Refused

MAX_HELLO = 32 * 1024
"""Bytes that a ClientHello may take on the wire, record headers included; post-quantum ones take about 2 KiB."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ECH, _ESNI = 0x0000, 0xFE0D, 0xFFCE


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What the policy needs to know. `name` is lower case, or None where no server name was sent."""

    name: str | None
    encrypted: bool


class _MalformedError(Exception):
    """Not a ClientHello; caught in this file."""


@dataclass(slots=True)
class _Cursor:
    data: bytes
    at: int = 0

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise _MalformedError
        self.at += size
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, prefix: int, least: int, most: int) -> _Cursor:
        size = self.number(prefix)
        if not least <= size <= most:
            raise _MalformedError
        return _Cursor(self.take(size))

    @property
    def done(self) -> bool:
        return self.at == len(self.data)


def parse_client_hello(buffer: bytes) -> ClientHello | None:
    """Return the ClientHello that `buffer` begins with, None while incomplete; raise `Refused` if it is none."""
    try:
        message = _handshake(buffer)
        return None if message is None else _client_hello(_Cursor(message))
    except _MalformedError:
        raise Refused("CSM-P007", "the tunnel does not begin with a well-formed TLS ClientHello") from None


def _handshake(buffer: bytes) -> bytes | None:
    """Return the first handshake message, put together from its records; None while incomplete."""
    message, at = b"", 0
    while at < MAX_HELLO:
        header = buffer[at : at + 5]
        if not _record_header(header):
            raise _MalformedError
        if message[:1] not in (b"", bytes([_CLIENT_HELLO])):
            raise _MalformedError
        if len(header) < 5:
            return None
        size = int.from_bytes(header[3:5], "big")
        part = buffer[at + 5 : at + 5 + size]
        message += part
        if message[:1] not in (b"", bytes([_CLIENT_HELLO])):
            raise _MalformedError
        if len(message) >= 4:
            want = 4 + int.from_bytes(message[1:4], "big")
            if want > MAX_HELLO or len(message) > want:
                raise _MalformedError
            if len(message) == want and len(part) == size:
                return message[4:]
        if len(part) < size:
            return None
        at += 5 + size
    raise _MalformedError


def _record_header(header: bytes) -> bool:
    """Whether these are the first bytes of a plaintext handshake record of TLS 1.0 to 1.3."""
    return (
        header[:1] in (b"", bytes([_HANDSHAKE]))
        and header[1:2] in (b"", b"\x03")
        and header[2:3] in (b"", b"\x01", b"\x02", b"\x03")
        and (len(header) < 5 or 0 < int.from_bytes(header[3:5], "big") <= 2**14)
    )


def _client_hello(body: _Cursor) -> ClientHello:
    if body.number(2) != 0x0303:
        raise _MalformedError
    body.take(32)
    body.vector(1, 0, 32)
    if len(body.vector(2, 2, 65534).data) % 2:
        raise _MalformedError
    body.vector(1, 1, 255)
    extensions = _Cursor(b"") if body.done else body.vector(2, 0, 65535)
    if not body.done:
        raise _MalformedError
    name, seen = None, set[int]()
    while not extensions.done:
        kind = extensions.number(2)
        content = extensions.vector(2, 0, 65535)
        if kind in seen:
            raise _MalformedError
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _server_name(content)
    return ClientHello(name=name, encrypted=bool(seen & {_ECH, _ESNI}))


def _server_name(content: _Cursor) -> str:
    names = content.vector(2, 1, 65535)
    if names.number(1) != 0:
        raise _MalformedError
    name = names.vector(2, 1, 255).data
    if not (content.done and names.done and name.isascii()):
        raise _MalformedError
    return name.decode("ascii").lower()


def check_hello(hello: ClientHello, host: str) -> None:
    """Raise `Refused` unless the ClientHello names exactly `host`, in the clear."""
    if hello.encrypted:
        # the outer name would be a cover for an inner one that nobody here can read
        raise Refused("CSM-P007", "encrypted ClientHello", host=host)
    if hello.name is None:
        raise Refused("CSM-P007", "no server name in the ClientHello", host=host)
    if hello.name != host:
        raise Refused("CSM-P007", f"the ClientHello names {hello.name[:100]}", host=host)

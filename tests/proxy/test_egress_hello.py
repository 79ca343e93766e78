"""ClientHellos: real ones, cut into any pieces, and ones that are not."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.egress.clienthello import MAX_HELLO, ClientHello, check_hello, parse_client_hello
from proxy.egress.types import Refused


def hello(name: str | None = "a.example", *, alpn: list[str] | None = None) -> bytes:
    """The first bytes that a TLS client of the standard library sends."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def body_of(data: bytes) -> bytes:
    return data[5:]


def records(message: bytes, size: int) -> bytes:
    """The same handshake message in records of `size` bytes."""
    parts = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


def with_extension(kind: int, content: bytes) -> bytes:
    """A real ClientHello with one more extension at its end."""
    message = body_of(hello())
    body = message[4:]
    at = 2 + 32
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    more = kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    extensions = body[at + 2 :] + more
    body = body[:at] + len(extensions).to_bytes(2, "big") + extensions
    return records(b"\x01" + len(body).to_bytes(3, "big") + body, 2**14)


def test_the_name_of_a_real_hello_is_read() -> None:
    assert parse_client_hello(hello("A.Example")) == ClientHello(name="a.example", encrypted=False)
    assert parse_client_hello(hello(alpn=["h2", "http/1.1"])) == ClientHello(name="a.example", encrypted=False)
    assert parse_client_hello(hello(None)) == ClientHello(name=None, encrypted=False)


@given(st.integers(min_value=1, max_value=600))
@settings(max_examples=40)
def test_a_hello_in_any_number_of_records_and_segments_is_read_once_complete(size: int) -> None:
    data = records(body_of(hello()), size)
    for end in range(0, len(data), 97):
        assert parse_client_hello(data[:end]) is None
    assert parse_client_hello(data) == ClientHello(name="a.example", encrypted=False)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x02\x00",
        b"\x16\x03\x04",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x80\x2e\x01\x03\x01",
        records(body_of(hello()) + b"\x01", 2**14),
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
    ],
)
def test_trap_4_what_is_no_hello_is_refused_at_its_first_bytes(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_client_hello(data)
    assert refused.value.code == "CSM-P007"


def test_an_endless_hello_is_refused() -> None:
    message = b"\x01" + (MAX_HELLO - 5).to_bytes(3, "big")
    with pytest.raises(Refused):
        parse_client_hello(records(message + b"\x03" * (MAX_HELLO - 100), 1))


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE])
def test_an_encrypted_hello_is_seen_and_refused(kind: int) -> None:
    found = parse_client_hello(with_extension(kind, b"\x00" * 8))
    assert found == ClientHello(name="a.example", encrypted=True)
    with pytest.raises(Refused):
        check_hello(found, "a.example")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x00",
        b"\x00\x09\x00\x00\x06b.evil",  # a second server name extension
    ],
)
def test_a_second_or_empty_server_name_is_refused(content: bytes) -> None:
    with pytest.raises(Refused):
        parse_client_hello(with_extension(0, content))


@pytest.mark.parametrize(("name", "allowed"), [("a.example", True), ("b.example", False), (None, False), ("", False)])
def test_row_16_only_the_allowed_name_passes(name: str | None, allowed: bool) -> None:
    found = ClientHello(name=name, encrypted=False)
    if allowed:
        check_hello(found, "a.example")
    else:
        with pytest.raises(Refused) as refused:
            check_hello(found, "a.example")
        assert refused.value.code == "CSM-P007"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_hello_incomplete_or_refused(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01"):
        try:
            found = parse_client_hello(start + data)
        except Refused:
            continue
        assert found is None or found.name != ""

"""The strict parser of request heads: pure, and the only place where a head's bytes are read.

Threat: two parsers that read one head differently (request smuggling). So whatever has two readings is refused: bare
LF or CR, folded lines, spaces around names, a second Host or length, both framings at once, unknown transfer codings.
"""

from __future__ import annotations

import re
from typing import Literal

from proxy.egress.types import Head, Refused

MAX_HEAD = 32 * 1024
"""Bytes of a request head, its last empty line included."""

MAX_HEADERS = 100
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]{1,16384}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,14}")
_ONCE = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"})


def split_head(buffer: bytes) -> int | None:
    """Return the length of the head at the start of `buffer`, or None while it is not complete.

    Refuses as soon as the bytes cannot become a head: too long, a bare LF, or a control character.
    """
    end = buffer.find(b"\r\n\r\n")
    part = buffer if end < 0 else buffer[: end + 4]
    if len(part) > MAX_HEAD or (end < 0 and len(part) == MAX_HEAD):
        raise Refused("CSM-P002", f"request head over {MAX_HEAD} bytes")
    if part.count(b"\n") != part.count(b"\r\n"):
        raise Refused("CSM-P001", "bare line feed in the request head")
    if part[:1] and not (0x21 <= part[0] <= 0x7E):
        raise Refused("CSM-P001", "request does not start with a method")
    return None if end < 0 else end + 4


def parse_head(data: bytes) -> Head:
    """Return the one reading of a complete head; raise `Refused` when there is none, or more than one."""
    lines = data.decode("latin-1").split("\r\n")
    if len(data) > MAX_HEAD or lines[-2:] != ["", ""] or any("\r" in line or "\n" in line for line in lines):
        raise Refused("CSM-P001", "malformed line ends")
    method, target, version = _request_line(lines[0])
    if len(lines) - 3 > MAX_HEADERS:
        raise Refused("CSM-P002", f"over {MAX_HEADERS} headers")
    headers = tuple(_header(line) for line in lines[1:-2])
    head = Head(method=method, target=target, version=version, headers=headers)
    _refuse_two_readings(head)
    return head


def _request_line(line: str) -> tuple[str, str, Literal["HTTP/1.1", "HTTP/1.0"]]:
    parts = line.split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not _TARGET.fullmatch(parts[1]):
        raise Refused("CSM-P001", "malformed request line")
    match parts[2]:
        case "HTTP/1.1" | "HTTP/1.0" as version:
            return parts[0], parts[1], version
        case "HTTP/2.0":
            raise Refused("CSM-P010", "HTTP/2 without TLS is not spoken here")
        case _:
            raise Refused("CSM-P001", "unknown protocol version")


def _header(line: str) -> tuple[str, str]:
    if line[:1] in (" ", "\t"):
        raise Refused("CSM-P001", "folded header line")
    name, colon, value = line.partition(":")
    if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise Refused("CSM-P001", "malformed header line")
    return name.lower(), value.strip(" \t")


def _refuse_two_readings(head: Head) -> None:
    names = [name for name, _ in head.headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise Refused("CSM-P001", f"more than one {name} header")
    length, coding = head.get("content-length"), head.get("transfer-encoding")
    if length is not None and coding is not None:
        raise Refused("CSM-P001", "both content-length and transfer-encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise Refused("CSM-P001", "malformed content-length")
    if coding is not None and (coding.lower() != "chunked" or head.version != "HTTP/1.1"):
        raise Refused("CSM-P001", "transfer-encoding other than chunked")
    if head.method == "CONNECT" and (coding is not None or length not in (None, "0")):
        raise Refused("CSM-P001", "CONNECT with a body")
    if head.method != "CONNECT" and head.version == "HTTP/1.1" and head.get("host") is None:
        raise Refused("CSM-P001", "no Host header")
    if head.get("expect") not in (None, "100-continue"):
        raise Refused("CSM-P001", "unknown expectation")

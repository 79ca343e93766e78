"""What runs in the containers of the outside lab: `dns` or `origin`. Each tells what arrived, one line of JSON each.

Standard library only: it is copied into a container.
"""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_LOCK = threading.Lock()
PORTS = {443: True, 8443: True, 80: False}
TYPES = {1: "A", 28: "AAAA"}


def tell(**fields: Any) -> None:
    """Say what arrived."""
    with _LOCK:
        print(json.dumps(fields), flush=True)


# ---- dns


def answer(query: bytes, zone: dict[str, list[list[str]]], asked: dict[str, int]) -> bytes:
    """Return the response to a query, and tell of it."""
    at, labels = 12, []
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode("latin-1"))
        at += 1 + size
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    question = query[12 : at + 5]
    name = ".".join(labels).lower()
    tell(query=f"{TYPES.get(kind, kind)} {name}")
    found: list[str] = []
    if kind == 1 and name in zone:
        rounds = zone[name]
        found = rounds[min(asked.get(name, 0), len(rounds) - 1)]
        asked[name] = asked.get(name, 0) + 1
    records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(address) for address in found)
    code = 0 if name in zone else 3
    return query[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(found), 0, 0) + question + records


def dns(zone: dict[str, list[list[str]]]) -> None:
    """Answer on port 53, over UDP."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 53))
    asked: dict[str, int] = {}
    tell(ready=True)
    while True:
        query, client = server.recvfrom(4096)
        try:
            server.sendto(answer(query, zone, asked), client)
        except (IndexError, struct.error):
            tell(query="malformed")


# ---- origin


class Origin(BaseHTTPRequestHandler):
    """Answers every request with 200, or with what the query asks for: `to` (a redirect), `size` (bytes)."""

    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ssl.SSLError):
            self.close_connection = True

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        asked = parse_qs(urlsplit(self.path).query)
        headers = {name.lower(): value for name, value in self.headers.items()}
        tell(
            scheme="https" if isinstance(self.connection, ssl.SSLSocket) else "http",
            port=self.connection.getsockname()[1], method=self.command, path=self.path, headers=headers, size=len(body),
            body=body[:200].decode(errors="replace"),
        )  # fmt: skip
        echo = "; ".join(f"{name}={value}" for name, value in headers.items())
        data = b"x" * int(asked["size"][0]) if "size" in asked else f"hello; {echo}".encode()
        self.send_response(302 if "to" in asked else 200)
        if "to" in asked:
            self.send_header("Location", asked["to"][0])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


class Listener(ThreadingHTTPServer):
    """Tells of every connection before anything else."""

    daemon_threads = True

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__(("0.0.0.0", port), Origin)
        self._context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        tell(connection=self.server_port)
        try:
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        except OSError as error:
            tell(failed=type(error).__name__)


def origin() -> None:
    """Serve HTTP over TLS and plain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/srv/server.pem")
    servers: list[socketserver.BaseServer] = [Listener(port, context if tls else None) for port, tls in PORTS.items()]
    tell(ready=True)
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "dns":
        dns(json.loads(Path("/srv/config.json").read_bytes()))
    else:
        origin()

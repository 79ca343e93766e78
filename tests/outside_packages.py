"""Package indexes and a repository of our own, over TLS: pip, npm, apt and git find here what they look for.

Standard library only; git itself serves its protocol. It is copied into a container that has git.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import ssl
import subprocess
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_LOCK = threading.Lock()
REPOSITORIES = "/tmp/git"
DOMAIN = "example.com"


def tell(**fields: Any) -> None:
    """Say what arrived."""
    with _LOCK:
        print(json.dumps(fields), flush=True)


def wheel() -> bytes:
    """A wheel with one module."""
    files = {
        "parcel.py": "ANSWER = 42\n",
        "parcel-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n",
        "parcel-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files["parcel-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in [*files, "parcel-1.0.dist-info/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def tarball(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def deb() -> bytes:
    """A Debian package: an ar archive of three members."""
    control = b"Package: parcel\nVersion: 1.0\nArchitecture: all\nMaintainer: test <t@example.com>\nDescription: test\n"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": tarball({"./control": control}),
        "data.tar.gz": tarball({"./usr/share/parcel/answer": b"42\n"}),
    }
    out = b"!<arch>\n"
    for name, data in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def files() -> dict[tuple[str, str], tuple[str, bytes]]:
    """Return what is served: (host, path) to type and content."""
    whl, package = wheel(), deb()
    parcel = tarball({
        "package/package.json": b'{"name": "parcel", "version": "1.0.0", "main": "index.js"}',
        "package/index.js": b"module.exports = 42;\n",
    })  # fmt: skip
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(parcel).digest()).decode()
    url = f"https://npm.{DOMAIN}/parcel/-/parcel-1.0.0.tgz"
    version = {"name": "parcel", "version": "1.0.0", "dist": {"tarball": url, "integrity": integrity}}
    packument = {"name": "parcel", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    index = (
        "Package: parcel\nVersion: 1.0\nArchitecture: all\nMaintainer: test <t@example.com>\nDescription: test\n"
        f"Filename: ./parcel_1.0_all.deb\nSize: {len(package)}\nSHA256: {hashlib.sha256(package).hexdigest()}\n\n"
    ).encode()
    name = "parcel-1.0-py3-none-any.whl"
    link = f'<a href="/files/{name}#sha256={hashlib.sha256(whl).hexdigest()}">{name}</a>'
    return {
        (f"pip.{DOMAIN}", "/simple/parcel/"): (
            "text/html",
            f"<!DOCTYPE html><html><body>{link}</body></html>".encode(),
        ),
        (f"pip.{DOMAIN}", f"/files/{name}"): ("application/octet-stream", whl),
        (f"npm.{DOMAIN}", "/parcel"): ("application/json", json.dumps(packument).encode()),
        (f"npm.{DOMAIN}", "/parcel/-/parcel-1.0.0.tgz"): ("application/octet-stream", parcel),
        (f"apt.{DOMAIN}", "/./Packages"): ("text/plain", index),
        (f"apt.{DOMAIN}", "/Packages"): ("text/plain", index),
        (f"apt.{DOMAIN}", "/Packages.gz"): ("application/gzip", gzip.compress(index)),
        (f"apt.{DOMAIN}", "/parcel_1.0_all.deb"): ("application/octet-stream", package),
        (f"apt.{DOMAIN}", "/./parcel_1.0_all.deb"): ("application/octet-stream", package),
    }


def repository() -> None:
    """Make a bare repository with one commit."""
    script = (
        "mkdir -p /tmp/work /tmp/git && cd /tmp/work && git init -q -b main . && echo 42 > answer && git add . &&"
        " git -c user.name=t -c user.email=t@example.com commit -q -m one && git clone -q --bare . /tmp/git/parcel.git"
    )
    subprocess.run(["sh", "-c", script], check=True)


class Origin(BaseHTTPRequestHandler):
    """All indexes, told apart by the Host header."""

    protocol_version = "HTTP/1.1"
    served = files()

    def do_GET(self) -> None:
        self._serve(b"")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self._serve(body)

    def _serve(self, body: bytes) -> None:
        host, path = self.headers["host"].split(":")[0], urlsplit(self.path).path
        tell(method=self.command, host=host, path=path, agent=self.headers.get("user-agent", ""))
        if host.startswith("git."):
            return self._git(body)
        kind, data = self.served.get((host, path), ("", b"not found"))
        return self._answer(200 if kind else 404, {"Content-Type": kind or "text/plain"}, data)

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _git(self, body: bytes) -> None:
        """Let git's own program answer, over CGI."""
        url = urlsplit(self.path)
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": REPOSITORIES, "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": url.path, "QUERY_STRING": url.query, "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("content-type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""), "REMOTE_ADDR": "127.0.0.1",
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""), "HOME": "/tmp",
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=False)
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n") if b": " in line)
        status = int(headers.pop("Status", "200 OK").split()[0])
        self._answer(status, headers, data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


class Listener(ThreadingHTTPServer):
    """Every connection has a thread, its handshake too."""

    daemon_threads = True
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        super().finish_request(self.context.wrap_socket(request, server_side=True), client_address)


if __name__ == "__main__":
    repository()
    server = Listener(("0.0.0.0", 443), Origin)
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain("/srv/server.pem")
    tell(ready=True)
    server.serve_forever()

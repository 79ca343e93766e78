"""`python -m tests.proxy.bench_egress`, in the rooms' environment: what the firewall costs, in CPU of its own process.

Clients and the destination are processes of their own; the event log is in memory. Printed: microseconds a request of a
kept connection, plain and inspected, a new inspected connection, and for a body of 100 MB the memory that it adds.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from proxy.egress.issuer import Issuer
from tests.proxy.kit import Names, firewall_for, make_plan, rule
from tests.proxy.outside import certificate

BODY = 100 << 20


async def serve(certificate_file: str, key: str) -> None:
    """The destination: TLS and plain, small answers, and large ones for /big."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate_file, key)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await converse(reader, writer)
        writer.close()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            left = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            while left:
                left -= len(await reader.read(min(left, 65536)))
            if b"/big" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
                for _ in range(BODY >> 16):
                    writer.write(b"x" * 65536)
                    await writer.drain()
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    servers = [await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context) for context in (None, tls)]
    sys.stdout.write(" ".join(str(server.sockets[0].getsockname()[1]) for server in servers) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def ask(path: str, kind: str, port: str, times: int, authority: str) -> None:
    """The client: `kept` and `plain` over one connection, `new` over one each, `up` and `down` a large body."""
    tls = ssl.create_default_context(cafile=authority)
    where = f"a.example:{port}"

    def connection() -> socket.socket:
        wire = socket.socket(socket.AF_UNIX)
        wire.connect(path)
        if kind == "plain":
            return wire
        wire.sendall(f"CONNECT {where} HTTP/1.1\r\n\r\n".encode())
        while not wire.recv(65536).endswith(b"\r\n\r\n"):
            pass
        return tls.wrap_socket(wire, server_hostname="a.example")

    wire = connection()
    for _ in range(times):
        if kind == "new":
            wire.close()
            wire = connection()
        method, target = ("POST", "/x") if kind == "up" else ("GET", "/big" if kind == "down" else "/x")
        target = f"http://{where}{target}" if kind == "plain" else target
        more = f"content-length: {BODY}\r\n" if kind == "up" else ""
        wire.sendall(f"{method} {target} HTTP/1.1\r\nHost: {where}\r\nAccept: */*\r\n{more}\r\n".encode())
        for _ in range(BODY >> 16 if kind == "up" else 0):
            wire.sendall(b"x" * 65536)
        got, want = 0, BODY if kind == "down" else 40
        while got < want:
            got += len(wire.recv(65536))


def memory() -> int:
    """Resident bytes of this process."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


async def run(*arguments: str) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "tests.proxy.bench_egress", *arguments]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def main() -> None:
    """Measure, and print."""
    root = Path(tempfile.mkdtemp(prefix="csm-"))
    for folder in ("doors/work", "doors/other", "doors/up-teacher", "doors/up-remote"):
        (root / folder).mkdir(parents=True)
    _, trust = certificate(root, "a.example")
    issuer = Issuer()
    (root / "ca.pem").write_text(issuer.certificate)
    server = await run("serve", str(root / "a.example.pem"), str(root / "a.example.key"))
    assert server.stdout is not None
    plain, tls = (await server.stdout.readline()).decode().split()
    rules = [
        rule("a.example", int(plain), "http", ["GET"], ["/x"]),
        rule("a.example", int(tls), methods=["GET", "POST"], paths=["/"], inspect=True),
    ]
    names = Names(a_example=["127.0.0.1"])
    async with firewall_for(make_plan(egress=rules), root, names, trust=trust, issuer=issuer) as log:
        for kind, times in (("plain", 2000), ("kept", 2000), ("new", 300), ("down", 1), ("up", 1)):
            for count in (max(1, times // 20), times):  # the first warms up
                cpu, before = time.process_time(), memory()
                port = plain if kind == "plain" else tls
                door = root / "doors" / "work" / "egress.sock"
                client = await run("ask", str(door), kind, port, str(count), str(root / "ca.pem"))
                assert await client.wait() == 0
                log.lines.clear()
            used = (time.process_time() - cpu) / count * 1e6
            sys.stdout.write(f"{kind:6} {used:10,.0f} µs  memory {(memory() - before) / 2**20:+.1f} MiB\n")
    server.kill()
    await server.wait()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", *files]:
            asyncio.run(serve(*files))
        case ["ask", path, kind, port, times, authority]:
            ask(path, kind, port, int(times), authority)
        case _:
            asyncio.run(main())

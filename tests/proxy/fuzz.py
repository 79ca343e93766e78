"""`python -m tests.proxy.fuzz egress|llm [SECONDS] [SEED]`: raw bytes at a door, made from requests and pieces of them.

What must hold for every input: the door answers or hangs up in time, nothing fails inside (CSM-P019), and whatever
reached the other side is what the plan allows, read there by another parser than ours. A violation is printed with the
input that caused it, and the exit code is 1.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import h11

from proxy.egress.issuer import Issuer
from tests.proxy.kit import KEY, Names, firewall_for, llm_for, make_plan, rule
from tests.proxy.outside import certificate

HANG_S = 20.0
AT_ONCE = 16
arrived: list[bytes] = []
"""Targets of requests that reached the other side: a fuzzer whose inputs are all refused at once finds nothing."""
LINES = [
    b"GET http://plain.example:%d/public/x HTTP/1.1", b"GET /public/x HTTP/1.1", b"CONNECT a.example:%d HTTP/1.1",
    b"GET http://evil.example:%d/public HTTP/1.1", b"POST http://plain.example:%d/public HTTP/1.1",
    b"GET http://plain.example:%d/private HTTP/1.1", b"GET /public/../private HTTP/1.1", b"PRI * HTTP/2.0",
    b"GET http://plain.example:%d@evil.example/ HTTP/1.1", b"GET //evil.example/public HTTP/1.1",
]  # fmt: skip
HEADERS = [
    b"Host: plain.example:%d", b"Host: a.example:%d", b"Host: evil.example", b"Content-Length: 5",
    b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked",
    b"Content-Length: +5", b"Content-Length: 5, 5", b" folded", b"\tfolded", b"X: a\rb", b"X: a\nY: b", b"X:\x00",
    b"Connection: close", b"Connection: upgrade", b"Upgrade: websocket", b"Connection: host", b"Expect: 100-continue",
    b"TE: trailers", b"Trailer: Host", b":authority: evil.example", b"Host:evil.example", b"HOST: evil.example",
    b"Proxy-Connection: keep-alive", b"Authorization: Bearer x", b"x-api-key: y", b"Content-Type: application/json",
]  # fmt: skip
BODIES = [
    b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"0\r\nHost: evil.example\r\n\r\n",
    b"5;x=y\r\nhello\r\n0\r\n\r\n", b"00000005\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"-1\r\n", b"ffffffffffffffff\r\n",
    b"0\r\n\r\nGET http://evil.example/public HTTP/1.1\r\nHost: evil.example\r\n\r\n",
]  # fmt: skip
PIECES = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\x7f", b"\x80\xff", b":", b"/", b"//", b"\\", b"%2e%2e",
    b"%2f", b"%00", b"..", b"?", b"#", b"@", b"*", b"HTTP/1.0", b"HTTP/9.9", b"0", b"-", b"9" * 40, b"a" * 300,
    b"\xef\xbb\xbf", b"\xc0\xae", b'"', b"{", b"}", b"[", b"]", b",", b"null", b"true", b"1e999", b"NaN", b"\\u0000",
    b"\\ud800", b"\\u0022",
]  # fmt: skip


def request(random: Random, port: int, *, inside: bool) -> bytes:
    """Return some requests, each of which may be sound, nearly sound, or put together from anything."""
    out = b""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        sound = random.random() < 0.5
        line = LINES[inside] if sound else random.choice(LINES)
        heads = [HEADERS[inside]] if sound else random.sample(HEADERS, random.randint(0, 4))
        if random.random() < 0.4:
            heads.insert(random.randint(0, len(heads)), random.choice(HEADERS))
        end = b"\r\n" if sound or random.random() < 0.9 else b"\n"
        body = b"" if sound and random.random() < 0.7 else random.choice(BODIES)
        out += end.join([line, *heads, b"", b""]).replace(b"%d", b"%d" % port) + body
    return mutate(random, out) if random.random() < 0.5 else out


def mutate(random: Random, text: bytes) -> bytes:
    """Return `text` with a few pieces put in, taken out, or said again."""
    data = bytearray(text)
    for _ in range(random.choice([1, 1, 2, 4])):
        at, length = random.randint(0, len(data)), random.choice([0, 1, 1, 4, 20])
        match random.randint(0, 3):
            case 0 | 1:
                data[at : at + length] = random.choice(PIECES)
            case 2:
                data[at : at + length] = data[at : at + length] * random.randint(0, 3)
            case _:
                data[at : at + 1] = bytes([random.randrange(256)])
    return bytes(data)


async def say(
    path: Path, random: Random, data: bytes, inside: Callable[..., Any] | None = None, patience: float | None = None
) -> bytes:
    """Say `data` to a door, in parts, and return what came back.

    Without `patience` one half is closed, and the door has to end the conversation; with it, we hang up when nothing
    has come for so many seconds.
    """
    async with asyncio.timeout(HANG_S):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            if inside is not None:
                await inside(reader, writer)
            for at in range(0, len(data), size := random.choice([1 << 20, 1 << 20, 40, 7])):
                writer.write(data[at : at + size])
                if size < 1000:
                    await asyncio.sleep(0)
            if patience is None and inside is None:
                writer.write_eof()
                return await reader.read()
            return await _listen(reader, patience or 0.2)
        except (ConnectionError, ssl.SSLError):
            return b""
        finally:
            writer.close()


async def _listen(reader: asyncio.StreamReader, patience: float) -> bytes:
    heard = b""
    with suppress(TimeoutError):
        while part := await asyncio.wait_for(reader.read(65536), patience):
            heard += part
    return heard


@asynccontextmanager
async def reading(
    found: list[str], judge: Callable[[h11.Request, bytes, bytes], list[str]], answer: bytes, **where: Any
) -> AsyncIterator[asyncio.Server]:
    """A server that reads with h11 and reports what `judge` says of each request: head, body, and the raw bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server, raw, part = h11.Connection(h11.SERVER), b"", b""
        try:
            while (part := await reader.read(65536)) or raw:
                raw += part
                server.receive_data(part)
                if not _take(server, raw, writer):
                    break
        except h11.RemoteProtocolError as error:
            if part:  # else the cell hung up in the middle
                found.append(f"the other side cannot read {raw!r}: {error}")
        except (OSError, h11.LocalProtocolError):
            pass
        finally:
            writer.close()

    def _take(server: h11.Connection, raw: bytes, writer: asyncio.StreamWriter) -> bool:
        while (event := server.next_event()) is not h11.NEED_DATA:
            match event:
                case h11.Request():
                    heads[server], bodies[server] = event, b""
                case h11.Data():
                    bodies[server] += event.data
                case h11.EndOfMessage():
                    arrived.append(heads[server].target)
                    found.extend(judge(heads[server], bodies[server], raw))
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                    server.send(h11.Response(status_code=200, headers=[("content-length", str(len(answer)))]))
                    server.send(h11.Data(data=answer))
                    server.send(h11.EndOfMessage())
                    server.start_next_cycle()
                case _:
                    return False
        return True

    heads: dict[h11.Connection, h11.Request] = {}
    bodies: dict[h11.Connection, bytes] = {}
    path = where.pop("path", None)
    listener = await (
        asyncio.start_unix_server(serve, path) if path else asyncio.start_server(serve, "127.0.0.1", 0, **where)
    )
    try:
        yield listener
    finally:
        listener.close()


# ---- the firewall


def judge_get(host: str, ports: dict[str, int]) -> Callable[[h11.Request, bytes, bytes], list[str]]:
    """Return what tells what is wrong with a request that arrived, of which the rules allow GET below /public."""

    def judge(request: h11.Request, body: bytes, raw: bytes) -> list[str]:
        hosts = [value for name, value in request.headers if name == b"host"]
        path = request.target.partition(b"?")[0]
        wrong = ["method"] if request.method != b"GET" else []
        if hosts != [f"{host}:{ports[host]}".encode()]:
            wrong.append("host")
        if (
            not (path == b"/public" or path.startswith(b"/public/"))
            or b".." in path.split(b"/")
            or b"%2" in path.lower()
        ):
            wrong.append("path")
        return [f"{', '.join(wrong)} of a request that arrived: {raw!r}"] if wrong else []

    return judge


async def fuzz_egress(root: Path, seconds: float, random: Random) -> tuple[int, list[str]]:
    """Send bytes to the egress door, and inside inspected tunnels."""
    found: list[str] = []
    server_tls, trust = certificate(root, "a.example")
    issuer = Issuer()
    client = ssl.create_default_context(cadata=issuer.certificate)
    ports: dict[str, int] = {}
    plainly, inside_it = judge_get("plain.example", ports), judge_get("a.example", ports)
    async with (
        reading(found, plainly, b"ok") as one_server,
        reading(found, inside_it, b"ok", ssl=server_tls) as other_server,
    ):
        ports["plain.example"] = plain = one_server.sockets[0].getsockname()[1]
        ports["a.example"] = inspected = other_server.sockets[0].getsockname()[1]
        allowed = {"methods": ["GET"], "paths": ["/public"]}
        rules = [
            rule("plain.example", plain, "http", **allowed),  # type: ignore[arg-type]
            rule("a.example", inspected, inspect=True, **allowed),  # type: ignore[arg-type]
        ]
        names = Names(plain_example=["127.0.0.1"], a_example=["127.0.0.1"])
        door = root / "doors" / "work" / "egress.sock"

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            target = f"a.example:{inspected}"
            writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(client, server_hostname="a.example")

        async with firewall_for(make_plan(egress=rules), root, names, trust=trust, issuer=issuer) as log:

            async def one() -> bytes:
                inside = tunnel if random.random() < 0.1 else None
                data = request(random, inspected if inside else plain, inside=inside is not None)
                await _try(say(door, random, data, inside), data, found)
                return data

            count = await _many(one, seconds, log.lines, found)
            await _control(say(door, random, _get(plain)), found)
            if "evil.example" in names.asked:
                found.append("a name that no rule allows was resolved")
    return count, found


def _get(port: int) -> bytes:
    return b"GET http://plain.example:%d/public HTTP/1.1\r\nHost: plain.example:%d\r\nConnection: close\r\n\r\n" % (
        port,
        port,
    )


# ---- the llm proxy


CALLS = [
    ("/v1/chat/completions", {"model": "teacher", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}),
    ("/v1/chat/completions", {"model": "teacher", "messages": [{"role": "user", "content": "hi"}], "stream": True}),
    ("/v1/responses", {"model": "teacher", "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]}),  # noqa: E501
    ("/v1/messages", {"model": "teacher", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}),
    ("/v1/chat/completions", {"model": "other", "messages": [], "n": 7, "tools": [{"type": "web_search"}]}),
]  # fmt: skip
SENT = frozenset({"model", "messages", "max_tokens", "stream", "stream_options", "input", "max_output_tokens", "store"})
ANSWER = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "tiny-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip


def call(random: Random) -> bytes:
    """Return one or two calls, mostly plausible."""
    out = b""
    for _ in range(random.choice([1, 1, 2])):
        path, body = random.choice(CALLS)
        data = json.dumps(body).encode()
        if random.random() < 0.6:
            data = mutate(random, data)
        heads = [f"POST {path} HTTP/1.1".encode(), b"Host: 127.0.0.1:4000", b"Content-Type: application/json"]
        heads += [random.choice(HEADERS) for _ in range(random.choice([0, 0, 0, 1, 2]))]
        heads.append(b"Content-Length: %d" % len(data))
        out += b"\r\n".join([*heads, b"", b""]) + data
    return mutate(random, out) if random.random() < 0.3 else out


async def fuzz_llm(root: Path, seconds: float, random: Random) -> tuple[int, list[str]]:
    """Send bytes to the LLM door, with a provider behind it that reads with h11."""
    found: list[str] = []
    door = root / "doors" / "work" / "llm.sock"
    provider = reading(found, judge_call, json.dumps(ANSWER).encode(), path=root / "doors" / "up-teacher" / "up.sock")
    async with provider, llm_for(make_plan(), root) as log:

        async def one() -> bytes:
            data = call(random)
            answer = await _try(say(door, random, data, patience=0.1), data, found)
            if KEY.encode() in answer:
                found.append(f"the key came back for {data!r}")
            return data

        count = await _many(one, seconds, log.lines, found, at_once=64)
        path, body = CALLS[0]
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        await _control(say(door, random, head.encode() + data, patience=5), found)
    return count, found


def judge_call(request: h11.Request, body: bytes, raw: bytes) -> list[str]:
    """Return what is wrong with a call that arrived at the provider."""
    if request.target not in (b"/v1/chat/completions", b"/v1/responses"):
        return [f"the provider was asked at {request.target!r}"]
    fields = json.loads(body)
    most = fields.get("max_tokens", fields.get("max_output_tokens"))
    known = SENT | {"temperature", "stop", "user", "seed", "tools", "top_p", "metadata", "instructions"}
    if fields.get("model") != "tiny-model" or not isinstance(most, int) or not 0 < most <= 50 or fields.keys() - known:
        return [f"the provider was asked {body!r}"]
    return []


# ---- both


async def _try(conversation: Any, data: bytes, found: list[str]) -> bytes:
    try:
        return bytes(await conversation)
    except TimeoutError:
        found.append(f"no answer and no end within {HANG_S:.0f} s for {data!r}")
    return b""


async def _control(conversation: Any, found: list[str]) -> None:
    """After all that, the door still serves."""
    if not (answer := await conversation).startswith(b"HTTP/1.1 200"):
        found.append(f"in the end the door does not serve: {answer!r}")


async def _many(
    one: Callable[[], Any], seconds: float, lines: list[dict[str, Any]], found: list[str], at_once: int = AT_ONCE
) -> int:
    until, count = time.monotonic() + seconds, 0

    async def worker() -> None:
        nonlocal count
        while time.monotonic() < until and not found:
            data = await one()
            count += 1
            failed = [line["reason"] for line in lines if line["rule"] == "CSM-P019"]
            found.extend(f"internal failure ({reason}) near {data!r}" for reason in failed)
            if len(lines) > 1000:
                lines.clear()

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return count


def fuzz(door: str, seconds: float, seed: int) -> tuple[int, list[str]]:
    """Return how many inputs were tried, and what went wrong."""
    root = Path(tempfile.mkdtemp(prefix="csm-"))
    for folder in ("doors/work", "doors/other", "doors/up-teacher", "doors/up-remote", "models/tiny", "state"):
        (root / folder).mkdir(parents=True)
    arrived.clear()
    try:
        run = fuzz_egress if door == "egress" else fuzz_llm
        count, found = asyncio.run(run(root, seconds, Random(seed)))
    finally:
        with suppress(OSError):
            shutil.rmtree(root)
    if len(arrived) < count / 100:
        found.append(f"only {len(arrived)} of {count} inputs reached the other side")
    return count, found


def main() -> int:
    """Print what was found; return 1 if there is anything."""
    door, seconds = sys.argv[1], float(sys.argv[2] if len(sys.argv) > 2 else 600)
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    count, found = fuzz(door, seconds, seed)
    print(
        f"{door}: {count:,} inputs in {seconds:.0f} s, seed {seed}; "
        f"{len(arrived):,} requests arrived; {len(found)} findings"
    )
    for one in found[:5]:
        print(one[:3000])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

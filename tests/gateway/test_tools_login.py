"""Tokens of the client credentials grant: one header value of one host, or a typed error."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.serve.servers.login import MAX_ANSWER, login
from gateway.serve.servers.peer import ServerFailed
from policies.plan import ClientCredentials, Tool
from tests.proxy.outside import certificate

HOST = "login.example"
TOOL = Tool(
    name="docs",
    image=None,
    url="https://mcp.example/mcp",
    secret="key",
    egress=[],
    oauth=ClientCredentials(token_url=f"https://{HOST}/token", client_id="us", scopes=["read", "write"]),
)
GOOD = {"access_token": "token-1", "token_type": "bearer", "expires_in": 3600}
Made = Callable[[Callable[[], bytes], Callable[[Any, list[str]], Awaitable[None]]], list[bytes]]


def answer(value: object, status: str = "200 OK", more: str = "") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


@pytest.fixture(scope="module")
def pki() -> Iterator[tuple[Path, ssl.SSLContext, ssl.SSLContext]]:
    folder = Path(tempfile.mkdtemp(prefix="csm-"))
    (folder / "doors" / "up-token.docs").mkdir(parents=True)
    yield (folder, *certificate(folder, HOST))
    shutil.rmtree(folder)


@pytest.fixture
def lab(pki: tuple[Path, ssl.SSLContext, ssl.SSLContext]) -> Made:
    """Run `go` with a login at an end point that says what `say` returns; return what arrived there."""
    folder, server, client = pki

    def begin(say: Callable[[], bytes], go: Callable[[Any, list[str]], Awaitable[None]]) -> list[bytes]:
        arrived: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            arrived.append(head + await reader.readexactly(size))
            writer.write(say())
            writer.close()

        async def run() -> None:
            path = folder / "doors" / "up-token.docs" / "up.sock"
            learned: list[str] = []
            async with await asyncio.start_unix_server(serve, path, ssl=server):
                await go(login(TOOL, folder, client, {"key": "s3cret"}, learned.append), learned)

        asyncio.run(run())
        return arrived

    return begin


def test_a_token_is_asked_for_once_and_used_while_it_lasts(lab: Made) -> None:
    async def go(who: Any, learned: list[str]) -> None:
        for _ in range(3):
            assert await who.headers() == {"Authorization": "Bearer token-1"}
        assert learned == ["token-1"]

    (asked,) = lab(lambda: answer(GOOD), go)
    head, _, body = asked.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /token HTTP/1.1\r\n")
    assert b"authorization: basic dxm6cznjcmv0" in head.lower()  # us:s3cret
    assert body == b"grant_type=client_credentials&scope=read+write"
    assert b"s3cret" not in asked


def test_a_token_that_ends_is_replaced_before_it_does(lab: Made) -> None:
    numbers = iter(range(10))

    async def go(who: Any, learned: list[str]) -> None:
        await who.headers()
        await asyncio.sleep(1.1)
        assert await who.headers() == {"Authorization": "Bearer token-1"}
        assert learned == ["token-0", "token-1"]

    assert len(lab(lambda: answer({**GOOD, "access_token": f"token-{next(numbers)}", "expires_in": 31}), go)) == 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (answer({"error": "invalid_client"}, "401 Unauthorized"), "status 401"),
        (answer(GOOD, "302 Found", "Location: https://evil.example/\r\n"), "status 302"),
        (answer(GOOD, "307 Temporary Redirect", "Location: https://evil.example/\r\n"), "status 307"),
        (answer({**GOOD, "access_token": "a\r\nX-Evil: 1"}), "no token"),
        (answer({**GOOD, "access_token": "a b"}), "no token"),
        (answer({**GOOD, "access_token": ""}), "no token"),
        (answer({**GOOD, "access_token": ["a"]}), "no token"),
        (answer({**GOOD, "token_type": "mac"}), "no known type"),
        (answer(b'{"access_token": "a", "access_token": "b", "token_type": "bearer"}'), "no token"),
        (answer([GOOD]), "no token"),
        (answer(b" " * (MAX_ANSWER + 1)), "without end"),
        (b"nonsense\r\n\r\n", "does not answer"),
    ],
)
def test_what_is_no_token_is_a_typed_error_and_nothing_goes_elsewhere(lab: Made, said: bytes, why: str) -> None:
    async def go(who: Any, learned: list[str]) -> None:
        with pytest.raises(ServerFailed, match=why):
            await who.headers()
        assert learned == []

    assert len(lab(lambda: said, go)) == 1

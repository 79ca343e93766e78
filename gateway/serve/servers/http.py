"""A remote server over streamable HTTP, through a tunnel that leads to one host; the URL is the plan's.

Threats: a redirect to another origin with the token in its hand, a session id with a line end in it, a stream that
never ends, a compressed bomb. So no redirect is followed, no cookie kept, nothing compressed is asked for, and the
answer to a request is the only thing that is read from its stream.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from gateway.serve.servers.login import Login
from gateway.serve.servers.peer import (
    MAX_MESSAGE,
    Answer,
    Noise,
    Note,
    Peer,
    ServerFailed,
    TimedOut,
    enveloped,
    question,
    read,
)
from gateway.serve.types import MODERN_VERSIONS, NAMED

NOTIFY_SECONDS, CANCEL_SECONDS = 10.0, 2.0
_SESSION = "mcp-session-id"


class HttpPeer(Peer):
    """One session with a remote server."""

    def __init__(self, url: str, tunnel: Path, context: ssl.SSLContext, login: Login) -> None:
        self._url, self._login, self._numbers = url, login, count(1)
        self.stale, self._modern = False, False
        self._headers = {
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        transport = httpx.AsyncHTTPTransport(uds=str(tunnel), verify=context, retries=0)
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._client = httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False, cookies=cookies)

    def speak(self, version: str) -> None:
        """Say from now on which revision was agreed on."""
        self._headers["MCP-Protocol-Version"], self._modern = version, version in MODERN_VERSIONS

    async def request(self, method: str, params: dict[str, Any], seconds: float, note: Note | None = None) -> Answer:
        """Ask, and read until the answer."""
        number, more = next(self._numbers), {}
        if self._modern:
            params, more = enveloped(params), {"Mcp-Method": method}
            if method in NAMED:
                more["Mcp-Name"] = str(params[NAMED[method]])
        asked = question(number, method, params, progress=note is not None)
        try:
            async with self._post(asked, seconds, more) as response:
                return await self._answer(response, number, note, met=method != "initialize")
        except TimedOut:
            if not self._modern:  # since then, a stream that is closed says it
                with suppress(ServerFailed):
                    taken_back = question(None, "notifications/cancelled", {"requestId": number})
                    async with self._post(taken_back, CANCEL_SECONDS, {}):
                        pass
            raise

    async def notify(self, method: str) -> None:
        """Tell."""
        async with self._post(question(None, method, None), NOTIFY_SECONDS, {}) as response:
            # Its body is not read: nothing was asked.
            if response.status_code not in (200, 202, 204):
                raise ServerFailed(f"it answered a notification with status {response.status_code}")

    async def close(self) -> None:
        """End the session."""
        await self._client.aclose()

    @asynccontextmanager
    async def _post(self, data: bytes, seconds: float, more: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """Post; `seconds` are for everything up to the end of the block, however slowly a server drips."""
        try:
            async with asyncio.timeout(seconds):
                headers = {**self._headers, **await self._login.headers(), **more}
                async with self._client.stream(
                    "POST", self._url, content=data, headers=headers, timeout=seconds
                ) as response:
                    yield response
        except (TimeoutError, httpx.ReadTimeout) as error:
            raise TimedOut(f"it did not answer within {seconds:.0f} seconds") from error
        except httpx.HTTPError as error:
            raise ServerFailed(f"it does not answer: {type(error).__name__}") from error

    async def _answer(self, response: httpx.Response, number: int, note: Note | None, *, met: bool) -> Answer:
        if response.status_code != 200 and (met or response.status_code not in (400, 404)):
            raise ServerFailed(f"it answered with status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ServerFailed("its answer is encoded")
        if response.status_code == 200:
            self._remember(response.headers.get(_SESSION))
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == "text/event-stream":
            return await self._events(response, number, note)
        if kind != "application/json":
            raise ServerFailed("its answer is neither JSON nor a stream of events")
        said = read(await _bounded(response))
        if said.id != number or said.answer is None:
            raise ServerFailed("it answered another question")
        if response.status_code != 200 and said.answer.result is not None:
            raise ServerFailed(f"it answered with status {response.status_code}")
        return said.answer

    def _remember(self, session: str | None) -> None:
        if session is None:
            return
        if not (0 < len(session) <= 256 and session.isascii() and session.isprintable()):
            raise ServerFailed("its session id is malformed")
        self._headers[_SESSION] = session

    async def _events(self, response: httpx.Response, number: int, note: Note | None) -> Answer:
        """Read events until the answer; what else is in the stream is noise, and asks nothing of us."""
        noise = Noise()
        async for event in _events(response):
            said = read(event)
            if said.id == number and said.answer is not None:
                return said.answer
            self.stale = self.stale or said.stale
            noise.more(len(event))
            if note is not None and said.note is not None and said.hearer((number,)) is not None:
                note(*said.note)
        raise ServerFailed("its stream ended before the answer")


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the data of each event that has any. Every byte is looked at once, in however small parts they come."""
    pending, data, size = bytearray(), list[bytes](), 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > MAX_MESSAGE:
            raise ServerFailed(f"its stream is over {MAX_MESSAGE} bytes")
        pending += part
        if b"\n" not in part:
            continue
        *lines, pending = pending.split(b"\n")
        for line in lines:
            match line.removesuffix(b"\r").partition(b":"):
                case b"data", _, value:
                    data.append(bytes(value.removeprefix(b" ")))
                case b"", b"", _ if any(data):
                    yield b"\n".join(data)
                    data = []
                case _:
                    pass


async def _bounded(response: httpx.Response) -> bytes:
    data = bytearray()
    async for part in response.aiter_raw():
        data += part
        if len(data) > MAX_MESSAGE:
            raise ServerFailed(f"its answer is over {MAX_MESSAGE} bytes")
    return bytes(data)

"""A remote server over streamable HTTP, through a tunnel that leads to one host; the URL is the plan's.

Threats: a redirect to another origin with the token in its hand, a session id with a line end in it, a stream that
never ends, a compressed bomb. So no redirect is followed, no cookie kept, nothing compressed is asked for, and the
answer to a request is the only thing that is read from its stream.
"""

from __future__ import annotations

import ssl
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from gateway.serve.servers.peer import MAX_MESSAGE, Answer, Peer, ServerFailed, louder, question, read

_SESSION = "mcp-session-id"


class HttpPeer(Peer):
    """One session with a remote server."""

    def __init__(self, url: str, tunnel: Path, context: ssl.SSLContext, token: str | None) -> None:
        self._url, self._numbers = url, count(1)
        self._headers = {
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        transport = httpx.AsyncHTTPTransport(uds=str(tunnel), verify=context, retries=0)
        self._client = httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)

    def speak(self, version: str) -> None:
        """Say from now on which revision was agreed on."""
        self._headers["MCP-Protocol-Version"] = version

    async def request(self, method: str, params: dict[str, Any], seconds: float) -> Answer:
        """Ask, and read until the answer."""
        number = next(self._numbers)
        try:
            return await self._post(question(number, method, params), number, seconds)
        except httpx.HTTPError as error:
            raise ServerFailed(f"it does not answer: {type(error).__name__}") from error

    async def notify(self, method: str) -> None:
        """Tell."""
        try:
            answer = await self._client.post(self._url, content=question(None, method, None), headers=self._headers)
        except httpx.HTTPError as error:
            raise ServerFailed(f"it does not answer: {type(error).__name__}") from error
        if answer.status_code not in (200, 202):
            raise ServerFailed(f"it answered a notification with status {answer.status_code}")

    async def close(self) -> None:
        """End the session."""
        await self._client.aclose()

    async def _post(self, data: bytes, number: int, seconds: float) -> Answer:
        stream = self._client.stream("POST", self._url, content=data, headers=self._headers, timeout=seconds)
        async with stream as response:
            if response.status_code != 200:
                raise ServerFailed(f"it answered with status {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ServerFailed("its answer is encoded")
            self._remember(response.headers.get(_SESSION))
            kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
            if kind == "text/event-stream":
                return await self._events(response, number)
            if kind != "application/json":
                raise ServerFailed("its answer is neither JSON nor a stream of events")
            said = read(await _bounded(response))
            if said.id != number or said.answer is None:
                raise ServerFailed("it answered another question")
            return said.answer

    def _remember(self, session: str | None) -> None:
        if session is None:
            return
        if not (0 < len(session) <= 256 and session.isascii() and session.isprintable()):
            raise ServerFailed("its session id is malformed")
        self._headers[_SESSION] = session

    async def _events(self, response: httpx.Response, number: int) -> Answer:
        """Read events until the answer; what else is in the stream is noise, and asks nothing of us."""
        buffer, size, noise = b"", 0, 0
        async for part in response.aiter_raw():
            size += len(part)
            buffer = (buffer + part).replace(b"\r\n", b"\n")
            if size > MAX_MESSAGE:
                raise ServerFailed(f"its stream is over {MAX_MESSAGE} bytes")
            while (end := buffer.find(b"\n\n")) >= 0:
                event, buffer = buffer[:end], buffer[end + 2 :]
                lines = [line[5:].lstrip(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
                if not b"".join(lines):
                    continue
                said = read(b"\n".join(lines))
                if said.id == number and said.answer is not None:
                    return said.answer
                noise = louder(noise)
        raise ServerFailed("its stream ended before the answer")


async def _bounded(response: httpx.Response) -> bytes:
    data = b""
    async for part in response.aiter_raw():
        data += part
        if len(data) > MAX_MESSAGE:
            raise ServerFailed(f"its answer is over {MAX_MESSAGE} bytes")
    return data

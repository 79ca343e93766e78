"""The way to a provider: a pooled client whose every connection is the tunnel of one model, and leads nowhere else.

Threat: a client that can be talked into another destination (an absolute URL, a redirect, a proxy variable, a cookie)
with the real key in its hand. So address, path and headers come from the plan, and the connector knows one socket.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from policies.plan import Model
from proxy.llm.breaker import Breaker
from proxy.llm.stream import MAX_STREAM
from proxy.llm.types import LlmRequest, Refused

CONNECT_SECONDS = 20.0
SILENCE_SECONDS = 600.0
"""How long a provider may say nothing; long, as a reasoning model thinks before its first token."""

POOLED_SECONDS = 4.0
"""How long an idle connection is kept: less than common servers do, so that it is rarely closed under a request."""


class TunnelConnector(aiohttp.BaseConnector):
    """Connects to one Unix socket, and speaks TLS through it when there is a context; the URL decides nothing."""

    def __init__(self, path: Path, host: str, context: ssl.SSLContext | None) -> None:
        super().__init__(limit=64, keepalive_timeout=POOLED_SECONDS)
        self._path, self._host, self._context = path, host, context

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        del traces
        try:
            async with asyncio.timeout(timeout.sock_connect):
                _, protocol = await asyncio.get_running_loop().create_unix_connection(
                    self._factory,
                    str(self._path),
                    ssl=self._context,
                    server_hostname=self._host if self._context is not None else None,
                )
        except OSError as error:  # ssl.SSLError and TimeoutError are OSErrors
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return protocol


class Upstream:
    """One model's provider: its address from the plan, and its key from the birth message."""

    def __init__(
        self, model: Model, key: str | None, socket: Path, context: ssl.SSLContext | None, breaker: Breaker
    ) -> None:
        scheme = "http" if model.local is not None else "https"
        host = model.host if model.local is None else "model.local"
        tls = None if model.local is not None else context
        self.model, self.key, self.breaker = model, key, breaker
        self._base = f"{scheme}://{host}:{model.port}{model.base_path.rstrip('/')}"
        self._session = aiohttp.ClientSession(
            connector=TunnelConnector(socket, model.host, tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
            ),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
            max_line_size=16 * 1024,
            max_field_size=16 * 1024,
        )

    async def close(self) -> None:
        """Close the pool."""
        await self._session.close()

    @asynccontextmanager
    async def ask(self, request: LlmRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and return its response, whose body was not read. Raises `aiohttp.ClientError`, `OSError`."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if request.stream else "application/json",
            "Accept-Encoding": "identity",  # what cannot be read cannot be judged
        }
        headers |= {**request.headers, **credential(self.model, self.key)}
        url = f"{self._base}{request.path}" + (f"?{request.query}" if request.query else "")
        response = await self._session.post(url, data=request.body, headers=headers, allow_redirects=False)
        try:
            yield response
        finally:
            # A response that was not read to its end closes its connection: the provider then stops to produce.
            response.close() if not response.content.at_eof() else response.release()


def credential(model: Model, key: str | None) -> dict[str, str]:
    """Return the header in which a provider expects its key."""
    if key is None:
        return {}
    match model.provider:
        case "anthropic":
            return {"x-api-key": key}
        case "gemini":
            return {"x-goog-api-key": key}
        case _:
            return {"Authorization": f"Bearer {key}"}


async def read_bounded(response: aiohttp.ClientResponse, limit: int = MAX_STREAM) -> bytes:
    """Return the whole body; raise `Refused` (P029) beyond `limit` bytes."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise Refused("CSM-P029", f"the provider's answer is over {limit} bytes", status=502)
    return b"".join(parts)

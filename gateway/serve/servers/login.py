"""How we say to a remote server who we are: a header with its secret, or with a token that the secret is exchanged for.

Threats: a token end point that sends us elsewhere, answers without end, or puts a line end into a token. It is reached
through a tunnel of its own that leads to one host; no redirect is followed; a token is one header value or none.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import httpx

from gateway.serve.servers.peer import ServerFailed
from policies.canonical import StrictJsonError, strict_loads
from policies.plan import Tool
from policies.slices import token_door, tool_door

MAX_ANSWER = 64 * 1024
SECONDS = 15.0
EARLY_S, SHORT_S = 30.0, 60.0
"""A token is not used in its last seconds; one that does not say how long it lasts, lasts a minute."""
_VALUE = re.compile(r"[\x21-\x7e]{1,8192}\Z")


class Login(Protocol):
    """Who we are to one server."""

    async def headers(self) -> Mapping[str, str]:
        """Return the headers of the next request; raise `ServerFailed`."""
        ...


class Fixed:
    """The same headers each time; without a secret, none."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    async def headers(self) -> Mapping[str, str]:
        """Return them."""
        return self._headers


class ClientCredentials:
    """Tokens of the client credentials grant (RFC 6749, 4.4); each is used until shortly before it ends."""

    def __init__(
        self, server: Tool, secret: str, tunnel: Path, context: ssl.SSLContext, learn: Callable[[str], None]
    ) -> None:
        """`learn` is told of each token, as it is a secret too."""
        if server.oauth is None:
            raise ValueError("a server without a token end point")
        self._end, self._secret, self._learn = server.oauth, secret, learn
        self._tunnel, self._context = tunnel, context
        self._token, self._until = "", 0.0

    async def headers(self) -> Mapping[str, str]:
        """Return the header with a token that lasts."""
        if time.monotonic() >= self._until:
            self._token, seconds = await self._ask()
            self._until = time.monotonic() + max(1.0, seconds - EARLY_S)
            self._learn(self._token)
        return {"Authorization": f"Bearer {self._token}"}

    async def _ask(self) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"}
        if self._end.scopes:
            form["scope"] = " ".join(self._end.scopes)
        transport = httpx.AsyncHTTPTransport(uds=str(self._tunnel), verify=self._context, retries=0)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        data = bytearray()
        try:
            async with (
                httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False) as client,
                client.stream(
                    "POST",
                    self._end.token_url,
                    data=form,
                    auth=(self._end.client_id, self._secret),
                    headers=headers,
                    timeout=SECONDS,
                ) as response,
            ):
                if response.status_code != 200:
                    raise ServerFailed(f"its token end point answered with status {response.status_code}")
                async for part in response.aiter_raw():
                    data += part
                    if len(data) > MAX_ANSWER:
                        raise ServerFailed("its token end point answers without end")
        except httpx.HTTPError as error:
            raise ServerFailed(f"its token end point does not answer: {type(error).__name__}") from error
        return _token(bytes(data))


def _token(data: bytes) -> tuple[str, float]:
    """Return the token and its seconds; raise `ServerFailed` for anything but a bearer token."""
    try:
        said = strict_loads(data)
    except StrictJsonError:
        said = None
    value = said.get("access_token") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(value, str) or not _VALUE.match(value):
        raise ServerFailed("its token end point gave no token")
    if str(said.get("token_type")).lower() != "bearer":
        raise ServerFailed("its token is of no known type")
    seconds = said.get("expires_in", SHORT_S)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        seconds = SHORT_S
    return value, float(seconds)


def login(
    server: Tool, root: Path, context: ssl.SSLContext, secrets: Mapping[str, str], learn: Callable[[str], None]
) -> Login:
    """Return who we are to `server`."""
    if server.secret is None:
        return Fixed({})
    value = secrets[server.secret]
    if not _VALUE.match(value):
        raise ServerFailed("its secret cannot stand in a header")
    if server.oauth is not None:
        return ClientCredentials(server, value, root / "doors" / token_door(server.name) / "up.sock", context, learn)
    return Fixed({server.header: value} if server.header is not None else {"Authorization": f"Bearer {value}"})


def tunnel(server: Tool, root: Path) -> Path:
    """Return the socket that leads to a server."""
    return root / "doors" / tool_door(server.name) / "up.sock"

"""Remote MCP servers of the outside lab, made with the official SDK, and an OAuth token end point; over TLS.

`/both/mcp` speaks every revision, `/modern/mcp` only the one without a handshake, `/away/mcp` sends clients elsewhere.
Each takes the key or token that its path wants, and tells what arrived, one line of JSON each.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

with open("/srv/config.json", encoding="utf-8") as stream:  # noqa: PTH123 - a container's own file
    CONFIG: dict[str, str] = json.load(stream)
TOKENS: set[str] = set()
Asgi = Callable[..., Awaitable[None]]


def tell(**fields: Any) -> None:
    """Say what arrived."""
    print(json.dumps(fields), flush=True)


def made(name: str) -> Asgi:
    """Return a server with three tools, the last of which writes."""
    server = MCPServer(name)

    @server.tool(name=f"{name}_where")
    def where(question: str) -> str:
        """Say who answers."""
        return f"{name} heard {question}"

    @server.tool(name=f"{name}_parrot")
    def parrot() -> str:
        """Say what the last client said it was."""
        return str(LAST.get(name))

    @server.tool(name=f"{name}_note")
    def note(text: str, n: int = 0) -> str:
        """Keep a note."""
        tell(note=text, n=n)
        return "kept"

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return server.streamable_http_app(streamable_http_path=f"/{name}/mcp", transport_security=security)


LAST: dict[str, str] = {}
APPS = {name: made(name) for name in ("both", "modern")}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Look at who asks, then let the SDK answer."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    head = {name.decode(): value.decode() for name, value in scope["headers"]}
    version = head.get("mcp-protocol-version", "")
    tell(method=scope["method"], host=head["host"], path=scope["path"], version=version, agent="casemate" in str(head))
    name = scope["path"].split("/")[1]
    if name == "token":
        await _token(head, await _body(receive), send)
    elif name == "away":
        await _say(send, 307, {}, [(b"location", b"https://other.example.com/both/mcp")])
    elif not _known(name, head):
        await _say(send, 401, {"error": "who are you?"})
    elif name == "modern" and not version.startswith("2026"):
        number = json.loads(await _body(receive)).get("id")
        error = {"code": -32022, "message": "Unsupported protocol version", "data": {"supported": ["2026-07-28"]}}
        await _say(send, 400, {"jsonrpc": "2.0", "id": number, "error": error})
    else:
        LAST[name] = head.get("x-api-key") or head.get("authorization", "")
        await APPS[name](scope, receive, send)


def _known(name: str, head: dict[str, str]) -> bool:
    if name == "both":
        return head.get("authorization", "").removeprefix("Bearer ") in TOKENS
    return head.get("x-api-key") == CONFIG["key"]


async def _token(head: dict[str, str], body: bytes, send: Any) -> None:
    wanted = base64.b64encode(f"us:{CONFIG['secret']}".encode()).decode()
    if head.get("authorization") != f"Basic {wanted}" or body != b"grant_type=client_credentials&scope=read":
        await _say(send, 401, {"error": "invalid_client"})
        return
    token = secrets.token_urlsafe(24)
    TOKENS.add(token)
    await _say(send, 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600})


async def _body(receive: Any) -> bytes:
    data, more = b"", True
    while more:
        part = await receive()
        data, more = data + part.get("body", b""), part.get("more_body", False)
    return data


async def _say(send: Any, status: int, value: object, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    kind = [(b"content-type", b"application/json"), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": kind})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def _lifespan(receive: Any, send: Any) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for one in APPS.values():
            await stack.enter_async_context(_running(one))
        await receive()
        await send({"type": "lifespan.startup.complete"})
        tell(ready=True)
        await receive()


@contextlib.asynccontextmanager
async def _running(one: Any) -> AsyncIterator[None]:
    async with one.router.lifespan_context(one):
        yield


if __name__ == "__main__":
    uvicorn.run(
        app, host="0.0.0.0", port=443, ssl_certfile="/srv/server.pem", log_level="critical", server_header=False
    )

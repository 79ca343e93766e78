"""What passes between the floors of `serve`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions that open with `initialize`."""
MODERN_VERSIONS: Final = ("2026-07-28",)
"""Revisions in which every request carries its own envelope and headers."""

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_LEVEL: Final = "io.modelcontextprotocol/logLevel"
META_SERVER: Final = "io.modelcontextprotocol/serverInfo"

NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""What of a request the header Mcp-Name repeats."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
NOT_FOUND: Final = -32002
"""Of a resource, in revisions with a handshake."""
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

RpcId = str | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the HTTP head of an acceptable POST says about the message in its body."""

    version: str | None
    method: str | None
    name: str | None
    streams: bool = False
    """Whether the client takes a stream of events for an answer."""

    @property
    def modern(self) -> bool:
        """Whether the revision is one without a handshake."""
        return self.version in MODERN_VERSIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One JSON-RPC message that has exactly one reading. `id` is None for a notification."""

    id: RpcId
    method: str
    params: dict[str, Any]
    modern: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is refused. `rpc` is None when the refusal is not a JSON-RPC answer; `status` is HTTP's.

    `quiet` refusals are part of honest protocol negotiation and make no event.
    """

    code: str
    denied: str
    hint: str
    status: int
    rpc: int | None = None
    id: RpcId = None
    allowed: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    quiet: bool = False


class RefusedError(Exception):
    """Carries a `Refusal` to the one place that answers."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to one HTTP request; `body` is JSON or empty."""

    status: int
    body: bytes = b""
    close: bool = False
    allow: str | None = None

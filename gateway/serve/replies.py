"""What a server says to every agent alike: handshakes, results, the envelope of an answer. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.serve.types import HANDSHAKE_VERSIONS, META_SERVER, MODERN_VERSIONS, Message, Reply

DROPPED: Final = frozenset({"notifications/initialized", "notifications/cancelled"})
"""Notifications that honest clients send, and that change nothing here."""
CALL_PARAMS: Final = frozenset({"name", "arguments", "_meta"})


def info(name: str, title: str) -> dict[str, str]:
    """Return how a server introduces itself."""
    return {"name": name, "title": title, "version": "0.1.0"}


def initialized(
    params: Mapping[str, Any], server: Mapping[str, str], instructions: str, capabilities: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the result of `initialize`, in the revision that was asked for where it is known."""
    asked = params.get("protocolVersion")
    version = asked if asked in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
    about = {"capabilities": dict(capabilities), "serverInfo": dict(server), "instructions": instructions}
    return {"protocolVersion": version, **about}


def discovered(instructions: str, capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of `server/discover`."""
    found = {"supportedVersions": list(MODERN_VERSIONS), "capabilities": dict(capabilities)}
    return {**found, "instructions": instructions, **uncached()}


def uncached() -> dict[str, Any]:
    """Return the fields that say that a result must not be kept."""
    return {"ttlMs": 0, "cacheScope": "private"}


def as_result(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool result that says `value` both as text and as structured content."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return {"content": [{"type": "text", "text": text}], "structuredContent": dict(value), "isError": False}


def result(message: Message, value: Mapping[str, Any], server: Mapping[str, str]) -> Reply:
    """Return the answer to a request, in the era in which it was asked."""
    envelope = {"resultType": "complete", "_meta": {META_SERVER: dict(server)}} if message.modern else {}
    return Reply(status=200, body=encode({"jsonrpc": "2.0", "id": message.id, "result": {**value, **envelope}}))


def encode(value: Mapping[str, Any]) -> bytes:
    """Return the bytes of an answer. It was read strictly or made here, so it has one reading however it is written."""
    return msgspec.json.encode(value)

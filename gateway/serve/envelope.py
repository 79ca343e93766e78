"""The gateway owns the envelope: HTTP head and JSON-RPC message, each with exactly one reading. Pure.

Threats: two parsers that read one message differently (duplicate keys, NaN, a header that names another tool than the
body), DNS rebinding (Host, Origin), decompression bombs, batches that hide calls, ids that cannot be echoed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from gateway.serve.types import (
    HANDSHAKE_VERSIONS,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    META_CAPABILITIES,
    META_VERSION,
    MODERN_VERSIONS,
    NAMED,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
    Head,
    Message,
    Refusal,
    RefusedError,
    RpcId,
)
from policies.canonical import Json, StrictJsonError, strict_loads

WRITES = "writes"
"""The name of the buffer-only server, at which no other server can be reached."""
MAX_BODY = 1024 * 1024
"""Bytes of one request body."""
MAX_ID = 256
"""Characters of a string id."""

_ENVELOPE = frozenset({"jsonrpc", "id", "method", "params"})
_ONCE = frozenset(
    {
        "host",
        "origin",
        "content-type",
        "content-length",
        "content-encoding",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "mcp-session-id",
    }
)


def refuse(code: str, denied: str, hint: str, status: int, **more: Any) -> NoReturn:
    """Raise `RefusedError`; `more` are further fields of `Refusal`."""
    raise RefusedError(Refusal(code=code, denied=denied, hint=hint, status=status, **more))


def route(server: str) -> str:
    """Return the path of a server."""
    return f"/mcp/{server}"


def check_head(
    method: str,
    path: str,
    headers: Sequence[tuple[bytes, bytes]],
    authorities: frozenset[str],
    routes: Collection[str] = (route(WRITES),),
) -> Head:
    """Return what the head of a POST to one of `routes` says, or raise `RefusedError`.

    `path` is the raw target with its query; header names are lower case; `authorities` are the only values of Host.
    """
    fields = _fields(headers)
    if fields.get("host") not in authorities:
        refuse("CSM-G007", "host", "use the address in /casemate/mcp.json", 403)
    if "origin" in fields and fields["origin"] not in {f"http://{authority}" for authority in authorities}:
        refuse("CSM-G007", "origin", "send no Origin header", 403)
    if path not in routes:
        refuse("CSM-G003", "path", "use a server of /casemate/mcp.json", 404, allowed=tuple(sorted(routes)))
    if method != "POST":
        # Honest clients try GET for a stream and DELETE for a session; the protocol lets a server have neither.
        refuse("CSM-G004", "http method", "POST one JSON-RPC message", 405, allowed=("POST",), quiet=True)
    if "mcp-session-id" in fields:
        refuse("CSM-G001", "session", "this server has no sessions; leave out Mcp-Session-Id", 404)
    if "content-encoding" in fields:
        refuse("CSM-G001", "compressed body", "send the body as it is, without Content-Encoding", 415)
    if fields.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        refuse("CSM-G001", "content type", "send Content-Type: application/json", 415)
    length = fields.get("content-length", "0")
    if not length.isdigit() or len(length) > 12 or int(length) > MAX_BODY:
        too_large()
    return Head(
        version=fields.get("mcp-protocol-version"),
        method=fields.get("mcp-method"),
        name=fields.get("mcp-name"),
        streams="text/event-stream" in fields.get("accept", ""),
    )


def too_large() -> NoReturn:
    """Raise the refusal of a body over `MAX_BODY`."""
    refuse("CSM-G002", "body", f"send at most {MAX_BODY} bytes; propose records one by one", 413)


def read_message(head: Head, body: bytes) -> Message:
    """Return the one message in `body`, or raise `RefusedError` (with the id, where there is one to answer to)."""
    try:
        value = strict_loads(body)
    except StrictJsonError:
        refuse("CSM-G001", "body", "send one JSON document without duplicate keys", 400, rpc=PARSE_ERROR)
    if not isinstance(value, dict):
        refuse("CSM-G001", "batch", "send one JSON-RPC object", 400, rpc=INVALID_REQUEST)
    number = _id(value)
    _check_version(head.version, number)
    if value.get("jsonrpc") != "2.0" or value.keys() - _ENVELOPE:
        refuse("CSM-G001", "envelope", "use jsonrpc, id, method and params only", 400, rpc=INVALID_REQUEST, id=number)
    method, params = value.get("method"), value.get("params", {})
    if not isinstance(method, str) or not isinstance(params, dict):
        refuse("CSM-G001", "envelope", "method is a string, params an object", 400, rpc=INVALID_REQUEST, id=number)
    _check_era(head, method, params, number)
    return Message(id=number, method=method, params=params, modern=head.modern)


def _fields(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for raw, value in headers:
        name = raw.decode("latin-1").lower()
        if name in fields and name in _ONCE:
            # Whoever reads the first copy and whoever reads the last would disagree.
            refuse("CSM-G001", "duplicate header", "send each header once", 400)
        fields[name] = value.decode("latin-1")
    return fields


def _check_version(version: str | None, number: RpcId) -> None:
    if version is not None and version not in (*HANDSHAKE_VERSIONS, *MODERN_VERSIONS):
        refuse(
            "CSM-G008",
            "protocol version",
            "use a supported MCP-Protocol-Version",
            400,
            rpc=UNSUPPORTED_VERSION,
            id=number,
            allowed=(*HANDSHAKE_VERSIONS, *MODERN_VERSIONS),
            # Older revisions are agreed on by a handshake; who names one in a header has had it.
            more={"supported": list(MODERN_VERSIONS), "requested": version[:40]},
        )


def _id(value: dict[str, Json]) -> RpcId:
    if "id" not in value:
        return None
    match value["id"]:
        case bool() | None | float():
            pass
        case int() as number if abs(number) < 2**53:
            return number
        case str() as text if len(text) <= MAX_ID:
            return text
        case _:
            pass
    return refuse("CSM-G001", "id", "use a string or an integer as id", 400, rpc=INVALID_REQUEST)


def _check_era(head: Head, method: str, params: dict[str, Json], number: RpcId) -> None:
    """Header and body must say the same; what only one of them says counts as a difference where it routes."""
    if number is None and head.method is None and not head.modern:
        return
    meta = params.get("_meta", {})
    if not isinstance(meta, dict):
        refuse("CSM-G001", "_meta", "params._meta is an object", 400, rpc=INVALID_PARAMS, id=number)
    if head.modern and number is not None and not {META_VERSION, META_CAPABILITIES} <= meta.keys():
        hint = f"put {META_VERSION} and {META_CAPABILITIES} into params._meta"
        refuse("CSM-G001", "_meta", hint, 400, rpc=INVALID_PARAMS, id=number)
    stated = meta.get(META_VERSION)
    named = params.get(NAMED[method]) if method in NAMED else None
    differs = (
        (stated is not None and stated != head.version)
        or (head.method != method and (head.method is not None or (head.modern and number is not None)))
        or (head.name is not None and _decoded(head.name) != named)
        or (head.modern and isinstance(named, str) and head.name is None)
    )
    if differs:
        hint = "let MCP-Protocol-Version, Mcp-Method and Mcp-Name agree with the body"
        refuse("CSM-G001", "headers", hint, 400, rpc=HEADER_MISMATCH, id=number)


def _decoded(name: str) -> str | None:
    """Undo the `=?base64?…?=` form in which a client writes a name that is not plain ASCII."""
    if not (name.startswith("=?base64?") and name.endswith("?=")):
        return name
    try:
        return base64.b64decode(name[9:-2], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None

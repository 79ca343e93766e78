"""The MCP server that the official conformance suite asks for, as far as a server answers: `conforming.py [PORT]`.

Over standard streams, or at a port of loopback over HTTP, so that the suite can meet it directly and through the
gateway. Standard library.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
SOUND = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
    "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
    "additionalProperties": False,
}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def embedded(uri: str, kind: str, value: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": value}}


IMAGE = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
CONTENT: dict[str, list[dict[str, Any]]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [IMAGE],
    "test_audio_content": [{"type": "audio", "data": SOUND, "mimeType": "audio/wav"}],
    "test_embedded_resource": [
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        IMAGE,
        embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ],
    "test_error_handling": [text("This tool intentionally returns an error for testing")],
    "test_tool_with_logging": [text("It was logged.")],
    "test_tool_with_progress": [text("It has made progress.")],
    "test_logging_tool": [text("It was logged.")],
    "test_streaming_elicitation": [text("Nobody was asked.")],
    "json_schema_2020_12_tool": [text("It has a schema.")],
}
TOOLS: list[dict[str, Any]] = [
    {"name": name, "description": f"The suite's {name}.", "inputSchema": SCHEMA if name.startswith("json") else NOTHING}
    for name in CONTENT
]

RESOURCES: dict[str, dict[str, Any]] = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PIXEL},
}
TEMPLATE = "test://template/{id}/data"
PROMPTS: dict[str, list[str]] = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"],
    "test_prompt_with_image": [],
}


def resource(uri: str) -> dict[str, Any] | None:
    """Read a resource."""
    if uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.split("/")[-2]
        content = {"id": number, "templateTest": True, "data": f"Data for ID: {number}"}
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": json.dumps(content)}]}
    return {"contents": [{"uri": uri, **RESOURCES[uri]}]} if uri in RESOURCES else None


def prompt(name: str, given: dict[str, str]) -> dict[str, Any]:
    """Make the messages of a prompt."""
    said = text("This is a simple prompt for testing.")
    parts = {
        "test_prompt_with_arguments": [text(f"Prompt with arguments: {given}")],
        "test_prompt_with_embedded_resource": [embedded(given.get("resourceUri", ""), "text/plain", "Embedded."), said],
        "test_prompt_with_image": [IMAGE, said],
    }
    return {"messages": [{"role": "user", "content": part} for part in parts.get(name, [said])]}


def listing(method: str) -> dict[str, Any]:
    """Everything that the server has of a kind."""
    match method:
        case "tools/list":
            return {"tools": TOOLS}
        case "resources/list":
            about = [{"uri": uri, "name": uri, "mimeType": RESOURCES[uri]["mimeType"]} for uri in RESOURCES]
            return {"resources": about}
        case "resources/templates/list":
            return {
                "resourceTemplates": [{"uriTemplate": TEMPLATE, "name": "template", "mimeType": "application/json"}]
            }
        case _:
            named = {name: [{"name": one, "required": True} for one in taken] for name, taken in PROMPTS.items()}
            return {"prompts": [{"name": name, "description": name, "arguments": named[name]} for name in PROMPTS]}


def note(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def call(params: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Do a call; `send` is for what is said before the result."""
    name = params["name"]
    token = params.get("_meta", {}).get("progressToken")
    for step, words in enumerate(("started", "processing data", "completed")):
        if name in ("test_tool_with_logging", "test_logging_tool"):
            send(note("notifications/message", level="info", data=f"Tool {words}"))
            time.sleep(0.05)
        if name == "test_tool_with_progress" and token is not None:
            send(note("notifications/progress", progressToken=token, progress=step * 50, total=100))
            time.sleep(0.05)
    return {"content": CONTENT[name], **({"isError": True} if name == "test_error_handling" else {})}


def answer(message: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    """Answer a message, if it is a request."""
    if "id" not in message:
        return
    result: dict[str, Any] | None
    match message["method"]:
        case "initialize":
            offers = ("tools", "logging", "resources", "prompts", "completions")
            about = {
                "capabilities": {kind: {} for kind in offers},
                "serverInfo": {"name": "conforming", "version": "1"},
            }
            result = {"protocolVersion": message["params"]["protocolVersion"], **about}
        case method if method.endswith("/list"):
            result = listing(method)
        case "resources/read":
            result = resource(message["params"]["uri"])
        case "prompts/get" if message["params"]["name"] in PROMPTS:
            result = prompt(message["params"]["name"], message["params"].get("arguments", {}))
        case "completion/complete":
            result = {"completion": {"values": ["paris", "park"], "total": 2, "hasMore": False}}
        case "tools/call" if message["params"]["name"] in CONTENT:
            result = call(message["params"], send)
        case "ping" | "logging/setLevel":
            result = {}
        case _:
            result = None
    missing = {"code": -32002 if message["method"] == "resources/read" else -32601, "message": "unknown"}
    end = {"result": result} if result is not None else {"error": missing}
    send({"jsonrpc": "2.0", "id": message["id"], **end})


class Http(BaseHTTPRequestHandler):
    """Answers each POST with a stream of events."""

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        near = {"127.0.0.1", "localhost"}
        origin = self.headers.get("Origin", "http://localhost").split("//")[-1]
        if {self.headers["Host"].split(":")[0], origin.split(":")[0]} - near:
            self.send_error(403)
            return
        self.send_response(200 if "id" in message else 202)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        answer(message, self._event)

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def do_GET(self) -> None:
        self.send_error(405)

    do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def stream() -> None:
    """Answer over standard streams."""
    for line in sys.stdin:
        answer(json.loads(line), lambda value: print(json.dumps(value), flush=True))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Http).serve_forever()
    else:
        stream()

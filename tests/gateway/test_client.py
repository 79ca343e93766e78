"""The official MCP client, in both eras of the protocol, over the real socket of a real process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from mcp import Client, ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.gateway.kit import Serving, make_output

Start = Callable[..., Serving]
URL = "http://127.0.0.1:5000/mcp/writes"


def over(serving: Serving, stage: str = "draft") -> httpx2.AsyncClient:
    """An HTTP client that reaches the door of a stage, as the relay of a cell does."""
    return httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(serving.socket(stage))), timeout=30)


async def converse(serving: Serving, mode: str) -> dict[str, Any]:
    """Do what an agent does, and return what it saw."""
    async with over(serving) as http, Client(streamable_http_client(URL, http_client=http), mode=mode) as client:
        tools = (await client.list_tools()).tools
        seen: dict[str, Any] = {"version": client.session.protocol_version, "tools": [tool.name for tool in tools]}
        seen["good"] = await client.call_tool("samples", {"prompt": "two plus two", "score": 4})
        seen["bad"] = await client.call_tool("samples", {"prompt": 7})
        seen["noop"] = await client.call_tool("noop", {"reason": "enough"})
        seen["status"] = await client.call_tool("write_status", {})
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("delete_everything", {})
        seen["unknown"] = unknown.value.error
        return seen


@pytest.mark.parametrize(
    ("mode", "version"), [("legacy", "2025-11-25"), ("auto", "2026-07-28"), ("2026-07-28", "2026-07-28")]
)
def test_an_agent_proposes_with_the_official_client(serving: Start, mode: str, version: str) -> None:
    server = serving(make_output())
    seen = asyncio.run(converse(server, mode))
    assert seen["version"] == version
    assert seen["tools"] == ["samples", "propose_file", "noop", "report_incomplete", "write_status"]
    assert not seen["good"].is_error
    assert seen["good"].structured_content == {"id": "draft-0", "status": "buffered"}
    assert json.loads(seen["good"].content[0].text) == seen["good"].structured_content
    assert seen["bad"].is_error
    told = json.loads(seen["bad"].content[0].text)["error"]
    assert (told["code"], told["where"]) == ("CSM-G006", "/prompt: type")
    assert not seen["noop"].is_error
    assert seen["status"].structured_content == {"buffered": {"samples": 1}, "refused": {"samples": 1}}
    assert seen["unknown"].code == -32602
    assert seen["unknown"].data["code"] == "CSM-G005"
    assert seen["unknown"].data["allowed"] == seen["tools"]
    assert [json.loads(line)["record"] for line in server.buffer().splitlines()] == [
        {"prompt": "two plus two", "score": 4}
    ]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_every_handshake_revision_is_spoken(serving: Start, version: str) -> None:
    server = serving(make_output())
    answer = server.rpc("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": {}})
    assert answer["result"]["protocolVersion"] == version
    headers = {"MCP-Protocol-Version": version} if version > "2025-03-26" else {}
    note = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
    assert server.post(note, headers) == (202, None)
    for method in ("ping", "tools/list"):
        body = json.dumps({"jsonrpc": "2.0", "id": "a", "method": method}).encode()
        status, reply = server.post(body, headers)
        assert (status, reply["id"], "result" in reply) == (200, "a", True)
    assert server.rpc("initialize", {"protocolVersion": "1999-01-01"})["result"]["protocolVersion"] == "2025-11-25"


@pytest.mark.parametrize("method", ["resources/list", "prompts/list", "sampling/createMessage", "completion/complete"])
def test_what_is_not_a_tool_does_not_exist(serving: Start, method: str) -> None:
    server = serving(make_output())
    answer = server.rpc(method)
    assert (answer["error"]["code"], answer["error"]["data"]["code"]) == (-32601, "CSM-G004")
    denied = server.of("tool.called")
    assert [(event["verdict"], event["rule"], event["attrs"]) for event in denied] == [
        ("deny", "CSM-G004", {"mcp.method.name": method})
    ]


def test_a_modern_request_without_its_envelope_is_told_what_is_missing(serving: Start) -> None:
    server = serving(make_output())
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
    status, answer = server.post(body, {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"})
    assert (status, answer["error"]["code"]) == (400, -32602)
    status, answer = server.post(body, {"MCP-Protocol-Version": "2030-01-01"})
    assert (status, answer["error"]["code"]) == (400, -32022)
    assert answer["error"]["data"]["supported"][-1] == "2026-07-28"


def test_a_handshake_session_as_other_programs_open_it(serving: Start) -> None:
    server = serving(make_output())

    async def talk() -> Any:
        async with over(server) as http, streamable_http_client(URL, http_client=http) as (read, write):  # noqa: SIM117
            async with ClientSession(read, write) as session:
                await session.initialize()
                return await session.call_tool("samples", {"prompt": "hello"})

    assert asyncio.run(talk()).structured_content["status"] == "buffered"

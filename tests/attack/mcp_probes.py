"""What an agent tries at the MCP door of its cell: `agent.py SERVER`. Standard library; it leaves what it saw.

Each probe is one request; the control is an honest call of the same tool, in the same cell, before and after.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any

CANARY = "canary-of-an-agent-5d1e77"
HOST = "127.0.0.1:5000"


def call(name: str = "look", arguments: Any = None, **more: Any) -> bytes:
    params = {"name": name, "arguments": {"q": "x"} if arguments is None else arguments, **more}
    return ask("tools/call", params)


def ask(method: str, params: Any = None) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}).encode()


def post(body: bytes, path: str | None = None, **headers: str) -> tuple[int, str]:
    """Send one request; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", 5000, timeout=60)
    given = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    connection.putrequest("POST", path or f"/mcp/{SERVER}", skip_host=True, skip_accept_encoding=True)
    for key, value in {"Host": HOST, "Content-Length": str(len(body)), **given}.items():
        connection.putheader(key, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read(20_000_000).decode("utf-8", "replace")


SERVER = sys.argv[1]
HONEST = call()
DOOR: dict[str, dict[str, Any]] = {
    "50 a tool that was not given": {"body": call("count", {})},
    "50 a tool that there is not": {"body": call("steal")},
    "62 a tool that writes": {"body": call("drop", {})},
    "51 an argument of another type": {"body": call(arguments={"q": 5})},
    "51 an argument too many": {"body": call(arguments={"q": "x", "r": "y"})},
    "51 no argument": {"body": call(arguments={})},
    "57 a session that is not there": {"body": HONEST, "Mcp_Session_Id": "1"},
    "57 a server that is not there": {"body": HONEST, "path": "/mcp/other"},
    "57 the server of another stage": {"body": HONEST, "path": "/mcp/mirror"},
    "57 dot segments": {"body": HONEST, "path": f"/mcp/writes/../{SERVER}"},
    "59 a duplicate key": {"body": HONEST.replace(b'"name"', b'"name": "drop", "name"')},
    "59 not a number": {"body": HONEST.replace(b'"x"', b"NaN")},
    "59 a batch": {"body": b"[" + HONEST + b"]"},
    "59 nested deeply": {"body": HONEST.replace(b'"x"', b"[" * 100_000 + b"]" * 100_000)},
    "59 a lone surrogate": {"body": HONEST.replace(b'"x"', b'"\\ud800"')},
    "60 resources": {"body": ask("resources/list")},
    "60 a resource": {"body": ask("resources/read", {"uri": "file:///etc/passwd"})},
    "60 prompts": {"body": ask("prompts/list")},
    "60 a completion": {"body": ask("completion/complete")},
    "60 sampling": {"body": ask("sampling/createMessage")},
    "60 elicitation": {"body": ask("elicitation/create")},
    "60 roots": {"body": ask("roots/list")},
    "60 tasks": {"body": ask("tasks/list")},
    "63 another host": {"body": HONEST, "Host": "evil.example"},
    "63 a host with another port": {"body": HONEST, "Host": "127.0.0.1:5001"},
    "63 another origin": {"body": HONEST, "Origin": "http://evil.example"},
    "63 an origin that begins alike": {"body": HONEST, "Origin": f"http://{HOST}.evil.example"},
}


def main() -> None:
    began = time.monotonic()
    seen: dict[str, Any] = {"listed": post(ask("tools/list")), "before": post(HONEST)}
    if SERVER == "plain":
        seen["door"] = {name: post(**probe) for name, probe in DOOR.items()}
    if SERVER == "mirror":
        secret = {"Authorization": f"Bearer {CANARY}", "Cookie": f"session={CANARY}", "X_Api_Key": CANARY}
        seen["passed on"] = post(call(_meta={"authorization": CANARY, "progressToken": CANARY}), **secret)
        seen["said"] = post(call(arguments={"q": CANARY}))
    seen["after"] = post(HONEST)
    seen["listed after"] = post(ask("tools/list"))
    seen["seconds"] = time.monotonic() - began
    folder = Path("/workspace/artifacts")
    folder.mkdir(exist_ok=True)
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()

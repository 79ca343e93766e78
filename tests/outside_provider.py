"""A provider that is scripted to use a tool: OpenAI chat completions and responses, Anthropic messages, over TLS.

Standard library only: it is copied into a container. The script is one step a request. Where the agent has a tool that
runs commands, and no result of it yet, the answer is a call of that tool with the command that was given; else it is a
text. With `tool` and `arguments`, it is the tool whose name ends so, and the text repeats what `report`, a pattern,
finds in its result. Every answer's usage is told, so that a test can say to the nano-dollar what an agent must have
been charged.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONFIG = json.loads(Path("/srv/config.json").read_bytes())
COMMAND, KEY = CONFIG["command"], CONFIG["key"]
SHELLS = ("Bash", "bash", "shell", "shell_command", "exec_command", "local_shell", "container.exec")
FINAL = "The task is done."
Json = dict[str, Any]
_LOCK = threading.Lock()


def tell(**fields: Any) -> None:
    """Say what arrived and what was answered."""
    with _LOCK:
        print(json.dumps(fields), flush=True)


def names(body: Json) -> list[str]:
    """Return the names of the tools that the agent offers, whatever the format."""
    return [str(tool.get("name") or tool.get("function", {}).get("name")) for tool in offered(body)]


def offered(body: Json) -> Iterator[Json]:
    """Yield the tools that the agent offers, those in a namespace one by one."""
    for tool in body.get("tools") or []:
        yield from (
            [{**inner, "namespace": tool["name"]} for inner in tool["tools"]]
            if tool.get("type") == "namespace"
            else [tool]
        )


def has_result(body: Json) -> bool:
    """Whether a tool was used already."""
    text = json.dumps(body)
    return any(mark in text for mark in ('"tool_result"', '"function_call_output"', '"role": "tool"'))


def final(body: Json) -> str:
    """Return the text that ends the task: with a result, what was to be reported of it."""
    found = re.search(CONFIG["report"], json.dumps(body)) if "report" in CONFIG and has_result(body) else None
    return f"The tool says {found.group()}." if found else FINAL


def shell(body: Json) -> tuple[str, Json] | None:
    """Return the call of a shell that the script wants now, if the agent has one and has not used it."""
    if has_result(body):
        return None
    for tool in offered(body):
        if "tool" in CONFIG and str(tool.get("name") or tool.get("function", {}).get("name")).endswith(CONFIG["tool"]):
            return str(tool.get("name") or tool["function"]["name"]), CONFIG["arguments"]
    for tool in [] if "tool" in CONFIG else offered(body):
        spec = tool.get("function") or tool
        name = str(spec.get("name"))
        if name in SHELLS:
            wanted = (spec.get("input_schema") or spec.get("parameters") or {}).get("properties", {})
            return name, _arguments(wanted)
    return None


def _arguments(wanted: Json) -> Json:
    found: Json = {}
    for key, schema in wanted.items():
        if key in ("command", "cmd"):
            listed = schema.get("type") == "array"
            found[key] = ["bash", "-c", COMMAND] if listed else COMMAND
        elif key == "description":
            found[key] = "do the task"
    return found


def usage(body: Json, call: tuple[str, Json] | None) -> tuple[int, int]:
    """Return plausible counts of tokens, which differ from call to call."""
    return len(json.dumps(body)) // 4, 20 + len(json.dumps(call)) // 4


# ---- the formats: a whole answer, and the same as events


def chat(body: Json) -> tuple[Json, Iterator[Json | str]]:
    call = shell(body)
    given, made = usage(body, call)
    counts = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    text = final(body)
    message: Json = {"role": "assistant", "content": text}
    if call is not None:
        function = {"name": call[0], "arguments": json.dumps(call[1])}
        message = {"role": "assistant", "content": None}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    reason = "stop" if call is None else "tool_calls"
    head = {"id": "c1", "created": 1, "model": body["model"]}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    whole = {**head, "object": "chat.completion", "choices": [choice], "usage": counts}

    def events() -> Iterator[Json | str]:
        def chunk(delta: Json, reason: str | None = None) -> Json:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return {**head, "object": "chat.completion.chunk", "choices": [choice]}

        if call is None:
            yield chunk({"role": "assistant", "content": ""})
            yield from (chunk({"content": word + " "}) for word in text.split())
        else:
            first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": call[0], "arguments": ""}}
            yield chunk({"role": "assistant", "content": None, "tool_calls": [first]})
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": json.dumps(call[1])}}]})
        yield chunk({}, reason)
        yield {**head, "object": "chat.completion.chunk", "choices": [], "usage": counts}
        yield "[DONE]"

    return whole, events()


def messages(body: Json) -> tuple[Json, Iterator[Json | str]]:
    call = shell(body)
    given, made = usage(body, call)
    text = final(body)
    block: Json = {"type": "text", "text": text}
    if call is not None:
        block = {"type": "tool_use", "id": "toolu_1", "name": call[0], "input": call[1]}
    reason = "end_turn" if call is None else "tool_use"
    whole = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [block],
        "stop_reason": reason, "stop_sequence": None, "usage": {"input_tokens": given, "output_tokens": made},
    }  # fmt: skip

    def events() -> Iterator[Json | str]:
        start = {**whole, "content": [], "stop_reason": None, "usage": {"input_tokens": given, "output_tokens": 1}}
        yield {"type": "message_start", "message": start}
        if call is None:
            yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
            delta: Json = {"type": "text_delta", "text": text}
        else:
            yield {"type": "content_block_start", "index": 0, "content_block": {**block, "input": {}}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(call[1])}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        end = {"stop_reason": reason, "stop_sequence": None}
        yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": made}}
        yield {"type": "message_stop"}

    return whole, events()


def responses(body: Json) -> tuple[Json, Iterator[Json | str]]:
    call = shell(body)
    given, made = usage(body, call)
    text = final(body)
    content = {"type": "output_text", "text": text, "annotations": []}
    item: Json = {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [content]}
    if call is not None:
        item = {"type": "function_call", "id": "fc1", "call_id": "call_1", "name": call[0], "status": "completed"}
        item["arguments"] = json.dumps(call[1])
        spaces = [tool["namespace"] for tool in offered(body) if tool.get("name") == call[0] and "namespace" in tool]
        item |= {"namespace": spaces[0]} if spaces else {}
    counts = {
        "input_tokens": given, "output_tokens": made, "total_tokens": given + made,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"]}
    whole = {**head, "status": "completed", "output": [item], "usage": counts}

    def events() -> Iterator[Json | str]:
        steps: list[Json] = [{"type": "response.created", "response": {**head, "status": "in_progress", "output": []}}]
        steps.append(
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}}
        )
        if call is None:
            where = {"item_id": "m1", "output_index": 0, "content_index": 0}
            steps.append({"type": "response.output_text.delta", **where, "delta": text})
        steps.append({"type": "response.output_item.done", "output_index": 0, "item": item})
        steps.append({"type": "response.completed", "response": whole})
        yield from ({**step, "sequence_number": number} for number, step in enumerate(steps))

    return whole, events()


FORMATS = {"/v1/chat/completions": (chat, False), "/v1/messages": (messages, True), "/v1/responses": (responses, True)}


class Provider(BaseHTTPRequestHandler):
    """One connection of the llm proxy."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body: Json = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path, _, query = self.path.partition("?")
        sent = self.headers.get("x-api-key") or (self.headers.get("authorization") or "").removeprefix("Bearer ")
        tell(path=path, query=query, key_right=sent == KEY, model=body.get("model"), tools=names(body),
             stream=bool(body.get("stream")), text=json.dumps(body)[-3000:])  # fmt: skip
        if path == "/v1/messages/count_tokens":
            return self._whole({"input_tokens": len(json.dumps(body)) // 4})
        form, named = FORMATS[path]
        whole, events = form(body)
        tell(usage=list(usage(body, shell(body))))
        return self._stream(events, named=named) if body.get("stream") else self._whole(whole)

    def _whole(self, answer: Json) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: Iterator[Json | str], *, named: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            head = f"event: {event['type']}\n" if named and isinstance(event, dict) else ""
            data = event if isinstance(event, str) else json.dumps(event)
            block = f"{head}data: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("0.0.0.0", 443), Provider)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/srv/server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    tell(ready=True)
    sys.stdout.flush()
    server.serve_forever()

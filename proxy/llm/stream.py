"""A stream of server-sent events, judged event by event as it passes. Pure.

Only whole events go on, so that one can be dropped and a cut never leaves half of one. The bytes that go on are the
provider's, but for its key.
"""

from __future__ import annotations

import json

from policies.errors import denial
from policies.vocabulary import Verdict
from proxy.llm.charges import counted, outruns
from proxy.llm.response import other_model, read_object, redact, same_model, text_bytes, usage_of
from proxy.llm.types import ChatRequest, Refused, Usage

MAX_EVENT = 1024 * 1024
"""Bytes of one event of a stream."""

MAX_STREAM = 32 * 1024 * 1024
"""Bytes of a whole answer, streamed or not."""


class StreamJudge:
    """Takes the provider's bytes, returns those that may go on; raises `Refused` (P026, P027, P029) where to cut."""

    def __init__(self, request: ChatRequest, key: str | None) -> None:
        self._request, self._key, self._buffer, self._total = request, key, b"", 0
        self.model: str | None = None
        self.usage: Usage | None = None
        self.chunks = self.output_bytes = 0
        self.finished = False

    def feed(self, data: bytes) -> bytes:
        """Judge what came; return the whole events that may go on now."""
        if self.finished and data.strip():
            raise Refused("CSM-P029", "data after the end of the stream", status=502)
        self._total += len(data)
        self._buffer = (self._buffer + data).replace(b"\r\n", b"\n")
        if self._total > MAX_STREAM:
            raise Refused("CSM-P029", f"a stream over {MAX_STREAM} bytes")
        out = []
        while (end := self._buffer.find(b"\n\n")) >= 0:
            event, self._buffer = self._buffer[: end + 2], self._buffer[end + 2 :]
            if self._judge(event):
                out.append(redact(event, self._key))
        if len(self._buffer) > MAX_EVENT:
            raise Refused("CSM-P029", f"an event over {MAX_EVENT} bytes")
        return b"".join(out)

    def end(self) -> bytes:
        """Return what is left to go on at the end: a last event that lacks its empty line."""
        rest, self._buffer = self._buffer, b""
        out = self.feed(rest.rstrip(b"\n") + b"\n\n") if rest.strip() else b""
        if not self.finished:
            raise Refused("CSM-P029", "the stream ended early", status=502)
        return out

    def charge(self) -> Usage:
        """Return what the stream cost: the provider's word once it has ended, else what passed by, and never less."""
        if self.finished and self.usage is not None:
            return self.usage
        least = counted(self._request.input_tokens, self.output_bytes, self._request.max_output)
        said = self.usage.output if self.usage is not None else 0
        return Usage(input=least.input, output=max(least.output, said), complete=False)

    def _judge(self, event: bytes) -> bool:
        """Whether an event goes on."""
        if self.finished:
            raise Refused("CSM-P029", "data after the end of the stream", status=502)
        if b"\r" in event:
            raise Refused("CSM-P029", "a line end that clients read in two ways", status=502)
        lines = [line for line in event.split(b"\n") if line.startswith(b"data:")]
        data = b"\n".join(line.removeprefix(b"data:").removeprefix(b" ") for line in lines)
        if not data:
            return True  # a comment, which keeps the connection alive
        if data == b"[DONE]":
            self.finished = True
            return True
        body = read_object(data)
        if "error" in body:
            raise Refused("CSM-P025", "the provider failed during the stream", status=502)
        if not same_model(body.get("model"), self._request.model.model):
            raise other_model(body.get("model"))
        self.model = str(body["model"])
        self.usage = usage_of(body) or self.usage
        choices = body.get("choices")
        size = text_bytes(choices) if isinstance(choices, list) else 0
        self.chunks, self.output_bytes = self.chunks + (size > 0), self.output_bytes + size
        if outruns(self.chunks, self.output_bytes, self._request.max_output):
            raise Refused("CSM-P027", f"over the {self._request.max_output} tokens of output that were reserved")
        return bool(choices) or self._request.wants_usage


def cut(refused: Refused) -> bytes:
    """Return the last event of a stream that was cut, in the shape of every denial."""
    shape = denial(refused.code, "llm", hint=refused.hint or refused.reason, verdict=Verdict.DENY.value)
    return b"data: " + json.dumps(shape).encode() + b"\n\n"

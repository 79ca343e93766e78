"""A stream of server-sent events, judged event by event as it passes. Pure.

Only whole events go on, so that one can be dropped and a cut never leaves half of one. The bytes that go on are the
provider's, but for its key.
"""

from __future__ import annotations

from dataclasses import replace

from policies.canonical import Json
from proxy.llm.charges import counted, outruns
from proxy.llm.formats.base import Format
from proxy.llm.response import failed, other_model, read_object, redact, same_model
from proxy.llm.types import LlmRequest, Refused, Usage

DONE = b"[DONE]"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
MAX_EVENT = 1024 * 1024
"""Bytes of one event of a stream."""

MAX_STREAM = 32 * 1024 * 1024
"""Bytes of a whole answer, streamed or not."""


class StreamJudge:
    """Takes the provider's bytes, returns those that may go on; raises `Refused` (P025 to P029) where to cut."""

    def __init__(self, request: LlmRequest, form: Format, key: str | None) -> None:
        self._request, self._form, self._key, self._buffer, self._total = request, form, key, b"", 0
        self.model: str | None = None
        self.usage: Usage | None = None
        self.chunks = self.output_bytes = 0
        self.finished = self._may_end = False

    def feed(self, data: bytes) -> bytes:
        """Judge what came; return the whole events that may go on now."""
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
        self.finished = self.finished or self._may_end
        if not self.finished:
            raise Refused("CSM-P029", "the stream ended early", status=502)
        return out

    def charge(self) -> Usage:
        """Return what the stream cost: the provider's word once it has ended, else what passed by, and never less."""
        if self.finished and self.usage is not None:
            return self.usage
        least = counted(self._request.worst, self.output_bytes, hidden=self._request.hidden)
        said = self.usage.output if self.usage is not None else 0
        return replace(least, output=max(least.output, said))

    def _judge(self, event: bytes) -> bool:
        """Whether an event goes on."""
        if b"\r" in event:
            raise Refused("CSM-P029", "a line end that clients read in two ways", status=502)
        lines = event.split(b"\n")
        if not all(line.startswith(_FIELDS) for line in lines if line):
            raise Refused("CSM-P029", "a line that is no field of an event", status=502)
        data = b"\n".join(x.removeprefix(b"data:").removeprefix(b" ") for x in lines if x.startswith(b"data:"))
        if self.finished and data == DONE:
            return False  # some servers say so after an end that said so already
        if self.finished:
            raise Refused("CSM-P029", "data after the end of the stream", status=502)
        if not data:
            return True  # a comment, which keeps the connection alive
        if data == DONE and not self._form.named:
            self.finished = True
            return True
        body = read_object(data)
        self._check_name(lines, body)
        said = self._form.event(body, self.usage)
        if said.failed is not None:
            raise failed(said.failed, self._key)
        if said.names:
            if not same_model(said.model, self._request.model):
                raise other_model(said.model, self._request.model)
            self.model = str(said.model)
        elif self.model is None and said.output_bytes:
            raise other_model(None, self._request.model)  # an answer before the name of who answers
        self.usage, self.finished = said.usage, said.ended
        self._may_end = self._may_end or said.may_end
        self.chunks, self.output_bytes = self.chunks + (said.output_bytes > 0), self.output_bytes + said.output_bytes
        if outruns(self.chunks, self.output_bytes, self._request.max_output):
            raise Refused("CSM-P027", f"over the {self._request.max_output} tokens of output that were reserved")
        return said.passes or self._request.wants_usage

    def _check_name(self, lines: list[bytes], body: dict[str, Json]) -> None:
        """Refuse an event whose name and body differ: some clients go by the one, some by the other."""
        names = [line.removeprefix(b"event:").strip() for line in lines if line.startswith(b"event:")]
        kind = body.get("type")
        if self._form.named and (not isinstance(kind, str) or any(name != kind.encode() for name in names)):
            raise Refused("CSM-P029", "an event without a type, or under another name", status=502)

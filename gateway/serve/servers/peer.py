"""What a server may say, read strictly: JSON-RPC 2.0 messages, of which only answers to our own questions count. Pure.

Threats: an answer to somebody else's id, a request to the client (sampling, roots, elicitation), a line of two
gigabytes, two readings of one message. Ids are ours, so an answer can only be to what we asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from gateway.serve.types import META_CAPABILITIES, META_VERSION, METHOD_NOT_FOUND, MODERN_VERSIONS
from policies.canonical import StrictJsonError, strict_loads

MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes of one message of a server."""
MAX_NOISE = 10_000
MAX_NOISE_BYTES = 16 * 1024 * 1024
"""Messages that answer nothing, and their bytes, since the last answer, after which a server has failed."""
CLIENT = {"name": "casemate-gateway", "title": "Casemate gateway", "version": "0.1.0"}
META_CLIENT = "io.modelcontextprotocol/clientInfo"
CHANGED = "notifications/tools/list_changed"
LOG = "notifications/message"
NOTES = frozenset({"notifications/progress", LOG})


Note = Callable[[str, dict[str, Any]], None]
"""Hears the notifications that belong to one request: method and parameters."""


class ServerFailed(Exception):  # noqa: N818 - the word for it
    """The server cannot be used now; `reason` holds nothing that it said."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class TimedOut(ServerFailed):
    """One question was not answered in time, and was taken back; others on the same connection may be."""


class Peer(Protocol):
    """Carries requests to one server. `stale`: it has said that its tools are others now."""

    stale: bool

    def speak(self, version: str) -> None:
        """Speak the revision that was agreed on from now on."""
        ...

    async def request(self, method: str, params: dict[str, Any], seconds: float, note: Note | None = None) -> Answer:
        """Ask, and return the answer; raise `ServerFailed`, or `TimedOut` when only this question has failed.

        `note` hears what is said meanwhile.
        """
        ...

    async def notify(self, method: str) -> None:
        """Tell; raise `ServerFailed`."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: a result, or an error with its code and message."""

    result: dict[str, Any] | None
    code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What a message of a server is: an answer to our question `id`, a question to be refused, or noise.

    `stale` is noise that says that the server's tools have changed; `note` noise about one of our questions.
    """

    id: int | None = None
    answer: Answer | None = None
    refuse: bytes | None = None
    stale: bool = False
    note: tuple[str, dict[str, Any]] | None = None

    def hearer(self, questions: Iterable[int]) -> int | None:
        """Return which of the open questions a note is for. Progress says so: its token is our id. A log message does
        not, and is for the question that has waited longest."""
        if self.note is None:
            return None
        method, params = self.note
        if method == LOG:
            return next(iter(questions), None)
        token = params.get("progressToken")
        return next((q for q in questions if type(token) is int and token == q), None)


def read(data: bytes) -> Said:
    """Read one message; raise `ServerFailed` for what has no one reading."""
    try:
        value = strict_loads(data)
    except StrictJsonError as error:
        raise ServerFailed("it said something that is not one JSON document") from error
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise ServerFailed("it said something that is not JSON-RPC 2.0")
    if "method" in value:
        number = value.get("id")
        if isinstance(number, bool) or not isinstance(number, int | str):
            method, params = value["method"], value.get("params")
            noted = isinstance(method, str) and method in NOTES and isinstance(params, dict)
            return Said(stale=method == CHANGED, note=(str(method), params) if noted else None)  # type: ignore[arg-type]
        refusal = {"code": METHOD_NOT_FOUND, "message": "not offered"}
        return Said(refuse=msgspec.json.encode({"jsonrpc": "2.0", "id": number, "error": refusal}))
    number = value.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        return Said()
    result, failure = value.get("result"), value.get("error")
    if isinstance(result, dict) and failure is None:
        return Said(id=number, answer=Answer(result))
    if isinstance(failure, dict) and result is None:
        code, message = failure.get("code"), failure.get("message")
        return Said(
            id=number,
            answer=Answer(None, code if isinstance(code, int) else 0, message if isinstance(message, str) else ""),
        )
    raise ServerFailed("it answered with neither a result nor an error")


class Noise:
    """What a server has said since its last answer without answering anything."""

    def __init__(self) -> None:
        self._messages, self._size = 0, 0

    def more(self, size: int) -> None:
        """Count a message of `size` bytes; raise `ServerFailed` when there were too many."""
        self._messages, self._size = self._messages + 1, self._size + size
        if self._messages > MAX_NOISE or self._size > MAX_NOISE_BYTES:
            raise ServerFailed("it talks too much")

    def end(self) -> None:
        """An answer has come."""
        self._messages, self._size = 0, 0


def enveloped(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request of a revision without a handshake: each says who asks, and in which."""
    meta = {META_VERSION: MODERN_VERSIONS[-1], META_CAPABILITIES: {}, META_CLIENT: CLIENT}
    return {**params, "_meta": {**params.get("_meta", {}), **meta}}


def question(number: int | None, method: str, params: dict[str, Any] | None, *, progress: bool = False) -> bytes:
    """Return a request, or without a number a notification; `progress` asks for it under our own number."""
    if progress:
        params = params or {}
        params = {**params, "_meta": {**params.get("_meta", {}), "progressToken": number}}
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if number is not None:
        message["id"] = number
    if params is not None:
        message["params"] = params
    return msgspec.json.encode(message)

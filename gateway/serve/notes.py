"""What a server says of itself while it works on a call: progress and log messages, as the agent that asked gets them.

Threats: a flood; text that hides, or is a secret of ours; a token of somebody else's call. So each note is written
anew from the fields that it may have, with the token that its agent chose, and a call has only so many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeIs

import msgspec

from gateway.serve.results import Washer

LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
MAX_LOGS = 200
"""Log messages of one call."""
MAX_NOTE = 8 * 1024
"""Bytes of one note."""
PROGRESS: Final = "notifications/progress"
LOG: Final = "notifications/message"

Tell = Callable[[bytes, bool], None]


class Notes:
    """The notes of one call. `token` is the agent's, None when it asked for no progress; `level` of the least log
    message that it wants, None for none."""

    def __init__(self, tell: Tell, token: str | int | None, level: int | None, secrets: Sequence[str]) -> None:
        self._tell, self._token, self._level = tell, token, level
        self._washer = Washer(secrets)
        self._logs = 0
        self._done: float = -math.inf

    @property
    def wanted(self) -> bool:
        """Whether the agent would hear anything."""
        return self._token is not None or self._level is not None

    def take(self, method: str, params: Mapping[str, Any]) -> None:
        """Pass a notification of the server on, as far as it is one that this agent asked for."""
        made = self._progress(params) if method == PROGRESS else self._log(params) if method == LOG else None
        if made is None:
            return
        data = msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": self._washer.wash(made)})
        if len(data) <= MAX_NOTE:
            self._tell(data, method == PROGRESS)

    def _progress(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        done, total, message = params.get("progress"), params.get("total"), params.get("message")
        if self._token is None or not _number(done) or not done > self._done:
            return None
        self._done = done
        told = {"progressToken": self._token, "progress": done}
        told |= {"total": total} if _number(total) else {}
        return {**told, **({"message": message} if isinstance(message, str) else {})}

    def _log(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        level, logger = params.get("level"), params.get("logger")
        if self._level is None or level not in LEVELS or LEVELS.index(level) < self._level or "data" not in params:
            return None
        if self._logs >= MAX_LOGS:
            return None
        self._logs += 1
        named = {"logger": logger} if isinstance(logger, str) else {}
        return {"level": level, **named, "data": params["data"]}


def _number(value: object) -> TypeIs[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)

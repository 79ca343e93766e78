"""A POST for each row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from gateway.customs.sinks.rows import Failed, Send
from gateway.customs.sinks.web import client
from policies.plan import Output

_LOST = frozenset({408, 409, 425, 429})
"""Answers of class 4 that do not say that the row was not written."""


class HttpLine:
    """One URL."""

    def __init__(self, output: Output, secret: str | None, trust: list[str], root: Path) -> None:
        self._url, self._client = output.target["url"], client(output, secret, trust, root)

    @contextmanager
    def open(self) -> Iterator[Send]:
        """Open a client; it connects with the first row."""
        with self._client as opened:
            yield lambda row, key: self._post(opened, row, key)

    def _post(self, opened: httpx.Client, row: bytes, key: str) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        try:
            with opened.stream("POST", self._url, content=row, headers=headers) as answer:
                status = answer.status_code
        except httpx.ConnectError as error:
            raise Failed(f"it does not answer: {type(error).__name__}", refused=True) from error
        except httpx.HTTPError as error:
            raise Failed(f"it broke off: {type(error).__name__}", refused=False) from error
        if not 200 <= status < 300:
            raise Failed(f"it answered with status {status}", refused=status < 500 and status not in _LOST)

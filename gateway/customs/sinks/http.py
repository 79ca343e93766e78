"""A POST for each row, through a tunnel that leads to its host alone; no redirect is followed, no cookie kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx

from gateway.customs.sinks.rows import Failed, Send
from gateway.tls import context
from policies.plan import Output
from policies.slices import sink_door

SECONDS = 60.0
_LOST = frozenset({408, 409, 425, 429})
"""Answers of class 4 that do not say that the row was not written."""


class HttpLine:
    """One URL."""

    def __init__(self, output: Output, secret: str | None, trust: list[str], root: Path) -> None:
        self._url, self._tunnel = output.target["url"], root / "doors" / sink_door(output.name) / "up.sock"
        self._context = context(trust)
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if secret is not None:
            self._headers["Authorization"] = f"Bearer {secret}"

    @contextmanager
    def open(self) -> Iterator[Send]:
        """Open a client; it connects with the first row."""
        transport = httpx.HTTPTransport(uds=str(self._tunnel), verify=self._context, retries=0)
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        with httpx.Client(transport=transport, follow_redirects=False, trust_env=False, cookies=cookies) as client:
            yield lambda row, key: self._post(client, row, key)

    def _post(self, client: httpx.Client, row: bytes, key: str) -> None:
        headers = {**self._headers, "Idempotency-Key": key}
        try:
            with client.stream("POST", self._url, content=row, headers=headers, timeout=SECONDS) as answer:
                status = answer.status_code
        except httpx.ConnectError as error:
            raise Failed(f"it does not answer: {type(error).__name__}", refused=True) from error
        except httpx.HTTPError as error:
            raise Failed(f"it broke off: {type(error).__name__}", refused=False) from error
        if not 200 <= status < 300:
            raise Failed(f"it answered with status {status}", refused=status < 500 and status not in _LOST)

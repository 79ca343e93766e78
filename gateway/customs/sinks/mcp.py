"""A call of a write tool for each row. The server has no other client, and no agent ever meets it.

The tool must be the one that a person pinned as a tool that writes, word for word; else nothing is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gateway.customs.sinks.rows import Failed, Send
from gateway.serve.pins import compare
from gateway.serve.servers.peer import ServerFailed
from gateway.serve.servers.session import Session, opener
from gateway.serve.types import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND
from policies.plan import Output, Tool
from policies.slices import SINK_STAGE

KEY = "io.casemate/idempotency-key"


class McpLine:
    """One tool of one server."""

    def __init__(self, output: Output, server: Tool, secrets: Mapping[str, str], trust: list[str], root: Path) -> None:
        self._tool, self._server = output.target["tool"], server
        self._reach = opener(server, SINK_STAGE, root, secrets, trust)

    @contextmanager
    def open(self) -> Iterator[Send]:
        """Open the server, and hold the tool against its pin."""
        with asyncio.Runner() as runner:
            session = Session(self._server, self._reach)
            try:
                runner.run(self._meet(session))
                yield lambda row, key: runner.run(self._call(session, row, key))
            finally:
                runner.run(session.close())

    async def _meet(self, session: Session) -> None:
        try:
            live = await session.tools()
        except ServerFailed as failed:
            raise Failed(f"the server cannot be used: {failed.reason}", refused=True) from failed
        found = compare([self._tool], self._server.pins, live, writes=True)
        if self._tool in found.gone:
            raise Failed(f"the tool is not used: {found.gone[self._tool]}", refused=True)

    async def _call(self, session: Session, row: bytes, key: str) -> None:
        params = {"name": self._tool, "arguments": msgspec.json.decode(row), "_meta": {KEY: key}}
        try:
            answer = await session.ask("tools/call", params)
        except ServerFailed as failed:
            raise Failed(f"the server broke off: {failed.reason}", refused=False) from failed
        if answer.result is None or answer.result.get("isError"):
            # What a tool did before it failed nobody knows; only a call that was not understood did nothing.
            refused = answer.result is None and answer.code in (INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS)
            raise Failed("the tool answered with an error", refused=refused)

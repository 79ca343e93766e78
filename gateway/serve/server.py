"""The sockets: one uvicorn server a cell, each on a Unix socket of its own. The socket is the identity."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.schema import Schema
from gateway.serve.app import Door, build
from gateway.serve.buffer import Buffer
from gateway.serve.desk import Desk, Ledger
from gateway.serve.front import Emit
from gateway.serve.overflow import Overflow
from gateway.serve.servers.session import Session, opener
from gateway.serve.texts import Texts
from gateway.serve.tooldesk import ToolDesk
from gateway.serve.types import Refusal
from gateway.start import told
from policies.cells import met
from policies.errors import CasemateError
from policies.events import EventLogError
from policies.slices import GatewaySlice
from policies.vocabulary import Component, EventName

MAX_CONNECTIONS = 64
"""Open connections of one cell; the next is closed at once. 64 bodies of 1 MiB bound the memory of a cell."""
MAX_HEAD = 16 * 1024
"""Bytes of a request head."""
IDLE_SECONDS = 75
"""How long a connection may stay open without a request."""

_log = structlog.get_logger()


def protocol(desk: Desk, end: Any) -> type[H11Protocol]:
    """Return uvicorn's HTTP/1.1 protocol with the bounds that uvicorn leaves to a proxy in front."""

    class DoorProtocol(H11Protocol):
        _first: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > MAX_CONNECTIONS:
                # uvicorn would keep it open and answer 503; a stage could use up every file descriptor that way.
                transport.abort()
                return
            self._first = self.loop.call_later(IDLE_SECONDS, self._expire)

        def _expire(self) -> None:
            cycle: object = self.cycle
            if cycle is None:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._first is not None:
                self._first.cancel()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            try:
                hint = "speak HTTP/1.1"
                desk.refused(Refusal(code="CSM-G001", denied="http", hint=hint, status=400))
            except Exception as error:  # noqa: BLE001 - the event log is broken: end the process, answer nothing
                end(error)
                self.transport.abort()
                return
            super().send_400_response(msg)

    return DoorProtocol


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: there are many servers in this process and one decision to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def bind(path: Path) -> socket.socket:
    """Return a socket listening at `path` with mode 0660; take the place of a socket that a dead process left."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)
    try:
        door.bind(str(path))
        door.listen(128)
    except OSError as error:
        door.close()
        raise CasemateError("CSM-R003", f"door cannot be bound: {error.strerror}", place=path.parent.name) from error
    finally:
        os.umask(mask)
    return door


async def serve(
    part: GatewaySlice,
    root: Path,
    port: int,
    emit: Emit,
    secrets: Mapping[str, str],
    facts: Mapping[str, str] | None = None,
) -> int:
    """Serve the cells that `facts` name until SIGTERM or SIGINT; return the exit code. `port` is the one agents see."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    failures: list[BaseException] = []

    def end(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def mark() -> None:
        try:
            emit(EventName.COMPONENT_SYNCED)
        except EventLogError as error:
            end(error)

    # Whoever reads our events asks by this signal for a mark: when it comes, everything before it has come.
    loop.add_signal_handler(signal.SIGUSR1, mark)
    schemas = {output.name: Schema(output.schema, f"output {output.name}") for output in part.outputs}
    cells = met(facts or {}, {s.stage: s.shards for s in part.stages}, Component.GATEWAY.value)
    desks = _desks(part, cells, schemas, root, emit, Ledger(facts))
    authorities = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
    doors = [bind(root / "doors" / cell / "mcp.sock") for cell, _ in desks]
    tools = _tools(part, cells, root, emit, secrets)
    servers = [_server(build(Door(desk, authorities, end, tools[cell])), protocol(desk, end)) for cell, desk in desks]
    tasks = [asyncio.create_task(s.serve(sockets=[d])) for s, d in zip(servers, doors, strict=True)]
    for task in tasks:
        task.add_done_callback(lambda _: stop.set())
    emit(EventName.COMPONENT_READY, attrs={"casemate.component": Component.GATEWAY.value})
    await stop.wait()
    for server in servers:
        server.should_exit = True
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failures.extend(result for result in results if isinstance(result, BaseException))
    for failure in failures:
        _log.error("gateway ends", **told(failure))
    return 1 if failures else 0


def _desks(
    part: GatewaySlice,
    cells: Mapping[str, Sequence[str]],
    schemas: dict[str, Schema],
    root: Path,
    emit: Emit,
    ledger: Ledger,
) -> Sequence[tuple[str, Desk]]:
    outputs = {output.name: output for output in part.outputs}
    desks: list[tuple[str, Desk]] = []
    for stage in part.stages:
        try:
            mine = [outputs[name] for name in stage.outputs]
        except KeyError as error:
            raise CasemateError("CSM-R010", f"undeclared output {error}", place=f"stage {stage.stage}") from error
        for cell in cells[stage.stage]:
            buffer = Buffer(root / "buffer" / f"{cell}.jsonl", cell)
            desks.append((cell, Desk(cell, mine, schemas, ledger, buffer, emit)))
    return desks


def _tools(
    part: GatewaySlice, cells: Mapping[str, Sequence[str]], root: Path, emit: Emit, secrets: Mapping[str, str]
) -> dict[str, dict[str, ToolDesk]]:
    """Return the tool servers of each cell, by name. Each cell has sessions of its own."""
    declared = {server.name: server for server in part.servers}
    known = list(secrets.values())
    desks: dict[str, dict[str, ToolDesk]] = {}
    for cell, stage in {cell: one for one in part.stages for cell in cells[one.stage]}.items():
        desks[cell], overflow = {}, Overflow(root / "results" / cell)
        for name, wanted in stage.tools.items():
            server = declared[name]
            session = Session(server, opener(server, cell, root, secrets, part.trust, known.append))
            texts = Texts(stage.resources.get(name, ()), stage.prompts.get(name, ()))
            desks[cell][name] = ToolDesk(
                cell, server, wanted, session, emit, known, stage.tool_rules, texts, overflow.keep
            )
    return desks


def _server(app: FastAPI, http: type[H11Protocol]) -> _Server:
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    return _Server(config)

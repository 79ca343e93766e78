"""A server over its standard streams, which a bridge brings to a Unix socket: one line, one message."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from gateway.serve.servers.peer import (
    MAX_MESSAGE,
    Answer,
    Noise,
    Note,
    Peer,
    Said,
    ServerFailed,
    TimedOut,
    enveloped,
    question,
    read,
)
from gateway.serve.types import MODERN_VERSIONS

CONNECT_SECONDS = 15.0
SEND_SECONDS = 10.0
"""How long a server may leave unread what we say."""


class StdioPeer(Peer):
    """One connection. After one failure it fails for ever; a new one has to be opened."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._numbers = reader, writer, count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._notes: dict[int, Note] = {}
        self._failed: ServerFailed | None = None
        self.stale, self._modern = False, False
        self._task = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, path: Path, seconds: float = CONNECT_SECONDS) -> StdioPeer:
        """Connect; raise `ServerFailed` when nobody is there in time."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    with suppress(OSError):
                        return cls(*await asyncio.open_unix_connection(path, limit=MAX_MESSAGE))
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise ServerFailed("it does not start") from error

    def speak(self, version: str) -> None:
        """Speak the revision that was agreed on from now on."""
        self._modern = version in MODERN_VERSIONS

    async def request(self, method: str, params: dict[str, Any], seconds: float, note: Note | None = None) -> Answer:
        """Ask, and wait for the answer."""
        if self._failed is not None:
            raise self._failed
        number = next(self._numbers)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        if note is not None:
            self._notes[number] = note
        try:
            async with asyncio.timeout(seconds):
                asked = enveloped(params) if self._modern else params
                await self._send(question(number, method, asked, progress=note is not None))
                return await answer
        except TimeoutError as error:
            # Not awaited: one that does not answer may not read either. An answer that comes after all is noise.
            self._writer.write(question(None, "notifications/cancelled", {"requestId": number}) + b"\n")
            raise TimedOut(f"it did not answer within {seconds:.0f} seconds") from error
        finally:
            self._waiting.pop(number, None)
            self._notes.pop(number, None)

    async def notify(self, method: str) -> None:
        """Tell."""
        await self._send(question(None, method, None))

    async def close(self) -> None:
        """End the connection, and whoever waits for an answer."""
        self._task.cancel()
        self._writer.close()
        self._fail(ServerFailed("it was closed"))
        with suppress(asyncio.CancelledError, OSError):
            await self._task

    async def _send(self, data: bytes) -> None:
        try:
            self._writer.write(data + b"\n")
            if self._writer.transport.get_write_buffer_size():
                async with asyncio.timeout(SEND_SECONDS):
                    await self._writer.drain()
        except TimeoutError as error:
            raise ServerFailed("it does not read") from error
        except OSError as error:
            raise ServerFailed("it has ended") from error

    async def _listen(self) -> None:
        noise = Noise()
        try:
            while line := await self._reader.readuntil(b"\n"):
                said = read(line)
                waiting = self._waiting.get(said.id) if said.id is not None else None
                if waiting is not None and said.answer is not None and not waiting.done():
                    waiting.set_result(said.answer)
                    noise.end()
                    continue
                self.stale = self.stale or said.stale
                noise.more(len(line))
                self._hear(said)
                if said.refuse is not None:
                    await self._send(said.refuse)
                await asyncio.sleep(0)  # a flood takes turns with everybody else
        except ServerFailed as failed:
            self._fail(failed)
        except asyncio.LimitOverrunError:
            self._fail(ServerFailed(f"it said a line over {MAX_MESSAGE} bytes"))
        except (OSError, asyncio.IncompleteReadError):
            self._fail(ServerFailed("it has ended"))
        except Exception:  # noqa: BLE001 - whoever waits must hear of it, whatever it was
            self._fail(ServerFailed("it said something that cannot be read"))
        finally:
            self._writer.close()

    def _hear(self, said: Said) -> None:
        number = said.hearer(self._notes)
        if said.note is not None and number is not None:
            self._notes[number](*said.note)

    def _fail(self, failed: ServerFailed) -> None:
        self._failed = self._failed or failed
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(failed)

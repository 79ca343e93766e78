"""One connection to an allowed destination, as an HTTP/1.1 client. The only file that imports h11.

h11 keeps the state of the conversation: it frames what is sent, and refuses a response that is none. What it still
accepts out of courtesy and has two readings (both framings at once) is refused here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import h11

from proxy.egress.relay import CHUNK, close
from proxy.egress.types import Refused

MAX_RESPONSE_HEAD = 64 * 1024

Headers = Sequence[tuple[bytes, bytes]]
Spend = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The head of a response. Header names are lower case; status 100 to 199 comes before the final one."""

    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


class Place(NamedTuple):
    """Where a connection leads, and the private networks in which that may be."""

    scheme: str
    host: str
    port: int
    networks: tuple[str, ...]


class Upstream:
    """A connection to one place, for one request after the other."""

    def __init__(self, place: Place, address: str) -> None:
        """`address` is the one that was checked for the place."""
        self.place, self.address = place, address
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_RESPONSE_HEAD)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    _spend: Spend

    def attach(self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Use this connection, which leads to the place."""
        self._streams = streams

    @property
    def reusable(self) -> bool:
        """Whether the next request can be sent here."""
        if self._streams is None or self._streams[0].at_eof() or self._streams[1].is_closing():
            return False
        return self._http.our_state is h11.IDLE

    async def begin(self, method: str, path: str, headers: Headers, spend: Spend) -> None:
        """Send the head of a request. Raises `Refused`: P006 when the connection breaks, or what `spend` raises.

        `spend` is told of the bytes of this request before they go out.
        """
        self._spend = spend
        await self._send(h11.Request(method=method, target=path, headers=list(headers)))

    async def part(self, data: bytes) -> None:
        """Send a part of its body."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """Say that the request is complete."""
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event) or b""
        _, writer = self._connected()
        if data:
            self._spend(len(data))
            try:
                writer.write(data)
                await writer.drain()
            except OSError as error:
                raise Refused("CSM-P006", f"the upstream hung up: {type(error).__name__}") from error

    async def receive(self) -> Answer | bytes | None:
        """Return the next head, the next part of the body, or None at its end; raise `Refused` (P006, P010)."""
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise Refused("CSM-P006", f"the upstream does not speak HTTP: {error}") from error
            match event:
                case h11.NEED_DATA:
                    await self._read()
                case h11.PAUSED:
                    # a switch of protocols was agreed upon: nobody could judge what passes
                    raise Refused("CSM-P010", "the upstream wants to switch protocols")
                case h11.InformationalResponse() | h11.Response():
                    return _answer(event)
                case h11.Data():
                    return bytes(event.data)
                case h11.EndOfMessage():
                    return None
                case _:
                    raise Refused("CSM-P006", "the upstream hung up before its response")

    async def _read(self) -> None:
        reader, _ = self._connected()
        try:
            self._http.receive_data(await reader.read(CHUNK))
        except OSError as error:
            raise Refused("CSM-P006", f"the upstream hung up: {type(error).__name__}") from error

    def finish(self) -> None:
        """Make ready for the next request, if the last one is through in both directions."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._streams is not None:
            await close(self._streams[1])

    def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            raise Refused("CSM-P006", "not connected")
        return self._streams


def _answer(event: h11.InformationalResponse | h11.Response) -> Answer:
    headers = tuple((bytes(name), bytes(value)) for name, value in event.headers)
    names = [name for name, _ in headers]
    if event.status_code == 101:
        raise Refused("CSM-P010", "the upstream wants to switch protocols")
    if b"content-length" in names and b"transfer-encoding" in names:
        raise Refused("CSM-P006", "the upstream sent both content-length and transfer-encoding")
    return Answer(status=event.status_code, reason=bytes(event.reason), headers=headers)

"""Ends the TLS of an inspected tunnel: a server over bytes that were looked at already.

The ClientHello that `tunnel.await_hello` judged is put back and is the first thing that OpenSSL reads here, so there
is no second reading of another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from proxy.egress.relay import CHUNK, Source
from proxy.egress.types import Refused

HANDSHAKE_SECONDS = 10.0


class TlsEnd:
    """The decrypted side of a connection: a reader for `Source`, and a writer."""

    def __init__(self, source: Source, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self._source, self._writer = source, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ended = False
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self, host: str, seconds: float = HANDSHAKE_SECONDS) -> None:
        """Shake hands as `host`; raise `Refused` (P013) when the client does not."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        self._tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        await self.drain()
                        await self._fill()
            await self.drain()
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):
                await self.drain()  # the alert that says why
            raise Refused("CSM-P013", f"TLS with the client failed: {error.reason or 'ended'}", host=host) from error
        except TimeoutError as error:
            raise Refused("CSM-P013", f"no TLS handshake within {seconds:.0f} seconds", host=host) from error

    async def read(self, size: int = CHUNK) -> bytes:
        """Return up to `size` decrypted bytes; empty at the end, whether it was announced or not."""
        if self._ended:
            return await self._source.read(size)  # to be thrown away, so nobody decrypts it
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                await self.drain()  # what the protocol itself has to say
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise ConnectionAbortedError(error.reason) from error

    def write(self, data: bytes) -> None:
        """Encrypt and send; wait with `drain`."""
        if data:
            self._tls.write(data)
            self._flush()

    async def drain(self) -> None:
        """Wait until the cell has taken most of what was sent."""
        self._flush()
        await self._writer.drain()

    def write_eof(self) -> None:
        """Say goodbye, so that the other side knows that nothing was cut off. What it sends can no longer be read."""
        if not self._ended and not self._writer.is_closing():
            self._ended = True
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()

    def close(self) -> None:
        """Say goodbye, and close."""
        self.write_eof()
        self._writer.close()

    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._writer.is_closing()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())

    async def _fill(self) -> None:
        data = await self._source.read(CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

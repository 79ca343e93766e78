"""What is too slow, with limits of its own in place of ten seconds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.egress.framing import read_head
from proxy.egress.relay import Source, Traffic, relay
from proxy.egress.tunnel import await_hello
from proxy.egress.types import Refused
from tests.proxy.kit import run
from tests.proxy.test_egress_hello import hello


def source(data: bytes) -> Source:
    """A connection that says `data`, and then nothing more without ending."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    return Source(reader)


@pytest.mark.parametrize("data", [b"GET", b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n"])
def test_row_37_a_head_that_does_not_end_is_refused(data: bytes) -> None:
    async def scenario() -> None:
        with pytest.raises(Refused) as refused:
            await read_head(source(data), wait=0.01, slow=0.01)
        assert refused.value.code == "CSM-P002"

    run(scenario())


def test_row_37_a_connection_that_says_nothing_is_closed() -> None:
    async def scenario() -> None:
        assert await read_head(source(b""), wait=0.01) is None

    run(scenario())


def test_what_was_read_too_far_is_put_back() -> None:
    async def scenario() -> None:
        one = b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"
        both = source(one + hello())
        assert await read_head(both) == one
        await await_hello(both, "a.example")
        assert (await both.read(5))[:1] == b"\x16"

    run(scenario())


@pytest.mark.parametrize("data", [b"", hello()[:-1]])
def test_trap_4_a_hello_that_does_not_end_is_refused(data: bytes) -> None:
    async def scenario() -> None:
        with pytest.raises(Refused) as refused:
            await await_hello(source(data), "a.example", seconds=0.01)
        assert refused.value.code == "CSM-P007"

    run(scenario())


def test_a_tunnel_in_which_nothing_moves_is_closed(root: Path) -> None:
    async def scenario() -> None:
        ends: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        path = root / "idle.sock"
        server = await asyncio.start_unix_server(lambda r, w: ends.put_nowait((r, w)), path)
        kept = [await asyncio.open_unix_connection(path) for _ in range(2)]
        inner, outer = await ends.get(), await ends.get()
        with pytest.raises(Refused):
            await relay(Source(inner[0]), inner[1], *outer, Traffic(), idle=0.01)
        for _, writer in (inner, outer, *kept):
            writer.close()
        server.close()

    run(scenario())

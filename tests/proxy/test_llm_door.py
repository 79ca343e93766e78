"""Conversations through a stage's LLM door, over real sockets, with a provider at the end of the tunnel."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.llm.door import MAX_BODY, MAX_CONNECTIONS, LimitedServer
from proxy.llm.types import Amount
from tests.proxy.kit import KEY, converse, llm_for, make_plan, run
from tests.proxy.llm_setting import URL, USER, setting
from tests.proxy.outside import certificate
from tests.proxy.provider import Provider, chunk, completion, provider_at, saying, usage_chunk


def test_a_whole_answer_is_passed_on_and_settled(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            status, body = await s.ask()
            assert (status, body) == (200, completion(s.provider))
            decided, settled = s.log.lines
            assert (decided["event"], decided["verdict"], decided["stage"]) == ("llm.decided", "allow", "work")
            assert decided["attrs"]["casemate.reserved.tokens"] > 50
            assert settled["event"] == "llm.settled"
            attrs = settled["attrs"]
            assert (attrs["gen_ai.request.model"], attrs["gen_ai.response.model"]) == ("teacher", "tiny-model")
            assert (attrs["gen_ai.usage.input_tokens"], attrs["gen_ai.usage.output_tokens"]) == (7, 3)
            assert attrs["casemate.cost.usd_nanos"] == 7 * 10 + 3 * 20
            assert (attrs["http.response.status_code"], attrs["casemate.stream"]) == (200, False)
            assert s.spent() == s.spent("stage/work") == Amount(calls=1, tokens=10, usd_nanos=130)
            assert s.spent("stage/other") == Amount(calls=0, tokens=0, usd_nanos=0)

    run(scenario())


@pytest.mark.parametrize("wanted", [False, True])
def test_a_stream_is_passed_on_and_settled(root: Path, wanted: bool) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            events = await s.events(**({"stream_options": {"include_usage": True}} if wanted else {}))
            assert events[-1] == "[DONE]"
            parsed = [json.loads(event) for event in events[:-1]]
            assert "".join(e["choices"][0]["delta"]["content"] for e in parsed if e["choices"]) == "abc"
            assert any("usage" in e for e in parsed) is wanted
            assert s.spent() == Amount(calls=1, tokens=10, usd_nanos=130)
            assert s.log.lines[-1]["attrs"]["casemate.stream"] is True

    run(scenario())


def test_trap_7_a_streams_events_arrive_as_they_are_produced(root: Path) -> None:
    async def scenario() -> None:
        async def slow(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            out = web.StreamResponse()
            await out.prepare(request)
            await out.write(chunk(provider, {"content": "first"}))
            await provider.release.wait()  # the rest comes only after the first event has arrived
            await out.write(usage_chunk(provider) + b"data: [DONE]\n\n")
            return out

        async with setting(root, slow) as s:
            body = {"model": "teacher", "messages": USER, "stream": True}
            async with s.client.post(URL, json=body) as response:
                assert b"first" in await response.content.readuntil(b"\n\n")
                s.provider.release.set()
                assert b"[DONE]" in await response.read()

    run(scenario())


def test_trap_5_row_31_no_credential_of_the_agent_reaches_the_provider(root: Path) -> None:
    async def scenario() -> None:
        theirs = ["Authorization", "x-api-key", "api-key", "x-goog-api-key", "Cookie", "OpenAI-Organization", "X-Other"]
        async with setting(root) as s:
            status, _ = await s.ask(headers=dict.fromkeys(theirs, "agents-own-secret"))
            assert status == 200
            async with s.client.post(URL + "?key=agents-own-secret", json={"model": "teacher", "messages": USER}) as r:
                assert r.status == 200
            for request in s.provider.requests:
                assert "agents-own-secret" not in str(request.raw_headers) + request.raw_path
                assert {name.lower() for name in request.headers} == {
                    "host", "accept", "accept-encoding", "content-length", "content-type",
                }  # fmt: skip
                assert request.raw_path == "/v1/chat/completions"

    run(scenario())


def test_trap_5_the_real_key_goes_over_tls_to_the_plans_host_only(root: Path) -> None:
    async def scenario() -> None:
        server_tls, client_tls = certificate(root, "llm.example.com")
        tunnel = root / "doors" / "up-remote" / "up.sock"
        echoed = json.dumps({"error": f"bad key {KEY}"}).encode()
        async with llm_for(make_plan(), root, context=client_tls) as log:
            door = root / "doors" / "work" / "llm.sock"
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(door))) as client:
                ask = {"model": "remote", "messages": USER}
                async with (
                    provider_at(tunnel, tls=server_tls, model="gpt-x-2026-01-01") as provider,
                    client.post(URL, json=ask, headers={"Authorization": "Bearer placeholder"}) as response,
                ):
                    assert response.status == 200
                (seen,) = provider.requests
                assert seen.headers.getall("Authorization") == [f"Bearer {KEY}"]
                assert seen.headers["Host"] == "llm.example.com"
                tunnel.unlink(missing_ok=True)
                async with (
                    provider_at(tunnel, saying(401, echoed), tls=server_tls),
                    client.post(URL, json=ask) as response,
                ):
                    text = await response.text()
                    assert response.status == 401
                    assert "CSM-P025" in text
                    assert "[redacted]" in text
                    assert KEY not in text
                tunnel.unlink(missing_ok=True)
                wrong_tls, _ = certificate(root, "evil.example")
                async with provider_at(tunnel, tls=wrong_tls) as evil, client.post(URL, json=ask) as response:
                    assert response.status == 502
                assert evil.requests == []
        assert KEY not in str(log.lines)

    run(scenario())


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("POST", "http://evil.example/v1/chat/completions", "CSM-P020"),
        ("POST", "//evil.example/v1/chat/completions", "CSM-P020"),
        ("POST", "/v1//chat/completions", "CSM-P020"),
        ("POST", "/v1/../v1/chat/completions", "CSM-P020"),
        ("POST", "/v1/chat/completions/", "CSM-P020"),
        ("POST", "/v1/chat%2fcompletions", "CSM-P020"),
        ("POST", "/V1/chat/completions", "CSM-P020"),
        ("GET", "/v1/chat/completions", "CSM-P020"),
        ("POST", "/v1/files", "CSM-P020"),
        ("POST", "/v1/batches", "CSM-P020"),
        ("GET", "/v1/organization/admin_api_keys", "CSM-P020"),
        ("DELETE", "/v1/models/x", "CSM-P020"),
        ("OPTIONS", "*", "CSM-P020"),
        ("CONNECT", "evil.example:443", "CSM-P020"),
    ],
)
def test_rows_30_and_32_a_route_that_is_not_listed_is_denied_with_one_event(
    root: Path, method: str, target: str, code: str
) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            head = f"{method} {target} HTTP/1.1\r\nHost: door\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            answer = await converse(root / "doors" / "work" / "llm.sock", head.encode())
            error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            assert (answer[:12], error["code"]) == (b"HTTP/1.1 403", code)
            assert "POST /v1/chat/completions" in error["allowed"]
            assert s.log.denied == [code]
            assert s.provider.requests == []

    run(scenario())


def test_the_routes_that_agents_probe_are_answered_here(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            async with s.client.head("http://door/") as response:
                assert response.status == 200
            async with s.client.get("http://door/v1/models") as response:
                assert [m["id"] for m in (await response.json())["data"]] == ["remote", "teacher"]
            connector = aiohttp.UnixConnector(path=str(root / "doors" / "other" / "llm.sock"))
            async with aiohttp.ClientSession(connector=connector) as other:
                async with other.get("http://door/v1/models") as response:
                    assert (await response.json())["data"] == []
                async with other.post(URL, json={"model": "teacher", "messages": USER}) as response:
                    assert (await response.json())["error"]["code"] == "CSM-P022"
            assert s.log.denied == ["CSM-P022"]
            assert s.provider.requests == []

    run(scenario())


def test_row_37_a_large_body_is_refused_without_reading_on(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            door = root / "doors" / "work" / "llm.sock"
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: door\r\n"
            declared = await converse(door, head + b"Content-Length: 104857600\r\n\r\n")
            assert declared.startswith(b"HTTP/1.1 413 ")
            size = MAX_BODY + 1
            chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + b"a" * size
            assert (await converse(door, chunked)).startswith(b"HTTP/1.1 413 ")
            encoded = await converse(
                door, head + b"Content-Encoding: gzip\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            assert b"CSM-P021" in encoded
            assert b"CSM-P021" in await converse(door, head + b"X: " + b"a" * 20_000 + b"\r\n\r\n")
            assert b"CSM-P021" in await converse(door, b"\x16\x03\x01 nonsense\r\n\r\n")
            assert s.log.denied == ["CSM-P024", "CSM-P024", "CSM-P021", "CSM-P021", "CSM-P021"]
            assert (await s.ask())[0] == 200

    run(scenario())


def test_row_37_connections_over_the_limit_are_dropped_and_other_stages_served(root: Path) -> None:
    async def scenario() -> None:
        async with llm_for(make_plan(), root) as log:
            door = root / "doors" / "work" / "llm.sock"
            held = [await asyncio.open_unix_connection(door) for _ in range(MAX_CONNECTIONS)]
            assert await converse(door) == b""
            get = b"GET / HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
            assert (await converse(root / "doors" / "other" / "llm.sock", get)).startswith(b"HTTP/1.1 200")
            for _, writer in held:
                writer.close()
            assert log.denied == ["CSM-P011"]

    run(scenario())


@pytest.mark.parametrize("said", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\nX: "])
def test_row_37_a_connection_that_does_not_ask_in_time_is_closed(root: Path, said: bytes) -> None:
    async def scenario() -> None:
        async def never(request: web.BaseRequest) -> web.StreamResponse:
            raise AssertionError(request)

        server = LimitedServer(never, lambda refused: None, head_seconds=0.01)
        path = root / "slow.sock"
        listener = await asyncio.get_running_loop().create_unix_server(server, str(path))
        assert await converse(path, said) == b""
        listener.close()

    run(scenario())

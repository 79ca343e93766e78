"""Conversations through a stage's LLM door, over real sockets, with a provider at the end of the tunnel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from policies.plan import Budget, Plan
from policies.vocabulary import Component
from proxy.llm.door import MAX_BODY, MAX_CONNECTIONS, LimitedServer
from proxy.llm.ledger import Ledger
from proxy.llm.types import Amount
from tests.proxy.kit import KEY, PLENTY, REMOTE, TEACHER, Log, converse, limits, llm_for, make_plan, run
from tests.proxy.outside import certificate
from tests.proxy.provider import Provider, chunk, completion, polite, provider_at, saying, stalling, stream, usage_chunk

URL = "http://door/v1/chat/completions"
USER = [{"role": "user", "content": "hi"}]


class Setting:
    """A door, its event log, the provider behind it, and a client that speaks to the door."""

    def __init__(self, log: Log, provider: Provider, client: aiohttp.ClientSession, root: Path) -> None:
        self.log, self.provider, self.client, self.root = log, provider, client, root

    async def ask(self, headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, dict[str, Any]]:
        body = {"model": "teacher", "messages": USER, **fields}
        async with self.client.post(URL, json=body, headers=headers) as response:
            data = await response.read()
            return response.status, json.loads(data)

    async def events(self, **fields: Any) -> list[str]:
        """The data of a streamed answer's events."""
        body = {"model": "teacher", "messages": USER, "stream": True, **fields}
        async with self.client.post(URL, json=body) as response:
            assert response.status == 200
            text = (await response.read()).decode()
        return [event.removeprefix("data: ") for event in text.split("\n\n") if event]

    def spent(self, scope: str = "run") -> Amount:
        """What the ledger has, read as another process would."""
        ledger = Ledger(self.root / "state" / "ledger.db", "run-1")
        try:
            return ledger.spent(scope)
        finally:
            ledger.close()


@asynccontextmanager
async def setting(
    root: Path,
    answer: Callable[..., Awaitable[web.StreamResponse]] = polite,
    plan: Plan | None = None,
    **provider: Any,
) -> Any:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        log = await enter(llm_for(plan or make_plan(), root))
        behind = await enter(provider_at(root / "doors" / "up-teacher" / "up.sock", answer, **provider))
        connector = aiohttp.UnixConnector(path=str(root / "doors" / "work" / "llm.sock"), limit=200)
        client = await enter(aiohttp.ClientSession(connector=connector))
        yield Setting(log, behind, client, root)


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


def few(calls: int = PLENTY, tokens: int = PLENTY, usd_nanos: int = PLENTY) -> Budget:
    return Budget(calls=calls, tokens=tokens, usd_nanos=usd_nanos, wall_s=60)


@pytest.mark.parametrize("streamed", [False, True])
def test_row_33_fifty_at_once_against_a_ceiling_for_ten(root: Path, streamed: bool) -> None:
    async def scenario() -> None:
        async with setting(root, plan=make_plan(budget=few(calls=10))) as s:

            async def one() -> int:
                async with s.client.post(URL, json={"model": "teacher", "messages": USER, "stream": streamed}) as r:
                    await r.read()
                    return int(r.status)

            statuses = await asyncio.gather(*(one() for _ in range(50)))
            assert (statuses.count(200), statuses.count(403)) == (10, 40)
            assert len(s.provider.requests) == 10
            assert s.spent().calls == 10
            assert s.log.denied == ["CSM-P023"] * 40

    run(scenario())


@pytest.mark.parametrize(
    ("budget", "stage", "scope", "ceiling"),
    [
        (few(tokens=60), limits(), "run", "tokens"),
        (few(usd_nanos=500), limits(), "run", "usd_nanos"),
        (few(calls=0), limits(), "run", "calls"),
        (few(), limits(tokens=60), "stage/work", "tokens"),
        (few(), limits(usd_nanos=500), "stage/work", "usd_nanos"),
        (few(), limits(calls=0), "stage/work", "calls"),
    ],
)
def test_a_call_that_could_pass_a_ceiling_is_not_sent(
    root: Path, budget: Budget, stage: Any, scope: str, ceiling: str
) -> None:
    async def scenario() -> None:
        async with setting(root, plan=make_plan(budget=budget, stage_limits=stage)) as s:
            status, body = await s.ask()
            error = body["error"]
            assert (status, error["code"], error["scope"], error["ceiling"]) == (403, "CSM-P023", scope, ceiling)
            assert s.provider.requests == []
            assert s.spent() == Amount(calls=0, tokens=0, usd_nanos=0)

    run(scenario())


def test_trap_8_row_34_a_disconnect_ends_the_call_upstream_and_is_charged(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root, stalling) as s:
            body = {"model": "teacher", "messages": USER, "stream": True}
            response = await s.client.post(URL, json=body)
            await response.content.readuntil(b"words")
            response.close()
            await s.provider.hung_up.wait()  # the provider stops to produce
            while not s.log.named("llm.settled"):
                await asyncio.sleep(0)
            attrs = s.log.named("llm.settled")[0]["attrs"]
            assert attrs["gen_ai.usage.output_tokens"] == len("two words")
            assert attrs["gen_ai.usage.input_tokens"] > len(json.dumps(USER))
            assert s.spent().usd_nanos == attrs["casemate.cost.usd_nanos"] > 0
            assert s.log.denied == []

    run(scenario())


def test_trap_8_a_disconnect_before_the_answer_owes_the_reservation(root: Path) -> None:
    async def scenario() -> None:
        async def silent(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            provider.release.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with setting(root, silent) as s:
            asking = asyncio.create_task(s.ask())
            await s.provider.release.wait()
            asking.cancel()
            while not s.log.named("llm.settled"):
                await asyncio.sleep(0)
            reserved = s.log.named("llm.decided")[0]["attrs"]["casemate.reserved.tokens"]
            assert s.spent().tokens == reserved

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "status", "code", "tokens"),
    [
        (saying(500, b"<html>oops"), 500, "CSM-P025", "input"),
        (saying(429, b"{}", **{"Retry-After": "7"}), 429, "CSM-P025", "none"),
        (saying(302, b"", Location="http://evil.example/"), 502, "CSM-P025", "none"),
        (saying(200, b"<html>", **{"Content-Type": "text/html"}), 502, "CSM-P029", "all"),
        (saying(200, b"\x1f\x8b", **{"Content-Encoding": "gzip"}), 502, "CSM-P029", "all"),
        (saying(200, b'{"model": "other", "choices": [{}]}'), 502, "CSM-P026", "all"),
    ],
    ids=["500", "429", "redirect", "html", "gzip", "model"],
)
def test_a_provider_that_fails_is_told_in_the_one_shape(
    root: Path, answer: Any, status: int, code: str, tokens: str
) -> None:
    async def scenario() -> None:
        async with setting(root, answer) as s:
            async with s.client.post(URL, json={"model": "teacher", "messages": USER}) as response:
                error = json.loads(await response.read())["error"]
                assert (response.status, error["code"]) == (status, code)
                assert response.headers.get("Retry-After") == ("7" if status == 429 else None)
                assert "Location" not in response.headers
            reserved = s.log.lines[0]["attrs"]["casemate.reserved.tokens"]
            assert s.spent().tokens == {"none": 0, "input": reserved - 50, "all": reserved}[tokens]
            assert s.spent().calls == 1
            assert s.log.named("llm.settled")[0]["rule"] == code
            assert len(s.provider.requests) == 1  # nothing is retried here

    run(scenario())


def test_a_provider_that_is_not_there_costs_a_call_and_no_tokens(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            status, body = await s.ask(model="remote")  # nobody listens at that tunnel
            assert (status, body["error"]["code"]) == (502, "CSM-P025")
            assert s.spent() == Amount(calls=1, tokens=0, usd_nanos=0)

    run(scenario())


def outrunning(provider: Provider, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
    return stream(request, *[chunk(provider, {"content": "x"})] * 500, b"data: [DONE]\n\n")


def changing(provider: Provider, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
    other = chunk(provider, {"content": "secret"}, model="other-model")
    return stream(request, chunk(provider, {"content": "a"}), other, b"data: [DONE]\n\n")


def ending(provider: Provider, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
    return stream(request, chunk(provider, {"content": "a"}))


@pytest.mark.parametrize(
    ("answer", "code"), [(outrunning, "CSM-P027"), (changing, "CSM-P026"), (ending, "CSM-P029")], ids=["27", "26", "29"]
)
def test_a_stream_that_breaks_the_rules_is_cut_with_an_error(root: Path, answer: Any, code: str) -> None:
    async def scenario() -> None:
        async with setting(root, answer) as s:
            events = await s.events()
            assert json.loads(events[-1])["error"]["code"] == code
            assert len(events) <= 50 + 16 + 1
            assert "secret" not in str(events)
            settled = s.log.named("llm.settled")[0]
            assert (settled["rule"], settled["attrs"]["error.type"]) == (code, code)
            assert s.spent().tokens > 0

    run(scenario())


def test_a_stream_without_usage_is_charged_by_count(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root, usage=None) as s:
            assert (await s.events())[-1] == "[DONE]"
            attrs = s.log.named("llm.settled")[0]["attrs"]
            assert attrs["gen_ai.usage.output_tokens"] == 3
            assert s.spent().usd_nanos > 3 * 20

    run(scenario())


def test_row_35_a_ledger_that_fails_denies(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            ledger = Ledger(root / "state" / "ledger.db", "run-1")
            ledger._db.execute("DROP TABLE spent")  # the disk, not our code, loses the file's content
            ledger.close()
            status, body = await s.ask()
            assert (status, body["error"]["code"]) == (500, "CSM-P019")
            assert s.log.denied == ["CSM-P019"]
            assert s.provider.requests == []

    run(scenario())


def test_a_call_that_cannot_be_announced_is_not_sent(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root) as s:
            s.log.full = True
            status, body = await s.ask()
            assert (status, body["error"]["code"]) == (500, "CSM-P019")
            assert s.log.events.broken.is_set()
            assert s.provider.requests == []

    run(scenario())


def test_what_is_spent_stays_spent_when_the_process_starts_again(root: Path) -> None:
    async def scenario() -> None:
        plan = make_plan(budget=few(calls=2))
        for _ in range(2):
            (root / "doors" / "up-teacher" / "up.sock").unlink(missing_ok=True)
            async with setting(root, plan=plan) as s:
                assert (await s.ask())[0] == 200
        (root / "doors" / "up-teacher" / "up.sock").unlink(missing_ok=True)
        async with setting(root, plan=plan) as s:
            assert (await s.ask())[1]["error"]["code"] == "CSM-P023"

    run(scenario())


def test_a_plan_without_an_output_ceiling_is_refused(root: Path) -> None:
    async def scenario() -> None:
        plan = make_plan(models=(REMOTE, msgspec.structs.replace(TEACHER, max_output_tokens=0)))
        async with setting(root, plan=plan) as s:
            assert (await s.ask())[1]["error"]["code"] == "CSM-P028"

    run(scenario())


def test_events_name_their_actor() -> None:
    log = Log(Component.LLM)
    log.events("component.ready")  # type: ignore[arg-type]
    assert log.lines[0]["actor"] == "llm"

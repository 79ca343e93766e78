"""Anthropic Messages and OpenAI Responses through a stage's door, over real sockets, with a client that agents use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import msgspec
import openai
import pytest
from aiohttp import web

from policies.plan import Plan
from proxy.llm.types import Amount
from tests.proxy.kit import KEY, REMOTE, TEACHER, limits, llm_for, make_plan, run
from tests.proxy.llm_setting import URL, USER, setting
from tests.proxy.outside import certificate
from tests.proxy.provider import (
    Provider,
    answered,
    anthropic,
    event,
    message,
    message_events,
    provider_at,
    responding,
    response_events,
    saying,
    stream,
)

MESSAGES = "http://door/v1/messages"
RESPONSES = "http://door/v1/responses"
CLAUDE = msgspec.structs.replace(TEACHER, provider="anthropic")


def claude(**more: Any) -> Plan:
    return make_plan(models=(REMOTE, CLAUDE), **more)


def ask(url: str, **fields: Any) -> dict[str, Any]:
    said = {"input": "hi"} if url == RESPONSES else {"messages": USER, "max_tokens": 20}
    return {"model": "teacher", **said, **fields}


def door(root: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(root / "doors" / "work" / "llm.sock")))


def sdk(root: Path) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="placeholder", base_url="http://door/v1", http_client=door(root), max_retries=0)


def parsed(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("target", [MESSAGES, MESSAGES + "?beta=true"])
def test_a_message_is_passed_on_and_settled_with_its_cache_tokens(root: Path, target: str) -> None:
    async def scenario() -> None:
        async with setting(root, anthropic, claude()) as s, door(root) as client:
            response = await client.post(target, json=ask(MESSAGES), headers={"anthropic-beta": "a-2025-01-01,b"})
            assert (response.status_code, response.json()) == (200, message(s.provider))
            (seen,) = s.provider.requests
            assert seen.raw_path == target.removeprefix("http://door")
            assert (seen.headers["anthropic-version"], seen.headers["anthropic-beta"]) == (
                "2023-06-01", "a-2025-01-01,b",
            )  # fmt: skip
            assert s.provider.bodies == [{"model": "tiny-model", "messages": USER, "max_tokens": 20}]
            # 7 fresh, 4 written, 2 read; a quarter of the 4 on top
            assert s.spent() == Amount(calls=1, tokens=13 + 3, usd_nanos=14 * 10 + 3 * 20)

    run(scenario())


def test_a_streamed_message_is_passed_on_byte_for_byte_and_settled(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root, anthropic, claude()) as s, door(root) as client:
            response = await client.post(MESSAGES, json=ask(MESSAGES, stream=True))
            assert response.content == b"".join(message_events(s.provider))
            assert s.spent() == Amount(calls=1, tokens=13 + 3, usd_nanos=14 * 10 + 3 * 20)
            assert s.log.lines[-1]["attrs"]["gen_ai.response.model"] == "tiny-model"

    run(scenario())


def test_a_count_is_a_call_without_tokens(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root, anthropic, claude(stage_limits=limits(calls=1))) as s, door(root) as client:
            body = {"model": "teacher", "messages": USER, "system": "x"}
            response = await client.post(MESSAGES + "/count_tokens?beta=true", json=body)
            assert (response.status_code, response.json()) == (200, {"input_tokens": 12})
            assert s.provider.requests[0].raw_path == "/v1/messages/count_tokens?beta=true"
            assert s.spent() == Amount(calls=1, tokens=0, usd_nanos=0)
            assert s.log.lines[-1]["attrs"]["gen_ai.operation.name"] == "count_tokens"
            again = await client.post(MESSAGES + "/count_tokens", json=body)
            assert again.json()["error"]["code"] == "CSM-P023"

    run(scenario())


def test_the_openai_client_reads_a_response_whole_and_streamed(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root, responding) as s, sdk(root) as client:
            whole = await client.responses.create(model="teacher", input="hi", store=True)
            assert whole.output_text == "abc"
            assert s.provider.bodies[-1] == {
                "model": "tiny-model", "input": "hi", "max_output_tokens": 50, "store": False,
            }  # fmt: skip
            assert s.spent() == Amount(calls=1, tokens=10, usd_nanos=130)
            kinds, text = [], ""
            async for one in await client.responses.create(model="teacher", input="hi", stream=True):
                kinds.append(one.type)
                text += one.delta if one.type == "response.output_text.delta" else ""
            assert (kinds[0], kinds[-1], text) == ("response.created", "response.completed", "abc")
            assert s.spent() == Amount(calls=2, tokens=20, usd_nanos=260)

    run(scenario())


def test_the_openai_client_reads_a_refusal_and_a_cut_as_errors(root: Path) -> None:
    async def scenario() -> None:
        async def other(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            provider.model = "other-model"
            return await stream(request, *response_events(provider))

        async with setting(root, other), sdk(root) as client:
            with pytest.raises(openai.BadRequestError) as refused:
                await client.responses.create(model="teacher", input="hi", tools=[{"type": "web_search"}])
            assert refused.value.code == "CSM-P021"
            with pytest.raises(openai.APIError) as broken:
                [one async for one in await client.responses.create(model="teacher", input="hi", stream=True)]
            assert "CSM-P026" in str(broken.value.body)

    run(scenario())


def test_an_anthropic_client_finds_an_error_where_it_looks(root: Path) -> None:
    async def scenario() -> None:
        busy = saying(529, b'{"type":"error","error":{"type":"overloaded_error"}}')
        async with setting(root, busy, claude()), door(root) as client:
            refused = await client.post(MESSAGES, json=ask(MESSAGES, speed="fast"))
            body = refused.json()
            assert (refused.status_code, body["type"]) == (400, "error")
            error = body["error"]
            assert (error["type"], error["code"], error["denied"]) == ("invalid_request_error", "CSM-P021", "llm")
            assert "'speed'" in error["hint"]
            assert error["message"]
            failed = await client.post(MESSAGES, json=ask(MESSAGES))
            assert (failed.status_code, failed.json()["error"]["type"]) == (529, "overloaded_error")

    run(scenario())


@pytest.mark.parametrize(
    ("plan", "url", "allowed"),
    [
        (claude(), URL, ["POST /v1/messages", "POST /v1/messages/count_tokens"]),
        (claude(), RESPONSES, ["POST /v1/messages", "POST /v1/messages/count_tokens"]),
        (make_plan(), MESSAGES, ["POST /v1/chat/completions", "POST /v1/responses"]),
        (make_plan(), MESSAGES + "/count_tokens", ["POST /v1/chat/completions", "POST /v1/responses"]),
    ],
)
def test_a_model_is_asked_in_the_format_of_its_provider_only(
    root: Path, plan: Plan, url: str, allowed: Sequence[str]
) -> None:
    async def scenario() -> None:
        async with setting(root, anthropic, plan) as s, door(root) as client:
            response = await client.post(url, json=ask(url))
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["allowed"]) == (403, "CSM-P020", allowed)
            assert "its provider" in error["hint"]
            assert s.log.denied == ["CSM-P020"]
            assert s.provider.requests == []

    run(scenario())


def test_trap_5_anthropics_key_goes_over_tls_as_x_api_key_and_comes_back_redacted(root: Path) -> None:
    async def scenario() -> None:
        async def echoing(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            said = event("content_block_delta", index=0, delta={"type": "text_delta", "text": f"key {KEY}"})
            start, *_, stop = message_events(provider)
            return await stream(request, start, said, stop)

        server_tls, client_tls = certificate(root, "llm.example.com")
        plan = make_plan(models=(msgspec.structs.replace(REMOTE, provider="anthropic"), CLAUDE))
        tunnel = root / "doors" / "up-remote" / "up.sock"
        async with (
            llm_for(plan, root, context=client_tls) as log,
            provider_at(tunnel, echoing, tls=server_tls, model="gpt-x-20260101") as provider,
            door(root) as client,
        ):
            theirs = dict.fromkeys(("Authorization", "x-api-key", "Cookie", "X-Other"), "agents-own")
            response = await client.post(MESSAGES, json=ask(MESSAGES, model="remote", stream=True), headers=theirs)
            (seen,) = provider.requests
            assert seen.headers.getall("x-api-key") == [KEY]
            assert seen.headers["Host"] == "llm.example.com"
            assert "agents-own" not in str(seen.raw_headers)
            assert "Authorization" not in seen.headers
            assert "[redacted]" in response.text
            assert KEY not in response.text + str(log.lines)

    run(scenario())


def renamed(provider: Provider, url: str) -> list[bytes]:
    provider.model = "other-model"
    return message_events(provider) if url == MESSAGES else response_events(provider)


def outrunning(provider: Provider, url: str) -> list[bytes]:
    whole = message_events(provider) if url == MESSAGES else response_events(provider)
    delta = next(one for one in whole if b".delta" in one or b"_delta" in one)
    return [whole[0], *[delta] * 500, *whole[1:]]


def early(provider: Provider, url: str) -> list[bytes]:
    return (message_events(provider) if url == MESSAGES else response_events(provider))[:-1]


def failing(provider: Provider, url: str) -> list[bytes]:
    start = (message_events(provider) if url == MESSAGES else response_events(provider))[0]
    if url == MESSAGES:
        return [start, event("error", error={"type": "overloaded_error", "message": "Overloaded"})]
    response = {**answered(provider, "failed"), "error": {"code": "server_error", "message": "Overloaded"}}
    return [start, event("response.failed", response=response)]


@pytest.mark.parametrize("url", [MESSAGES, RESPONSES])
@pytest.mark.parametrize(
    ("script", "code"),
    [(renamed, "CSM-P026"), (outrunning, "CSM-P027"), (early, "CSM-P029"), (failing, "CSM-P025")],
    ids=["26", "27", "29", "25"],
)
def test_a_stream_that_breaks_the_rules_is_cut_with_an_error_event(
    root: Path, url: str, script: Any, code: str
) -> None:
    async def scenario() -> None:
        async def answer(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            return await stream(request, *script(provider, url))

        async with setting(root, answer, claude() if url == MESSAGES else None) as s, door(root) as client:
            response = await client.post(url, json=ask(url, stream=True))
            last = response.text.rstrip("\n").split("\n\n")[-1]
            assert last.startswith("event: error\n")
            (told,) = parsed(last)
            assert (told["type"], told["error"]["code"], told["error"]["verdict"]) == ("error", code, "deny")
            assert ("Overloaded" in told["error"]["hint"]) is (code == "CSM-P025")
            assert s.log.named("llm.settled")[0]["rule"] == code
            assert s.spent().tokens > 0

    run(scenario())


@pytest.mark.parametrize("url", [MESSAGES, RESPONSES])
def test_trap_8_row_34_a_disconnect_is_charged(root: Path, url: str) -> None:
    async def scenario() -> None:
        async def stalling(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            out = web.StreamResponse()
            await out.prepare(request)
            whole = message_events(provider) if url == MESSAGES else response_events(provider)
            await out.write(b"".join(whole[:-1]))
            await asyncio.Event().wait()
            raise AssertionError

        async with setting(root, stalling, claude() if url == MESSAGES else None) as s:
            response: aiohttp.ClientResponse = await s.client.post(url, json=ask(url, stream=True))
            await response.content.readuntil(b'"c"')
            response.close()
            while not s.log.named("llm.settled"):
                await asyncio.sleep(0)
            attrs = s.log.named("llm.settled")[0]["attrs"]
            # a model that answers Responses may have reasoned unseen: then the whole ceiling is owed
            assert attrs["gen_ai.usage.output_tokens"] == (3 if url == MESSAGES else 50)
            assert s.spent().usd_nanos == attrs["casemate.cost.usd_nanos"] > 0

    run(scenario())


@pytest.mark.parametrize("url", [MESSAGES, RESPONSES])
@pytest.mark.parametrize(
    ("said", "code"),
    [({"model": "other-model"}, "CSM-P026"), ({"model": "tiny-model"}, "CSM-P029"), ([], "CSM-P029")],
)
def test_a_whole_answer_that_cannot_be_judged_is_refused(root: Path, url: str, said: Any, code: str) -> None:
    async def scenario() -> None:
        answer = saying(200, json.dumps(said).encode())
        async with setting(root, answer, claude() if url == MESSAGES else None) as s, door(root) as client:
            response = await client.post(url, json=ask(url))
            assert (response.status_code, response.json()["error"]["code"]) == (502, code)
            assert s.spent().tokens == s.log.lines[0]["attrs"]["casemate.reserved.tokens"]

    run(scenario())

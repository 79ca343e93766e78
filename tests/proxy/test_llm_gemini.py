"""Gemini generateContent: what agents may ask and what is answered, by table and through a stage's door."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiohttp import web
from google import genai
from google.genai import errors, types
from hypothesis import given
from hypothesis import strategies as st

from policies.plan import Plan
from proxy.llm.formats import gemini as wire
from proxy.llm.formats.base import IMAGE_TOKENS, Format
from proxy.llm.formats.gemini import COUNT, GENERATE, STREAM
from proxy.llm.formats.table import Asked, find
from proxy.llm.request import read_request
from proxy.llm.stream import StreamJudge
from proxy.llm.types import Amount, LlmRequest, Refused, Usage
from tests.proxy.kit import KEY, REMOTE, TEACHER, llm_for, make_plan, run
from tests.proxy.llm_setting import USER, setting
from tests.proxy.outside import certificate
from tests.proxy.provider import (
    Provider,
    anthropic,
    gemini,
    generated,
    generated_events,
    polite,
    provider_at,
    responding,
    saying,
    stream,
)

PRO = msgspec.structs.replace(REMOTE, provider="gemini", model="gemini-x", base_path="/v1beta", max_output_tokens=4096)
FLASH = msgspec.structs.replace(TEACHER, provider="gemini", base_path="/v1beta")
CONTENTS = [{"role": "user", "parts": [{"text": "hi"}]}]
DOOR = "http://door/v1beta/models/teacher"


def flash(**more: Any) -> Plan:
    return make_plan(models=(REMOTE, FLASH), **more)


def read(form: Format = GENERATE, query: str = "alt=sse", **fields: Any) -> LlmRequest:
    body = json.dumps({"contents": CONTENTS, **fields}).encode()
    return read_request(body, {"pro": PRO}, form, {}, query, "pro")


def sent(**fields: Any) -> dict[str, Any]:
    return dict(json.loads(read(**fields).body))


def parts(*several: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": list(several)}]}


def config(**fields: Any) -> dict[str, Any]:
    return {"generationConfig": fields}


CLI = {  # what an agent program sends, and must reach the provider as it is
    "contents": [
        {"role": "user", "parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": "AA=="}}]},
        {"role": "model", "parts": [
            {"text": "hm", "thought": True},
            {"functionCall": {"name": "read", "args": {"z": 1, "a": {"y": 2}}}, "thoughtSignature": "eA=="}]},
        {"role": "user", "parts": [{"functionResponse": {"id": "1", "name": "read", "response": {"output": "ok"}}}]},
    ],
    "systemInstruction": {"role": "user", "parts": [{"text": "be"}]},
    "tools": [{"functionDeclarations": [{"name": "read", "description": "d", "parametersJsonSchema": {"type": "x"}}]}],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["read"]}},
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "generationConfig": {"temperature": 0, "topP": 1, "topK": 64, "seed": 1, "stopSequences": ["a"],
                         "responseMimeType": "application/json", "responseJsonSchema": {"type": "object"},
                         "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 1024}, "maxOutputTokens": 2000},
}  # fmt: skip


def test_what_agents_send_goes_on_in_the_same_words() -> None:
    assert sent(**CLI) == CLI
    assert (read(**CLI).path, read(**CLI).query) == ("/models/gemini-x:generateContent", "")
    assert read(STREAM, **CLI).path == "/models/gemini-x:streamGenerateContent"
    assert read(**CLI).input_tokens > IMAGE_TOKENS
    assert sent(store=False, serviceTier="standard", **config(candidateCount=1)) == {
        "contents": CONTENTS, "generationConfig": {"maxOutputTokens": 4096},
    }  # fmt: skip


FILE = {"fileData": {"fileUri": "https://e.example/x", "mimeType": "image/png"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"cachedContent": "cachedContents/x"}, {"labels": {}}, {"model": "models/other"}, {"n": 1}, {"key": "x"},
        {"store": True}, {"serviceTier": "priority"}, {"serviceTier": "flex"}, {"generation_config": {}},
        {"system_instruction": {}}, {"contents": []}, {"contents": None}, {"contents": "hi"}, {"contents": ["hi"]},
        {"contents": [{"role": "root", "parts": []}]}, {"contents": [{"role": "user"}]},
        {"contents": [{"role": "user", "parts": "x"}]}, {"contents": [{"parts": [], "x": 1}]},
        {"systemInstruction": "x"}, {"systemInstruction": {"parts": [FILE]}},
        parts(FILE), parts("x"), parts({"executableCode": {}}), parts({"codeExecutionResult": {}}),
        parts({"videoMetadata": {}}), parts({"text": "x", "file_data": {}}),
        parts({"inlineData": {"mimeType": "application/pdf", "data": "AA=="}}), parts({"inlineData": {}}),
        parts({"inlineData": {"mimeType": "audio/wav", "data": "AA=="}}), parts({"inlineData": "x"}),
        parts({"inlineData": {"mimeType": "image/png", "fileUri": "u"}}), parts({"functionCall": "x"}),
        parts({"functionResponse": {"name": "x", "response": {}, "parts": [FILE]}}),
        *({"tools": [{kind: {}}]} for kind in (
            "googleSearch", "googleSearchRetrieval", "codeExecution", "urlContext", "googleMaps", "fileSearch",
            "computerUse", "retrieval", "mcpServers", "enterpriseWebSearch", "google_search")),
        {"tools": [{"functionDeclarations": [], "googleSearch": {}}]}, {"tools": {}}, {"tools": ["x"]},
        {"tools": [{"functionDeclarations": {}}]}, {"tools": [{}]}, {"tools": [{"functionDeclarations": ["x"]}]},
        {"tools": [{"functionDeclarations": [{"name": "x", "url": "u"}]}]},
        {"toolConfig": {"retrievalConfig": {}}}, {"toolConfig": []},
        {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "x": 1}}},
        config(candidateCount=2), config(candidateCount=True), config(candidateCount=0), {"generationConfig": 1},
        config(responseModalities=["IMAGE"]), config(responseModalities=["TEXT", "AUDIO"]), config(speechConfig={}),
        config(imageConfig={}), config(maxOutputTokens=0), config(maxOutputTokens=1.5), config(maxOutputTokens=True),
        config(thinkingConfig=1), config(thinkingConfig={"x": 1}), config(thinkingConfig={"thinkingBudget": "1"}),
        config(thinkingConfig={"thinkingBudget": -2}), config(enableEnhancedCivicAnswers=True),
    ],
)  # fmt: skip
def test_row_30_gemini_refuses_what_is_not_known(fields: dict[str, Any]) -> None:
    for form in (GENERATE, STREAM):
        with pytest.raises(Refused) as refused:
            read(form, **fields)
        assert (refused.value.code, refused.value.status) == ("CSM-P021", 400)


@pytest.mark.parametrize("query", ["", "alt=json", "key=x", "alt=sse2", "xalt=sse"])
def test_a_stream_as_one_array_is_refused_with_a_hint(query: str) -> None:
    with pytest.raises(Refused) as refused:
        read(STREAM, query)
    assert "alt=sse" in refused.value.hint
    assert read(STREAM, "key=agents-own&alt=sse").query == "alt=sse"


def test_a_count_takes_contents_only_and_reserves_a_call() -> None:
    assert json.loads(read(COUNT).body) == {"contents": CONTENTS}
    assert read(COUNT).worst == Usage(input=0, output=0, complete=False)
    for field in ("generateContentRequest", "tools", "generationConfig"):
        with pytest.raises(Refused):
            read(COUNT, **{field: {}})


@pytest.mark.parametrize(
    ("thinking", "fitted", "hidden"),
    [
        (None, None, True),
        ({"thinkingBudget": 0}, {"thinkingBudget": 0}, False),
        ({"thinkingBudget": -1}, {"thinkingBudget": -1}, True),
        ({"thinkingBudget": 10**6}, {"thinkingBudget": 4096}, True),
        ({"thinkingLevel": "low"}, {"thinkingLevel": "low"}, True),
    ],
)
def test_the_output_ceiling_is_set_and_thinking_is_fitted_under_it(thinking: Any, fitted: Any, hidden: bool) -> None:
    asked = config(maxOutputTokens=10**6, **({"thinkingConfig": thinking} if thinking else {}))
    got = sent(**asked)["generationConfig"]
    assert (got["maxOutputTokens"], got.get("thinkingConfig")) == (4096, fitted)
    assert read(**asked).hidden is hidden


@pytest.mark.parametrize(
    ("pieces", "total"),
    [
        ([{"promptTokenCount": 7, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 12}], (7, 5)),
        ([{"promptTokenCount": 7, "totalTokenCount": 12}], (7, 5)),
        ([{"promptTokenCount": 7, "candidatesTokenCount": 3}], (7, 3)),
        ([{"promptTokenCount": 7, "toolUsePromptTokenCount": 4, "candidatesTokenCount": 3, "totalTokenCount": 14}],
         (11, 3)),
        ([{"promptTokenCount": 7, "cachedContentTokenCount": 6, "candidatesTokenCount": 3}], (7, 3)),
        ([{"promptTokenCount": 7, "candidatesTokenCount": 9}, {"promptTokenCount": 5, "candidatesTokenCount": 2}],
         (7, 9)),
        ([{"promptTokenCount": 7, "candidatesTokenCount": 9}, None, {}], (7, 9)),
        ([{"promptTokenCount": 7}], None), ([{"candidatesTokenCount": 7}], None), ([None], None),
        ([{"promptTokenCount": True, "candidatesTokenCount": 7}], None),
    ],
)  # fmt: skip
def test_usage_counts_thoughts_and_never_shrinks(pieces: list[Any], total: Any) -> None:
    so_far = None
    for piece in pieces:
        so_far = wire.usage(piece, so_far)
    assert (None if so_far is None else (so_far.input, so_far.output)) == total


def test_cached_tokens_are_inside_the_prompts_and_never_more() -> None:
    for cached, counted in ((6, 6), (9, 7), (-1, 0), ("6", 0), (None, 0)):
        piece = {"promptTokenCount": 7, "candidatesTokenCount": 3, "cachedContentTokenCount": cached}
        assert wire.usage(piece, None) == Usage(input=7, output=3, complete=True, cached=counted)


def line(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\r\n\r\n"


def said(text: str, **more: Any) -> list[dict[str, Any]]:
    return [{"content": {"role": "model", "parts": [{"text": text}]}, **more}]


FIRST = line(candidates=said("abc"), modelVersion="gemini-x", usageMetadata={"promptTokenCount": 5})
LAST = line(candidates=said("", finishReason="STOP"), modelVersion="gemini-x",
            usageMetadata={"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 4})  # fmt: skip


@given(st.lists(st.integers(min_value=1, max_value=60), min_size=1))
def test_a_stream_reads_the_same_however_it_is_cut(sizes: list[int]) -> None:
    whole, out, at = FIRST + LAST, b"", 0
    judged = StreamJudge(read(STREAM), STREAM, None)
    for size in sizes:
        out += judged.feed(whole[at : at + size])
        at += size
    assert out + judged.feed(whole[at:]) + judged.end() == whole.replace(b"\r\n", b"\n")
    assert judged.charge() == Usage(input=5, output=6, complete=True)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (line(candidates=said("x")), "CSM-P026"),
        (FIRST.replace(b"gemini-x", b"gemini-y"), "CSM-P026"),
        (FIRST.replace(b"gemini-x", b"gemini-x-lite"), "CSM-P026"),
        (FIRST + line(error={"code": 503, "message": "Overloaded"}), "CSM-P025"),
        (FIRST + line(candidates=said("x" * 128 * 4200)), "CSM-P027"),
        (b"[" + FIRST, "CSM-P029"),
    ],
    ids=["nameless", "model", "longer", "error", "outruns", "array"],
)
def test_a_stream_is_cut(data: bytes, code: str) -> None:
    judged = StreamJudge(read(STREAM), STREAM, None)
    with pytest.raises(Refused) as refused:
        judged.feed(data)
    assert refused.value.code == code


def test_thoughts_of_a_stream_that_broke_off_are_owed_unless_there_are_none() -> None:
    for thinking, output in (({}, 4096), ({"thinkingBudget": 0}, 3)):
        judged = StreamJudge(read(STREAM, **config(thinkingConfig=thinking)), STREAM, None)
        judged.feed(FIRST)
        with pytest.raises(Refused):
            judged.end()
        assert judged.charge().output == output


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1beta/models/a:generateContent", Asked(GENERATE, "a")),
        ("/v1/models/a-b_1:streamGenerateContent", Asked(STREAM, "a-b_1")),
        ("/v1beta/models/gemini-2.5-pro:countTokens", Asked(COUNT, "gemini-2.5-pro")),
        ("/v1beta/models/{alias}:generateContent", Asked(GENERATE, "{alias}")),
        *((path, None) for path in (
            "/v1beta/models/a", "/v1beta/models/a:predict", "/v1beta/models/a:batchGenerateContent",
            "/v1beta/models/a:embedContent", "/v1beta/models/a/b:generateContent", "/v1beta/models/:generateContent",
            "/v1beta/models/a%2f..:generateContent", "/v1beta/tunedModels/a:generateContent", "/v1beta/files",
            "/v1beta/cachedContents", "/v1alpha/models/a:generateContent", "//v1beta/models/a:generateContent",
            "/v1beta/models/a:generateContent/", "/upload/v1beta/files", "/v1beta/models/a:generatecontent",
            "/v1beta/models/a:streamGenerateContent:generateContent")),
    ],
)  # fmt: skip
def test_row_32_routes_are_an_allow_list(path: str, asked: Asked | None) -> None:
    assert find(path) == asked


def sdk(root: Path) -> genai.Client:
    transport = httpx.AsyncHTTPTransport(uds=str(root / "doors" / "work" / "llm.sock"))
    options = types.HttpOptions(base_url="http://door", httpx_async_client=httpx.AsyncClient(transport=transport))
    return genai.Client(api_key="placeholder", http_options=options)


def test_googles_client_reads_an_answer_whole_and_streamed_and_a_count(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root, gemini, flash()) as s:
            client = sdk(root).aio.models
            whole = await client.generate_content(model="teacher", contents="hi")
            assert whole.text == "abc"
            assert s.provider.requests[-1].raw_path == "/v1beta/models/tiny-model:generateContent"
            assert s.provider.bodies[-1] == {"contents": CONTENTS, "generationConfig": {"maxOutputTokens": 50}}
            assert s.spent() == Amount(calls=1, tokens=7 + 5, usd_nanos=7 * 10 + 5 * 20)
            text = ""
            async for one in await client.generate_content_stream(model="teacher", contents="hi"):
                text += one.text or ""
            assert text == "abc"
            assert s.provider.requests[-1].raw_path == "/v1beta/models/tiny-model:streamGenerateContent?alt=sse"
            assert s.spent() == Amount(calls=2, tokens=24, usd_nanos=340)
            assert (await client.count_tokens(model="teacher", contents="hi")).total_tokens == 12
            assert s.spent() == Amount(calls=3, tokens=24, usd_nanos=340)
            last = s.log.lines[-2]["attrs"] if s.log.lines[-1]["event"] != "llm.settled" else s.log.lines[-1]["attrs"]
            assert last["gen_ai.provider.name"] == "gemini"

    run(scenario())


def test_googles_client_reads_a_refusal_and_a_cut_as_errors(root: Path) -> None:
    async def scenario() -> None:
        async def other(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            first, *rest = generated_events(provider)
            return await stream(request, first, *(one.replace(b"tiny-model", b"other") for one in rest))

        async with setting(root, other, flash()):
            client = sdk(root).aio.models
            search = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
            with pytest.raises(errors.ClientError) as refused:
                await client.generate_content(model="teacher", contents="hi", config=search)
            assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")
            assert "CSM-P021" in str(refused.value.message)
            assert "googleSearch" in str(refused.value.message)
            with pytest.raises(errors.ClientError) as unknown:
                await client.generate_content(model="gemini-2.5-pro", contents="hi")
            assert (unknown.value.code, unknown.value.details["error"]["reason"]) == (403, "CSM-P022")
            assert unknown.value.details["error"]["allowed"] == ["remote", "teacher"]
            with pytest.raises(errors.APIError) as cut:
                [one async for one in await client.generate_content_stream(model="teacher", contents="hi")]
            assert "CSM-P026" in str(cut.value)

    run(scenario())


def test_trap_5_no_form_of_the_agents_key_goes_on_and_ours_goes_over_tls_only(root: Path) -> None:
    async def scenario() -> None:
        async def echoing(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            return web.json_response(generated(provider, f"key {KEY}"))

        server_tls, client_tls = certificate(root, "llm.example.com")
        plan = make_plan(models=(PRO, FLASH))
        theirs = dict.fromkeys(("Authorization", "x-goog-api-key", "x-goog-user-project", "Cookie"), "agents-own")
        transport = httpx.AsyncHTTPTransport(uds=str(root / "doors" / "work" / "llm.sock"))
        async with (
            llm_for(plan, root, context=client_tls) as log,
            provider_at(root / "doors/up-remote/up.sock", echoing, tls=server_tls, model="gemini-x") as provider,
            httpx.AsyncClient(transport=transport) as client,
        ):
            url = "http://door/v1/models/remote:generateContent?key=agents-own"
            response = await client.post(url, json={"contents": CONTENTS}, headers=theirs)
            assert response.status_code == 200
            (seen,) = provider.requests
            assert seen.headers.getall("x-goog-api-key") == [KEY]
            assert seen.raw_path == "/v1beta/models/gemini-x:generateContent"
            assert "agents-own" not in str(seen.raw_headers) + str(log.lines)
            assert "[redacted]" in response.text
            assert KEY not in response.text + str(log.lines)

    run(scenario())


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "tiny-model"}, 200, None),
        ({"candidates": [{}], "modelVersion": "other"}, 502, "CSM-P026"),
        ({"candidates": [{}]}, 502, "CSM-P026"),
        ({"modelVersion": "tiny-model"}, 502, "CSM-P029"),
        ([{"candidates": [{}], "modelVersion": "tiny-model"}], 502, "CSM-P029"),
    ],
)
def test_a_whole_answer_is_judged(root: Path, body: Any, status: int, code: str | None) -> None:
    async def scenario() -> None:
        async with setting(root, saying(200, json.dumps(body).encode()), flash()) as s:
            async with s.client.post(f"{DOOR}:generateContent", json={"contents": CONTENTS}) as response:
                told = json.loads(await response.read())
            assert (response.status, told.get("error", {}).get("reason")) == (status, code)
            assert s.spent().tokens == s.log.lines[0]["attrs"]["casemate.reserved.tokens"]  # it said nothing of usage

    run(scenario())


def test_trap_8_row_34_a_disconnect_owes_the_whole_ceiling(root: Path) -> None:
    async def scenario() -> None:
        async def stalling(provider: Provider, request: web.BaseRequest) -> web.StreamResponse:
            out = web.StreamResponse()
            await out.prepare(request)
            await out.write(generated_events(provider)[0])
            await asyncio.Event().wait()
            raise AssertionError

        async with setting(root, stalling, flash()) as s:
            response = await s.client.post(f"{DOOR}:streamGenerateContent?alt=sse", json={"contents": CONTENTS})
            await response.content.readuntil(b'"a"')
            response.close()
            while not s.log.named("llm.settled"):
                await asyncio.sleep(0)
            assert s.log.named("llm.settled")[0]["attrs"]["gen_ai.usage.output_tokens"] == 50

    run(scenario())


def test_the_list_of_models_is_told_as_each_client_reads_it(root: Path) -> None:
    async def scenario() -> None:
        async with setting(root, gemini, flash()) as s:
            assert [model.name async for model in await sdk(root).aio.models.list()] == [
                "models/remote", "models/teacher",
            ]  # fmt: skip
            async with s.client.get("http://door/v1/models", headers={"anthropic-version": "2023-06-01"}) as response:
                told = await response.json()
            assert [(one["type"], one["id"]) for one in told["data"]] == [("model", "remote"), ("model", "teacher")]
            assert (told["has_more"], told["first_id"], told["last_id"]) == (False, "remote", "teacher")
            assert s.log.lines == []
            assert s.provider.requests == []

    run(scenario())


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("provider", "path", "answer", "asks"),
    [
        ("local", "/v1/chat/completions", polite, {"model": "teacher", "messages": USER}),
        ("local", "/v1/responses", responding, {"model": "teacher", "input": "hi"}),
        ("anthropic", "/v1/messages", anthropic, {"model": "teacher", "messages": USER, "max_tokens": 9}),
        ("gemini", "/v1beta/models/teacher:{}enerateContent", gemini, {"contents": CONTENTS}),
    ],
    ids=["chat", "responses", "messages", "gemini"],
)
def test_another_model_is_denied_with_an_event_of_both_names(
    root: Path, provider: str, path: str, answer: Any, asks: dict[str, Any], streamed: bool
) -> None:
    async def scenario() -> None:
        plan = make_plan(models=(REMOTE, msgspec.structs.replace(FLASH, provider=provider, base_path="/v1")))
        url = "http://door" + path.format("streamG" if streamed else "g") + ("?alt=sse" if streamed else "")
        body = {**asks, "stream": True} if streamed and provider != "gemini" else asks
        for said, rule in (("other-model", "CSM-P026"), ("tiny-model-2026-01-01", None)):  # the second is the control
            async with setting(root, answer, plan, model=said) as s, s.client.post(url, json=body) as response:
                told = (await response.read()).decode()
                (one,) = s.log.named("llm.settled")
                assert one["rule"] == rule
                names = [one["attrs"].get(f"casemate.model.{who}") for who in ("planned", "answered")]
                assert names == (["tiny-model", said] if rule else [None, None])
                assert ("CSM-P026" in told) is bool(rule)
                assert (said in told) is not bool(rule)
            for file in (root / "doors/up-teacher").iterdir():
                file.unlink()
            for file in (root / "state").iterdir():
                file.unlink()

    run(scenario())

"""The whole way: an unmodified OpenAI client, the LLM process, the firewall process, a model's socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from policies.vocabulary import Component
from tests.proxy.kit import birth_of, limits, make_plan, rule, started
from tests.proxy.provider import Provider, provider_at

ASK = [{"role": "user", "content": "hi"}]


@contextmanager
def model(root: Path) -> Iterator[Provider]:
    """A model server in a thread of its own, at the socket of a local model."""
    ready, stop = threading.Event(), asyncio.Event()
    found: list[Provider] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with provider_at(root / "models" / "tiny" / "model.sock") as provider:
            found.append(provider)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(timeout=30)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)
        loop.close()


def client(root: Path) -> openai.OpenAI:
    """The client as an agent has it, but that a Unix socket stands for the door relay."""
    transport = httpx.HTTPTransport(uds=str(root / "doors" / "work" / "llm.sock"))
    http = httpx.Client(transport=transport)
    return openai.OpenAI(api_key="placeholder", base_url="http://127.0.0.1:4000/v1", http_client=http)  # type: ignore[arg-type]


def test_an_openai_client_talks_to_a_local_model_through_both_processes(root: Path) -> None:
    plan = make_plan(egress=[rule("a.example")], stage_limits=limits(calls=3))
    with (
        model(root) as provider,
        started("egress", root, birth_of(plan, Component.FIREWALL)) as wall,
        started("llm", root, birth_of(plan, Component.LLM)) as proxy,
        client(root) as agent,
    ):
        assert [m.id for m in agent.models.list()] == ["remote", "teacher"]
        whole = agent.chat.completions.create(model="teacher", messages=ASK)  # type: ignore[arg-type]
        assert whole.choices[0].message.content == "hello"
        for usage in (None, {"include_usage": True}):
            more = {"stream_options": usage} if usage else {}
            pieces = list(agent.chat.completions.create(model="teacher", messages=ASK, stream=True, **more))  # type: ignore[call-overload]
            assert "".join(p.choices[0].delta.content for p in pieces if p.choices) == "abc"
            assert any(p.usage for p in pieces) is (usage is not None)
        with pytest.raises(openai.PermissionDeniedError) as over:
            agent.chat.completions.create(model="teacher", messages=ASK)  # type: ignore[arg-type]
        assert over.value.code == "CSM-P023"
        with pytest.raises(openai.PermissionDeniedError) as other:
            agent.chat.completions.create(model="tiny-model", messages=ASK)  # type: ignore[arg-type]
        assert other.value.code == "CSM-P022"
        assert other.value.body["allowed"] == ["remote", "teacher"]  # type: ignore[index]
        assert all("authorization" not in {k.lower() for k in r.headers} for r in provider.requests)
        code, events, err = proxy.stop()
        assert (code, err) == (0, "")
        assert [e["event"] for e in events] == ["llm.decided", "llm.settled"] * 3 + ["llm.decided"] * 2
        assert [e["n"] for e in events] == list(range(1, 9))
        code, events, err = wall.stop()
        assert (code, err) == (0, "")
        assert {e["event"] for e in events} == {"egress.decided", "egress.closed"}
        assert {e["attrs"]["server.address"] for e in events} == {"tiny"}

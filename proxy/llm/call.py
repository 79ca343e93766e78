"""One call of a model, from reservation to settlement.

1. Read and check the request; it is written anew for the provider.
2. Reserve the worst case in every scope; refuse when a ceiling would be passed.
3. Write the event. What cannot be announced is not sent.
4. Ask the provider. Judge what comes, and pass it on.
5. Settle, whatever happened: with the provider's usage, or with what we counted. An open reservation stays spent.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

import aiohttp
from aiohttp import web

from policies.events import Attribute
from policies.vocabulary import EventName, Verdict
from proxy.llm.charges import charge
from proxy.llm.denials import cut
from proxy.llm.door import read_body
from proxy.llm.formats.base import Format
from proxy.llm.formats.table import Asked
from proxy.llm.ledger import Ledger
from proxy.llm.request import read_request
from proxy.llm.response import error_text, read_answer
from proxy.llm.stream import StreamJudge
from proxy.llm.types import Amount, LlmRequest, Refused, Usage
from proxy.llm.upstream import Upstream, read_bounded
from proxy.start import Events

_NOTHING = Usage(input=0, output=0, complete=False)


@dataclass(slots=True)
class Call:
    """What is known about a call so far; it is settled from this at any moment, a cancellation included."""

    request: LlmRequest
    form: Format
    usage: Usage
    began: float
    status: int | None = None
    model: str | None = None
    broken: Refused | None = None


class Calls:
    """Serves the calls of one stage, in every wire format. `scopes` are the budgets that it draws on."""

    def __init__(
        self,
        stage: str,
        upstreams: Mapping[str, Upstream],
        ledger: Ledger,
        scopes: Mapping[str, Amount],
        events: Events,
    ) -> None:
        self._stage, self._upstreams, self._ledger, self._scopes = stage, upstreams, ledger, scopes
        self._events = events
        self._models = {alias: upstream.model for alias, upstream in upstreams.items()}

    async def __call__(self, http: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        """Serve one request; raise `Refused` where nothing was sent to the agent yet."""
        form = asked.form
        data, (_, _, query) = await read_body(http), http.raw_path.partition("?")
        headers = {name: ",".join(http.headers.getall(name)) for name in form.headers if name in http.headers}
        request = read_request(data, self._models, form, headers, query, asked.alias)
        reserved = charge(request.worst, request.model.price)
        number = self._ledger.reserve(reserved, self._scopes)
        call = Call(request, form, _NOTHING, time.monotonic())
        try:
            self._announce(call, reserved)
            return await self._ask(http, call)
        except Refused as refused:
            call.broken = refused
            raise
        finally:
            self._settle(number, call)

    def _announce(self, call: Call, reserved: Amount) -> None:
        self._events(
            EventName.LLM_DECIDED,
            stage=self._stage,
            verdict=Verdict.ALLOW,
            rule=f"model/{call.request.alias}",
            attrs={
                **_labels(call),
                "casemate.reserved.tokens": reserved.tokens,
                "casemate.reserved.usd_nanos": reserved.usd_nanos,
            },
        )

    async def _ask(self, http: web.BaseRequest, call: Call) -> web.StreamResponse:
        request, upstream = call.request, self._upstreams[call.request.alias]
        # From here the provider may have begun: without its word, all that was reserved is owed.
        call.usage = request.worst
        try:
            async with upstream.ask(request) as response:
                call.status = response.status
                await _check_response(response, upstream.key, call)
                if request.stream:
                    return await _stream(http, response, upstream.key, call)
                return await _whole(response, upstream.key, call)
        except aiohttp.ClientConnectorError as error:
            call.usage = _NOTHING  # nothing was sent: no tokens, but the call counts
            raise _failed("no connection to the provider") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _failed(f"the provider broke off: {type(error).__name__}") from error

    def _settle(self, number: int, call: Call) -> None:
        """Charge the call. Nothing here awaits, so a cancelled call is settled like any other."""
        amount = charge(call.usage, call.request.model.price)
        self._ledger.settle(number, amount)
        attrs: dict[str, Attribute] = {
            **_labels(call),
            "gen_ai.response.model": call.model,
            "gen_ai.usage.input_tokens": call.usage.input,
            "gen_ai.usage.output_tokens": call.usage.output,
            "gen_ai.usage.cache_read.input_tokens": call.usage.cached,
            "gen_ai.usage.cache_creation.input_tokens": call.usage.written + call.usage.written_1h,
            "casemate.cost.usd_nanos": amount.usd_nanos,
            "http.response.status_code": call.status,
            "casemate.duration_ms": int((time.monotonic() - call.began) * 1000),
        }
        if call.broken is not None:
            attrs["error.type"] = call.broken.code
        self._events(
            EventName.LLM_SETTLED,
            stage=self._stage,
            rule=call.broken.code if call.broken else None,
            reason=call.broken.reason if call.broken else None if call.usage.complete else "usage counted here",
            attrs=attrs,
        )


async def _check_response(response: aiohttp.ClientResponse, key: str | None, call: Call) -> None:
    """Refuse an answer that is an error, a redirect, or encoded."""
    if response.status == 200:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused("CSM-P029", "the provider's answer is encoded", status=502)
        return
    # refused before any work was done, or failed at it: no output, and for the latter the input is owed
    call.usage = _NOTHING if response.status < 500 else replace(call.request.worst, output=0)
    text = error_text(await read_bounded(response), key)
    status = response.status if response.status >= 400 else 502  # a redirect is not followed, and not passed on
    raise Refused(
        "CSM-P025",
        f"status {response.status}",
        status=status,
        hint=f"the provider said: {text}",
        retry_after=_retry_after(response.headers.get("Retry-After")),
    )


def _retry_after(text: str | None) -> str | None:
    return text if text is not None and text.isascii() and text.isdigit() and len(text) <= 5 else None


async def _whole(response: aiohttp.ClientResponse, key: str | None, call: Call) -> web.Response:
    answer = read_answer(await read_bounded(response), call.request, call.form, key)
    call.model, call.usage = answer.model, answer.usage
    return web.Response(body=answer.body, content_type="application/json")


async def _stream(
    http: web.BaseRequest, response: aiohttp.ClientResponse, key: str | None, call: Call
) -> web.StreamResponse:
    judge = StreamJudge(call.request, call.form, key)
    out = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    try:
        await out.prepare(http)
        async for passed in _judged(response, judge, call):
            await _send(out, passed)
        if call.broken is not None:
            await _send(out, cut(call.broken, call.form))
        await out.write_eof()
    finally:
        call.model, call.usage = judge.model, judge.charge()
    return out


async def _judged(response: aiohttp.ClientResponse, judge: StreamJudge, call: Call) -> AsyncIterator[bytes]:
    """Yield what may go on, until the stream ends or must be cut; then `call.broken` says why."""
    try:
        async for data in response.content.iter_any():
            yield judge.feed(data)
        yield judge.end()
    except Refused as refused:
        call.broken = refused
    except (aiohttp.ClientError, TimeoutError) as error:
        call.broken = _failed(f"the provider broke off: {type(error).__name__}")


async def _send(out: web.StreamResponse, data: bytes) -> None:
    """Write to the agent; raise `ConnectionAbortedError` when it is gone, which is no failure of the provider's."""
    try:
        if data:
            await out.write(data)
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ConnectionAbortedError from error


def _failed(reason: str) -> Refused:
    return Refused("CSM-P025", reason, status=502, hint="the provider does not answer; try again later")


def _labels(call: Call) -> dict[str, Attribute]:
    return {
        "gen_ai.operation.name": call.form.operation,
        "gen_ai.provider.name": call.request.model.provider,
        "gen_ai.request.model": call.request.alias,
        "casemate.stream": call.request.stream,
    }

"""One attempt at one provider: ask, judge what comes, pass it on. What is known is written into the `Call` as it comes.

Nothing here decides whether there is another attempt; but whatever has reached the agent, or may have been produced for
it, is no `failure` that could be tried again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from typing import Literal

import aiohttp
from aiohttp import web

from proxy.llm.charges import charge
from proxy.llm.denials import cut
from proxy.llm.formats.base import Format
from proxy.llm.response import error_text, read_answer
from proxy.llm.retry import Failure, failure
from proxy.llm.stream import StreamJudge
from proxy.llm.taken import Taken, refusal_as, refusal_from, usage_as, usage_from
from proxy.llm.types import Amount, LlmRequest, Refused, Usage
from proxy.llm.upstream import Upstream, read_bounded

STREAMED = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
NOTHING = Usage(input=0, output=0, complete=False)


@dataclass(slots=True)
class Call:
    """What is known about a call so far; it is settled from this at any moment, a cancellation included.

    `request` is that of the present attempt, the `attempt`th, at the model that `asked` has come to. `failure` is set
    where another attempt may follow; `tokens` are those of the attempts before. Where it `keeps`, what was passed on is
    in `body` or `events`.
    """

    request: LlmRequest
    form: Format
    asked: str
    began: float
    attempt: int = 1
    tokens: int = 0
    origin: Literal["provider", "cache", "recording", "paid"] = "provider"
    keeps: bool = False
    sent: bool = False
    body: bytes | None = None
    events: list[bytes] | None = None
    usage: Usage = NOTHING
    status: int | None = None
    model: str | None = None
    broken: Refused | None = None
    failure: Failure | None = None

    @property
    def reserved(self) -> Amount:
        """What the attempt may cost; a call is counted once, with its first; what is kept costs nothing more."""
        if self.origin in ("cache", "paid"):
            return self.charge
        return self._amount(self.request.worst)

    @property
    def charge(self) -> Amount:
        """What the attempt has cost so far."""
        return self._amount(self.usage)

    def again(self, request: LlmRequest, began: float) -> None:
        """Begin the next attempt."""
        self.request, self.began, self.attempt = request, began, self.attempt + 1
        self.tokens += self.usage.input + self.usage.output
        self.usage, self.status, self.model, self.broken, self.failure = NOTHING, None, None, None, None

    def taken(self) -> Taken:
        """Return what came of it."""
        return Taken(
            alias=self.request.alias,
            model=self.model,
            usage=usage_as(self.usage),
            body=None if self.body is None else self.body.decode("utf-8", "replace"),
            events=None if self.events is None else [one.decode("utf-8", "replace") for one in self.events],
            refused=refusal_as(self.broken),
        )

    def _amount(self, usage: Usage) -> Amount:
        amount = charge(usage, self.request.model.price)
        return amount if self.attempt == 1 and self.origin != "paid" else replace(amount, calls=0)


async def ask(http: web.BaseRequest, upstream: Upstream, call: Call) -> web.StreamResponse:
    """Make one attempt; raise `Refused` where nothing was sent to the agent."""
    request = call.request
    # From here the provider may have begun: without its word, all that was reserved is owed.
    call.usage = request.worst
    try:
        async with upstream.ask(request) as response:
            call.status = response.status
            await _check_response(response, upstream.key, call)
            upstream.breaker.answered()
            if request.stream:
                return await _stream(http, response, upstream.key, call)
            return await _whole(response, upstream.key, call)
    except aiohttp.ClientConnectorError as error:
        call.usage, call.failure = NOTHING, Failure()  # nothing was sent: no tokens, but the call counts
        raise failed("no connection to the provider") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise failed(f"the provider broke off: {type(error).__name__}") from error


async def _check_response(response: aiohttp.ClientResponse, key: str | None, call: Call) -> None:
    """Refuse an answer that is an error, a redirect, or encoded."""
    if response.status == 200:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused("CSM-P029", "the provider's answer is encoded", status=502)
        return
    # refused before any work was done, or failed at it: no output, and for the latter the input is owed
    call.usage = NOTHING if response.status < 500 else replace(call.request.worst, output=0)
    text = error_text(await read_bounded(response), key)
    status = response.status if response.status >= 400 else 502  # a redirect is not followed, and not passed on
    retry_after = _retry_after(response.headers.get("Retry-After"))
    call.failure = failure(response.status, retry_after)
    raise Refused(
        "CSM-P025",
        f"status {response.status}",
        status=status,
        hint=f"the provider said: {text}",
        retry_after=retry_after,
    )


def _retry_after(text: str | None) -> str | None:
    return text if text is not None and text.isascii() and text.isdigit() and len(text) <= 5 else None


async def _whole(response: aiohttp.ClientResponse, key: str | None, call: Call) -> web.Response:
    answer = read_answer(await read_bounded(response), call.request, call.form, key)
    call.model, call.usage = answer.model, answer.usage
    call.body = answer.body if call.keeps else None
    return web.Response(body=answer.body, content_type="application/json")


async def _stream(
    http: web.BaseRequest, response: aiohttp.ClientResponse, key: str | None, call: Call
) -> web.StreamResponse:
    judge = StreamJudge(call.request, call.form, key)
    out = web.StreamResponse(headers=STREAMED)
    call.events = [] if call.keeps else None
    try:
        await _told(out.prepare(http))
        async for passed in _judged(response, judge, call):
            if not passed:
                continue
            if call.events is not None:
                call.events.append(passed)
            await _told(out.write(passed))
        if call.broken is not None:
            await _told(out.write(cut(call.broken, call.form)))
        await _told(out.write_eof())
    finally:
        call.model, call.usage = judge.model, judge.charge()
    return out


async def play(http: web.BaseRequest, call: Call, taken: Taken) -> web.StreamResponse:
    """Give an answer again; raise `Refused` where that is what came of the call."""
    call.model = taken.model
    if call.origin == "recording":
        call.usage = usage_from(taken.usage)
    refused = refusal_from(taken.refused) if taken.refused is not None else None
    if taken.events is None:
        if refused is not None or taken.body is None:
            raise refused or failed("the recorded agent did not wait for its answer")
        return web.Response(body=taken.body.encode(), content_type="application/json")
    out = web.StreamResponse(headers=STREAMED)
    await _told(out.prepare(http))
    for event in taken.events:
        await _told(out.write(event.encode()))
    if refused is not None:
        call.broken = refused
        await _told(out.write(cut(refused, call.form)))
    await _told(out.write_eof())
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
        call.broken = failed(f"the provider broke off: {type(error).__name__}")


async def _told(sending: Awaitable[object]) -> None:
    """Send to the agent; raise `ConnectionAbortedError` when it is gone, which is no failure of the provider's."""
    try:
        await sending
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ConnectionAbortedError from error


def failed(reason: str) -> Refused:
    """Return the refusal of a call whose provider did not do its part."""
    return Refused("CSM-P025", reason, status=502, hint="the provider does not answer; try again later")

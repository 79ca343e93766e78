"""An answer that was taken down as it was passed on, to be given again; and the key of what was asked. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec

from policies.canonical import digest_of, strict_loads
from policies.plan import Count, Frozen
from proxy.llm.types import LlmRequest, Refused, Usage


class TakenUsage(Frozen, frozen=True, kw_only=True):
    """`Usage`, as JSON."""

    input: Count
    output: Count
    complete: bool
    cached: Count
    written: Count
    written_1h: Count


class TakenRefusal(Frozen, frozen=True, kw_only=True):
    """What an agent was told in place of an answer, or where its stream was cut."""

    code: str
    reason: str
    hint: str
    status: Annotated[int, msgspec.Meta(ge=400, le=599)]
    retry_after: str | None


class Taken(Frozen, frozen=True, kw_only=True):
    """What came of a call: of the model `alias`, which answered as `model`, a whole `body`, or a stream's `events`."""

    alias: str
    model: str | None
    usage: TakenUsage
    body: str | None = None
    events: list[str] | None = None
    refused: TakenRefusal | None = None

    @property
    def complete(self) -> bool:
        """Whether it is an answer that was judged to its end, and whose provider said what it cost."""
        return self.refused is None and self.usage.complete and (self.body is not None or self.events is not None)

    @property
    def size(self) -> int:
        """Characters."""
        return len(self.body or "") + sum(map(len, self.events or ()))


def usage_as(usage: Usage) -> TakenUsage:
    """Return a usage as JSON."""
    return TakenUsage(
        input=usage.input,
        output=usage.output,
        complete=usage.complete,
        cached=usage.cached,
        written=usage.written,
        written_1h=usage.written_1h,
    )


def usage_from(usage: TakenUsage) -> Usage:
    """Return a usage from JSON."""
    return Usage(**msgspec.structs.asdict(usage))


def refusal_as(refused: Refused | None) -> TakenRefusal | None:
    """Return a refusal as JSON."""
    if refused is None:
        return None
    return TakenRefusal(
        code=refused.code,
        reason=refused.reason,
        hint=refused.hint,
        status=refused.status,
        retry_after=refused.retry_after,
    )


def refusal_from(refused: TakenRefusal) -> Refused:
    """Return a refusal from JSON."""
    return Refused(
        refused.code, refused.reason, hint=refused.hint, status=refused.status, retry_after=refused.retry_after
    )


def key_of(request: LlmRequest) -> str:
    """Return the digest of what a provider would be asked, whoever asks and in whatever order of its keys."""
    asked = {
        "provider": request.model.provider,
        "host": f"{request.model.host}:{request.model.port}{request.model.base_path}",
        "model": request.model.model,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "body": strict_loads(request.body),
        "wants_usage": request.wants_usage,  # what the agent gets of the same answer
    }
    return digest_of(asked)

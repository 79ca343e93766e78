"""What the LLM proxy talks about: a refusal, an amount, a request as the provider will see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from policies.plan import Model


class Refused(Exception):  # noqa: N818 - the word for it; a refusal is an answer, not a fault
    """The request is refused with `code`; `status` is what the agent's client sees."""

    def __init__(
        self,
        code: str,
        reason: str,
        *,
        hint: str = "",
        status: int = 403,
        allowed: list[str] | None = None,
        more: dict[str, str | int] | None = None,
        retry_after: str | None = None,
    ) -> None:
        self.code, self.reason, self.hint, self.status = code, reason, hint, status
        self.allowed, self.more, self.retry_after = allowed or [], more or {}, retry_after
        super().__init__(f"{code}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What was, or may be, spent. `usd_nanos`: nano-USD; `tokens`: input and output together."""

    calls: int
    tokens: int
    usd_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call. `complete` is false where we counted because the provider did not say."""

    input: int
    output: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A checked chat completion. `body` is what the provider gets; `input_tokens` is an upper bound."""

    alias: str
    model: Model
    body: bytes = field(repr=False)
    stream: bool
    wants_usage: bool
    input_tokens: int
    max_output: int


Dimension = Literal["calls", "tokens", "usd_nanos"]

"""What the LLM proxy talks about: a refusal, an amount, a request as the provider will see it."""

from __future__ import annotations

from collections.abc import Mapping
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
        names: tuple[str, str] | None = None,
    ) -> None:
        self.code, self.reason, self.hint, self.status = code, reason, hint, status
        self.names = names  # the planned model and the one that answered: for the event, not for the agent
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
    """Tokens of one call. `complete` is false where we counted because the provider did not say.

    Of the `input`, `cached` were read from the provider's cache, and `written` (or, to be kept for an hour,
    `written_1h`) were written to it: each has a rate of its own.
    """

    input: int
    output: int
    complete: bool
    cached: int = 0
    written: int = 0
    written_1h: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmRequest:
    """A checked request. `path`, `body`, `headers` and `query` are what the provider gets.

    `input_tokens` is an upper bound, all of which may be written to the provider's cache where `caches` says for how
    long; `hidden` says that output may be billed that is not shown.
    """

    alias: str
    model: Model
    path: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    query: str
    stream: bool
    wants_usage: bool
    input_tokens: int
    max_output: int
    caches: Literal["no", "brief", "hour"]
    hidden: bool

    @property
    def worst(self) -> Usage:
        """What is reserved, and what is owed when the provider has not said what it was."""
        return Usage(
            input=self.input_tokens,
            output=self.max_output,
            complete=False,
            written=self.input_tokens if self.caches == "brief" else 0,
            written_1h=self.input_tokens if self.caches == "hour" else 0,
        )


Dimension = Literal["calls", "tokens", "usd_nanos"]

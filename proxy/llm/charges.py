"""What a call may cost at most, what it did cost, and whether that fits under a ceiling. Pure, in whole numbers."""

from __future__ import annotations

from dataclasses import replace

from policies.plan import Budget, CallLimit, Limits, Price
from proxy.llm.types import Amount, Dimension, Refused, Usage

BYTES_A_TOKEN = 128
"""No vocabulary in use has a longer token, so output of n bytes has at least n / 128 tokens."""

SLACK_TOKENS = 16
"""Chunks of a stream that carry no token of the answer: the role, the finish reason."""


def cost(usage: Usage, price: Price) -> int:
    """Return nano-USD; what was read from a provider's cache or written to it is input at a rate of its own."""
    read = price.input if price.cache_read is None else price.cache_read
    fresh = usage.input - usage.cached - usage.written - usage.written_1h
    brief = -(-usage.written * price.input * 5 // 4) if price.cache_write is None else usage.written * price.cache_write
    long = usage.written_1h * (2 * price.input if price.cache_write_1h is None else price.cache_write_1h)
    return fresh * price.input + usage.cached * read + brief + long + usage.output * price.output


def charge(usage: Usage, price: Price) -> Amount:
    """Return what one call reserves, given its worst usage, or has cost, given the provider's.

    The second may pass the first: a provider's bill is a fact, not a request.
    """
    return Amount(calls=1, tokens=usage.input + usage.output, usd_nanos=cost(usage, price))


def counted(worst: Usage, output_bytes: int, *, hidden: bool = False) -> Usage:
    """Return the charge for a stream that ended without the provider's word: never zero, never too little.

    A token is at least one byte, so the bytes that were seen are an upper bound of the tokens that were seen. Where
    some may be hidden, the whole ceiling is owed.
    """
    return worst if hidden else replace(worst, output=min(output_bytes, worst.output))


def outruns(chunks: int, output_bytes: int, max_output: int) -> bool:
    """Whether a stream has certainly passed its output ceiling.

    Both counts are lower bounds of its tokens: a chunk with text carries at least one, and no token has over 128 bytes.
    """
    return max(chunks, output_bytes // BYTES_A_TOKEN) > max_output + SLACK_TOKENS


def ceiling(limit: Budget | Limits) -> Amount:
    """Return the ceilings of a scope."""
    return Amount(calls=limit.calls, tokens=limit.tokens, usd_nanos=limit.usd_nanos)


def exceeded(spent: Amount, more: Amount, most: Amount) -> Dimension | None:
    """Return the first dimension in which `spent` and `more` together pass `most`, or None."""
    if spent.calls + more.calls > most.calls:
        return "calls"
    if spent.tokens + more.tokens > most.tokens:
        return "tokens"
    if spent.usd_nanos + more.usd_nanos > most.usd_nanos:
        return "usd_nanos"
    return None


def too_dear(amount: Amount, limit: CallLimit | None) -> Refused | None:
    """Return the refusal (P023) of a call that might come to more than one call may, or None."""
    if limit is None:
        return None
    may = {"tokens": (amount.tokens, limit.tokens), "usd_nanos": (amount.usd_nanos, limit.usd_nanos)}
    for dimension, (worst, most) in may.items():
        if most is not None and worst > most:
            return Refused(
                "CSM-P023",
                f"call: {dimension} may come to {worst} of {most}",
                hint=f"the ceiling {dimension} of one call is {most}; ask for less output, or send less",
                more={"scope": "call", "ceiling": dimension, "limit": most},
            )
    return None


def replaced(spent: Amount, reserved: Amount, actual: Amount) -> Amount:
    """Return what a scope has spent once a reservation has become a charge."""
    return Amount(
        calls=spent.calls - reserved.calls + actual.calls,
        tokens=spent.tokens - reserved.tokens + actual.tokens,
        usd_nanos=spent.usd_nanos - reserved.usd_nanos + actual.usd_nanos,
    )


def added(spent: Amount, more: Amount) -> Amount:
    """Return the sum."""
    return replaced(spent, Amount(calls=0, tokens=0, usd_nanos=0), more)

"""Prices that a workflow does not state, from the `genai-prices` package, by provider and model id.

They are taken when a workflow is compiled, and pinned in the plan as whole numbers together with the package's version:
a run never looks a price up. What the package does not know, or prices otherwise than by the token, has no price here.
Where a rate depends on something that is not known beforehand (how long the context gets, the hour), the highest
counts: a reservation may be too large, never too small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
_INPUT = ("input_mtok", "input_image_mtok")
_OUTPUT = ("output_mtok", "output_reasoning_mtok")
_READ = ("cache_read_mtok", "cache_image_read_mtok")
_ACCOUNTED = frozenset({*_INPUT, *_OUTPUT, *_READ, "cache_write_mtok", "cache_write_1h_mtok"})
_REFUSED_ANYWAY = ("audio", "video", "search", "document", "citation", "output_image")
"""Parts of a price that nobody can come to owe: the llm proxy lets nobody ask for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Nano-USD a token, rounded up. A rate that is None is that of `input`, or the usual multiple of it."""

    input: int
    output: int
    cache_read: int | None
    cache_write: int | None
    cache_write_1h: int | None


def version() -> str:
    """Return what prices were taken from."""
    from importlib.metadata import version as version_of

    return f"genai-prices {version_of('genai-prices')}"


def listed(provider: str, model: str, base_url: str | None, today: date) -> Listed | None:
    """Return the price of a provider's model, or None when it is not known to be one price a token."""
    from genai_prices.data_snapshot import get_snapshot  # takes longer to load than a workflow to be checked

    try:
        if provider in _PROVIDERS:
            found = get_snapshot().find_provider_model(model, None, _PROVIDERS[provider], None)
        elif base_url is not None:
            found = get_snapshot().find_provider_model(model, None, None, base_url)
        else:
            return None
    except LookupError:
        return None
    return of_model(*found, today)


def of_model(provider: Provider, model: ModelInfo, today: date) -> Listed | None:
    """Return the highest price that may hold from `today` on; None where a part of it is not by the token."""
    prices = list(_holding(model, today))
    if not prices or any(_strange(price) for price in prices):
        return None
    input_, output, read = _highest(prices, *_INPUT), _highest(prices, *_OUTPUT), _highest(prices, *_READ)
    if input_ is None or output is None:
        return None
    write, long = _highest(prices, "cache_write_mtok"), _highest(prices, "cache_write_1h_mtok")
    if provider.id != "anthropic":
        # elsewhere no count says which tokens were written to a cache: every one may have been
        input_, write, long = max(filter(None, (input_, write, long)), default=0), None, None
    write = None if write is None else max(write, input_)
    long = None if write is None else max(long or 2 * input_, write)
    return Listed(
        input=input_,
        output=output,
        cache_read=None if read is None else min(read, input_),
        cache_write=write,
        cache_write_1h=long,
    )


def _holding(model: ModelInfo, today: date) -> Iterable[ModelPrice]:
    """Return what holds from today on: the latest that has begun, what comes after, and whatever goes by the hour."""
    from genai_prices.types import StartDateConstraint

    if not isinstance(model.prices, list):
        return [model.prices]
    holding: list[ModelPrice] = []
    for conditional in model.prices:
        begun = isinstance(conditional.constraint, StartDateConstraint) and conditional.constraint.start_date <= today
        holding = [conditional.prices] if begun else [*holding, conditional.prices]
    return holding


def _strange(price: ModelPrice) -> bool:
    """Whether a price has a part that nobody here would account for."""
    parts = [key for key, value in vars(price).items() if value is not None and not key.startswith("_")]
    return any(key not in _ACCOUNTED and not any(kind in key for kind in _REFUSED_ANYWAY) for key in parts)


def _highest(prices: Iterable[ModelPrice], *keys: str) -> int | None:
    rates = [rate for price in prices for key in keys for rate in _rates(getattr(price, key, None))]
    # USD per million tokens to nano-USD a token
    return ceil(max(rates) * 1000) if rates else None


def _rates(value: object) -> Iterator[Decimal]:
    """Yield a rate, or those of every tier."""
    from genai_prices.types import TieredPrices

    if isinstance(value, TieredPrices):
        yield value.base
        yield from (tier.price for tier in value.tiers)
    elif isinstance(value, Decimal | int):
        yield Decimal(value)

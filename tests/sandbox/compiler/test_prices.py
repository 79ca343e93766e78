"""Prices that a workflow does not state: taken from a package, rounded up, pinned in the plan, never too small."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from policies.slices import seal
from sandbox.compiler.prices import Listed, listed, of_model, version
from sandbox.project import open_project
from tests.sandbox.compiler.test_compiler import ROOT, compiled
from tests.sandbox.conftest import WORKFLOW

TODAY = date(2026, 11, 21)
PRICED = WORKFLOW.replace("    price: {input: 0.15, output: 0.6}\n", "")
OPENAI = PRICED.replace("provider: openai-compatible", "provider: openai").replace(
    "    base_url: https://api.example.com/v1\n", ""
)


def per_million(**rates: Any) -> ModelPrice:
    return ModelPrice(**{f"{key}_mtok": Decimal(str(rate)) for key, rate in rates.items()})


def price(*prices: Any, provider: str = "anthropic", today: date = TODAY) -> Listed | None:
    given = list(prices) if len(prices) > 1 or isinstance(prices[0], ConditionalPrice) else prices[0]
    model = ModelInfo(id="m", match=None, prices=given)  # type: ignore[arg-type]
    return of_model(Provider(id=provider, name=provider, api_pattern="x"), model, today)


def since(day: int, **rates: Any) -> ConditionalPrice:
    return ConditionalPrice(constraint=StartDateConstraint(start_date=date(2026, 11, day)), prices=per_million(**rates))


def flat(rate: int) -> Listed:
    return Listed(input=rate, output=rate, cache_read=None, cache_write=None, cache_write_1h=None)


def test_rates_are_rounded_up_to_whole_nano_usd() -> None:
    found = price(per_million(input="0.0375", output="0.00001", cache_read="0.0001"))
    assert found == Listed(input=38, output=1, cache_read=1, cache_write=None, cache_write_1h=None)


def test_of_tiers_the_highest_counts() -> None:
    tiered = TieredPrices(base=Decimal("1.25"), tiers=[Tier(200_000, Decimal("2.5")), Tier(10**6, Decimal(2))])
    found = price(ModelPrice(input_mtok=tiered, output_mtok=Decimal(10)))
    assert found is not None
    assert (found.input, found.output) == (2500, 10_000)


def test_a_reasoning_rate_above_the_output_rate_counts() -> None:
    found = price(per_million(input=1, output=2, output_reasoning=3))
    assert found is not None
    assert found.output == 3000


@pytest.mark.parametrize(
    ("prices", "rate"),
    [
        ([since(1, input=9, output=9), since(10, input=2, output=2)], 2000),
        ([since(1, input=2, output=2), since(21, input=3, output=3)], 3000),
        ([since(1, input=3, output=3), since(30, input=2, output=2)], 3000),
        ([since(1, input=2, output=2), since(30, input=4, output=4)], 4000),
        ([ConditionalPrice(constraint=None, prices=per_million(input=9, output=9)), since(9, input=2, output=2)], 2000),
        ([since(1, input=2, output=2), ConditionalPrice(
            constraint=TimeOfDateConstraint(start_time=time(0), end_time=time(8)),
            prices=per_million(input=5, output=5))], 5000),
    ],
    ids=["before", "since today", "falls later", "rises later", "fell", "by the hour"],
)  # fmt: skip
def test_the_highest_that_may_hold_from_today_on_counts(prices: list[ConditionalPrice], rate: int) -> None:
    assert price(*prices) == flat(rate)


def test_a_price_that_is_not_by_the_token_is_none() -> None:
    strange = per_million(input=1, output=1)
    strange.requests_kcount = Decimal(5)  # type: ignore[attr-defined]
    assert price(strange) is None
    assert price(per_million(input=1)) is None
    assert price(per_million(input=1, output=1, input_audio=9, output_image=9)) == flat(1000)
    assert price(per_million(input=1, output=2, input_image=2)) == flat(2000)


def test_where_nobody_counts_what_was_written_to_a_cache_all_input_may_have_been() -> None:
    rates = per_million(input=4, output=1, cache_read=1, cache_write=5, cache_write_1h=8)
    assert price(rates) == Listed(input=4000, output=1000, cache_read=1000, cache_write=5000, cache_write_1h=8000)
    assert price(rates, provider="openai") == Listed(
        input=8000, output=1000, cache_read=1000, cache_write=None, cache_write_1h=None
    )


@pytest.mark.parametrize(
    ("provider", "model", "base_url"),
    [
        ("openai", "gpt-4o-mini", None), ("anthropic", "claude-sonnet-4-5", None), ("gemini", "gemini-2.5-pro", None),
        ("openai", "gpt-4o-mini", "https://gateway.example.com/v1"),
        ("openai-compatible", "deepseek-chat", "https://api.deepseek.com/v1"),
    ],
)  # fmt: skip
def test_models_in_use_have_a_price(provider: str, model: str, base_url: str | None) -> None:
    found = listed(provider, model, base_url, TODAY)
    assert found is not None
    assert 0 < found.input <= found.output


def test_what_is_not_known_has_none() -> None:
    assert listed("openai", "gpt-nonsense", None, TODAY) is None
    assert listed("openai-compatible", "gpt-4o-mini", "https://api.example.com/v1", TODAY) is None
    assert listed("openai-compatible", "gpt-4o-mini", None, TODAY) is None


def test_a_plan_pins_the_numbers_and_where_they_are_from(project: Path) -> None:
    project.write_text(OPENAI)
    plan = compiled(project)
    judge = next(model for model in plan.models if model.alias == "judge")
    assert (judge.price.input, judge.price.output) == (150, 600)
    assert judge.price.cache_read == 75
    assert plan.source.prices == version()
    assert version().startswith("genai-prices ")
    project.write_text(
        OPENAI.replace("secret: openai_key", "secret: openai_key\n    price: {input: 0.15, output: 0.6}")
    )
    stated = compiled(project)
    assert stated.source.prices is None
    assert seal(stated).plan != seal(plan).plan


def test_a_model_that_is_unknown_there_stays_a_finding(project: Path) -> None:
    project.write_text(PRICED)  # a host that nobody lists
    assert [finding.code for finding in open_project(project).findings] == ["CSM-C026"]


def test_a_workflow_that_states_its_prices_does_not_load_the_list(project: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sandbox.project import open_project; "
        "found = open_project(Path(sys.argv[1])).findings; print(len(found), 'genai_prices' in sys.modules)"
    )
    said = []
    for text in (WORKFLOW, OPENAI):  # the second is the control: it needs the list, and loads it
        project.write_text(text)
        done = subprocess.run([sys.executable, "-c", code, str(project)], capture_output=True, check=True, cwd=ROOT)
        said.append(done.stdout.decode().strip())
    assert said == ["0 False", "0 True"]

"""What a wire format is, and the checks that all formats share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from policies.canonical import Json
from policies.events import clean
from policies.plan import Model
from proxy.llm.types import Refused, Usage

Object = dict[str, Json]

IMAGE_TOKENS = 50_000
"""An upper bound for one image at the highest detail that providers document; its bytes say nothing about it."""

MAX_COUNT = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a format has made of an agent's body.

    `sent` is what the provider gets, but for the model. `extra_tokens` are tokens of input that the body's bytes do not
    bound. `hidden` says that the provider may bill output that it does not show, reasoning above all.
    """

    sent: Object = field(repr=False)
    stream: bool
    max_output: int
    wants_usage: bool = True
    extra_tokens: int = 0
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a provider has said, in a whole answer or in one event of a stream.

    `model` counts where `names`; `failed` is the provider's error; `passes` is false for what nobody asked for.
    `ended`: nothing may follow; `may_end`: nothing has to.
    """

    names: bool = False
    model: Json = None
    usage: Usage | None = None
    output_bytes: int = 0
    ended: bool = False
    may_end: bool = False
    passes: bool = True
    failed: Json = None


def no_query(query: str) -> str:
    """Nothing of the agent's query goes on."""
    del query
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One wire format as functions.

    `path` is the provider's, under its base path, with `{model}` where the model stands in it; `headers` (with their
    defaults) are those of the agent that go on, and `query` makes the provider's query from the agent's. `read` judges
    a request, `answer` a whole answer, `event` one event of a stream, given the usage so far. `error` puts our fields
    where the format's clients look for them; with `named`, events have names.
    """

    name: str
    operation: str
    path: str
    read: Callable[[Object, Model], Draft]
    answer: Callable[[Object], Said | None]
    event: Callable[[Object, Usage | None], Said]
    error: Callable[[dict[str, object], int], dict[str, object]]
    headers: Mapping[str, str | None] = field(default_factory=dict)
    query: Callable[[str], str] = no_query
    named: bool = True
    free: bool = False


def malformed(reason: str) -> NoReturn:
    """Refuse a request (P021)."""
    raise Refused(
        "CSM-P021", reason, status=400, hint=f"{reason}; this door allows what has a known cost and no egress"
    )


def known(fields: Object, allowed: frozenset[str], what: str) -> None:
    """Refuse the first field that is not in the allow list."""
    for key in sorted(fields.keys() - allowed):
        malformed(f"{what} {clean(key, 60)!r} is not allowed")


def word(value: Json, words: Collection[str]) -> bool:
    """Whether a value is one of some words; what is no text is none, whatever it is."""
    return isinstance(value, str) and value in words


def flag(body: Object, key: str) -> bool:
    """Return a boolean that may be absent."""
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        malformed(f"{key} is neither true nor false")
    return value is True


def only(body: Object, key: str, *allowed: Json) -> None:
    """Refuse a field unless it is absent, null, or one of `allowed`, type and all."""
    value = body.get(key)
    if value is not None and not any(value == one and type(value) is type(one) for one in allowed):
        malformed(f"{key} is not allowed with this value")


def max_output(body: Object, model: Model, *keys: str) -> int:
    """Return the smallest ceiling that anybody named: the plan, or the agent in one of `keys`."""
    free = model.local is not None
    if model.max_output_tokens == 0 or (not free and model.price.input == 0 and model.price.output == 0):
        raise Refused("CSM-P028", "the plan has no output ceiling or no price", hint="give the model both")
    asked = [body[key] for key in keys if body.get(key) is not None]
    numbers = [number for number in asked if isinstance(number, int) and not isinstance(number, bool) and number > 0]
    if len(numbers) != len(asked):
        malformed(f"{keys[0]} is not a positive integer")
    return min([*numbers, model.max_output_tokens])


def inline_image(url: Json) -> int:
    """Return the tokens of an inline image; any other address is one that the provider would fetch for the agent."""
    if not isinstance(url, str) or not url.startswith("data:image/"):
        malformed("images must be data: URLs")
    return IMAGE_TOKENS


def text_bytes(value: Json, without: frozenset[str] = frozenset({"role", "id", "type"})) -> int:
    """Return how many bytes a model wrote, in whatever field: text, refusal, reasoning, tool calls."""
    total, stack = 0, [value]
    while stack:
        match stack.pop():
            case str() as text:
                total += len(text.encode("utf-8", "replace"))
            case dict() as fields:
                stack.extend(item for name, item in fields.items() if name not in without)
            case list() as items:
                stack.extend(items)
            case _:
                pass
    return total


def count(value: Json) -> int | None:
    """Return a count of tokens, if it can be believed to be one."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return min(value, MAX_COUNT)


def usage_of(usage: Json, given: str, made: str) -> Usage | None:
    """Return the provider's count of tokens from two fields, if it gave both; cached tokens are inside the input."""
    fields = usage if isinstance(usage, dict) else {}
    tokens_in, tokens_out = count(fields.get(given)), count(fields.get(made))
    if tokens_in is None or tokens_out is None:
        return None
    details = fields.get(f"{given}_details")
    cached = count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return Usage(input=tokens_in, output=tokens_out, complete=True, cached=min(cached or 0, tokens_in))


def openai_error(body: dict[str, object], status: int) -> dict[str, object]:
    """Our shape is one that OpenAI clients read as an error."""
    del status
    return body

"""From what an agent asks to what a provider is asked: parsed, checked against an allow list, written anew. Pure.

Threats: a field that spends more than was reserved (`n`, hosted tools, `service_tier`), that keeps data at the provider
(`store`), that makes the provider fetch a URL for the agent (an egress of its own), or that two parsers read in two
ways. So there is no field here that is not known, and nothing of the agent's bytes is forwarded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote

from policies.canonical import Json, StrictJsonError, strict_loads
from policies.events import clean
from policies.plan import Model
from proxy.llm.formats.base import Format, malformed
from proxy.llm.formats.table import routes, speaks
from proxy.llm.types import LlmRequest, Refused

OVERHEAD_TOKENS = 64
_HEADER = re.compile(r"[A-Za-z0-9._,/ -]{1,2000}")


def read_request(
    data: bytes,
    models: Mapping[str, Model],
    form: Format,
    headers: Mapping[str, str] | None = None,
    query: str = "",
    alias: str | None = None,
) -> LlmRequest:
    """Return the checked request; raise `Refused` (P020, P021, P022, P028).

    `models` are those of the stage, by alias; `headers` and `query` are the agent's, and `alias` is the one in its path
    where the format has it there.
    """
    try:
        body = strict_loads(data)
    except StrictJsonError as error:
        raise Refused("CSM-P021", f"not JSON: {clean(str(error), 120)}", status=400, hint="send strict JSON") from error
    if not isinstance(body, dict):
        malformed("the body is not an object")
    alias, model = _model(body.get("model") if alias is None else alias, models, form)
    draft = form.read(body, model)
    path = form.path.replace("{model}", quote(model.model, safe=""))
    named: dict[str, Json] = {"model": model.model} if path == form.path else {}
    encoded = json.dumps({**draft.sent, **named}, ensure_ascii=False, separators=(",", ":")).encode()
    bound = 0 if form.free else input_bound(encoded, draft.extra_tokens)
    return LlmRequest(
        alias=alias,
        model=model,
        path=path,
        body=encoded,
        headers=_passed_headers(form, headers or {}),
        query=form.query(query),
        stream=draft.stream,
        wants_usage=draft.wants_usage,
        input_tokens=bound,
        max_output=draft.max_output,
        caches=caches(encoded),
        hidden=draft.hidden,
    )


def input_bound(body: bytes, extra_tokens: int) -> int:
    """Return an upper bound of a request's input tokens.

    Tokenizers in use work on bytes or fall back to them, so a token stands for at least one byte of text, and the
    JSON around each message is longer than the template tokens that a model puts around it.
    """
    return len(body) + OVERHEAD_TOKENS + extra_tokens


def caches(body: bytes) -> Literal["no", "brief", "hour"]:
    """Say whether a request may write its input to a provider's cache, and whether that is to be kept for an hour.

    Inside a text, quotes are escaped, so what is found here is a key of the request, and not the agent's words.
    """
    if b'"cache_control":{' not in body:
        return "no"
    return "hour" if b'"ttl":"1h"' in body else "brief"


def _model(alias: Json, models: Mapping[str, Model], form: Format) -> tuple[str, Model]:
    model = models.get(alias) if isinstance(alias, str) else None
    if model is None or not isinstance(alias, str):
        name = clean(alias, 80) if isinstance(alias, str) else ""
        raise Refused(
            "CSM-P022", f"model {name!r} is not this stage's", allowed=sorted(models), hint="use an allowed alias"
        )
    if not speaks(model.provider, form):
        raise Refused(
            "CSM-P020",
            f"model {alias!r} of provider {model.provider} was asked over {form.name}",
            allowed=routes(model.provider),
            hint=f"nothing is translated: ask {alias!r} in the wire format of its provider, {model.provider}",
        )
    return alias, model


UNPRICED = ("context-1m", "fast-mode")
"""Betas under which a token costs more than the plan says, so that a ceiling in USD would not hold."""


def _passed_headers(form: Format, headers: Mapping[str, str]) -> dict[str, str]:
    passed = {}
    for name, default in form.headers.items():
        value = headers.get(name, default)
        if value is None:
            continue
        if not _HEADER.fullmatch(value):
            malformed(f"header {name} is malformed")
        if any(part.strip().startswith(UNPRICED) for part in value.split(",")):
            malformed(f"header {name} asks for what the provider bills at another rate than the plan's")
        passed[name] = value
    return passed

"""Which provider speaks which wire format, and at which route of the door. Nothing is translated between formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.llm.formats.base import Format
from proxy.llm.formats.chat import CHAT
from proxy.llm.formats.gemini import COUNT, GENERATE, STREAM
from proxy.llm.formats.messages import COUNT_TOKENS, MESSAGES
from proxy.llm.formats.responses import RESPONSES

SPOKEN: Final[Mapping[str, tuple[Format, ...]]] = {
    "anthropic": (MESSAGES, COUNT_TOKENS),
    "gemini": (GENERATE, STREAM, COUNT),
    "openai": (CHAT, RESPONSES),
    "openai-compatible": (CHAT, RESPONSES),
    "local": (CHAT, RESPONSES),
}
"""The formats of each provider. A provider that is not here is not asked anything."""

_IN_PATH: Final = re.compile(r"/v1(?:beta)?(/models/)([^/:%?#]{1,100})(:[A-Za-z]{1,40})")


@dataclass(frozen=True, slots=True)
class Asked:
    """The format of a route, and the alias where it stands in the path."""

    form: Format
    alias: str | None = None


def _door(form: Format) -> str:
    """Return the route of a format as people write it."""
    return f"/v1beta{form.path.replace('{model}', '{alias}')}" if "{model}" in form.path else f"/v1{form.path}"


ROUTES: Final[Mapping[str, Format]] = {_door(form): form for forms in SPOKEN.values() for form in forms}
"""The format behind each route of the door that is posted to; `{alias}` stands for one of the stage's."""


def find(path: str) -> Asked | None:
    """Return what is asked at a path, as it was sent, without its query; None where there is no route."""
    if (form := ROUTES.get(path)) is not None and "{" not in path:
        return Asked(form)
    if (match := _IN_PATH.fullmatch(path)) is not None:
        form = ROUTES.get(f"/v1beta{match[1]}{{alias}}{match[3]}")
        return Asked(form, match[2]) if form is not None else None
    return None


def speaks(provider: str, form: Format) -> bool:
    """Whether a provider's models are asked in a format; formats are told apart by name."""
    return any(form.name == one.name for one in SPOKEN.get(provider, ()))


def routes(provider: str) -> list[str]:
    """Return the routes at which the models of a provider can be asked."""
    return [f"POST {_door(spoken)}" for spoken in SPOKEN.get(provider, ())]

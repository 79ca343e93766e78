"""Which provider speaks which wire format, and at which route of the door. Nothing is translated between formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.llm.formats.base import Format
from proxy.llm.formats.chat import CHAT
from proxy.llm.formats.messages import COUNT_TOKENS, MESSAGES
from proxy.llm.formats.responses import RESPONSES

SPOKEN: Final[Mapping[str, tuple[Format, ...]]] = {
    "anthropic": (MESSAGES, COUNT_TOKENS),
    "openai": (CHAT, RESPONSES),
    "openai-compatible": (CHAT, RESPONSES),
    "local": (CHAT, RESPONSES),
}
"""The formats of each provider. A provider that is not here is not asked anything."""

ROUTES: Final[Mapping[str, Format]] = {f"/v1{f.path}": f for formats in SPOKEN.values() for f in formats}
"""The format behind each path of the door that is posted to."""


def routes(provider: str) -> list[str]:
    """Return the routes at which the models of a provider can be asked."""
    return [f"POST /v1{spoken.path}" for spoken in SPOKEN.get(provider, ())]

"""The list of a stage's models, as each provider's clients read it. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence

METHODS = ("generateContent", "streamGenerateContent", "countTokens")


def listing(aliases: Sequence[str], path: str, headers: Container[str]) -> dict[str, object]:
    """Return the list at a path; Anthropic's and Google's clients are told by a header that they alone send.

    `headers`: names of the request's headers, in which upper and lower case are the same.
    """
    if path == "/v1beta/models" or any(name in headers for name in ("x-goog-api-key", "x-goog-api-client")):
        return {"models": [_gemini(alias) for alias in aliases]}
    if "anthropic-version" in headers:
        ends = {"first_id": aliases[0], "last_id": aliases[-1]} if aliases else {"first_id": None, "last_id": None}
        return {"data": [_anthropic(alias) for alias in aliases], "has_more": False, **ends}
    return {"object": "list", "data": [_openai(alias) for alias in aliases]}


def _openai(alias: str) -> dict[str, object]:
    return {"id": alias, "object": "model", "created": 0, "owned_by": "casemate"}


def _anthropic(alias: str) -> dict[str, object]:
    return {"type": "model", "id": alias, "display_name": alias, "created_at": "1970-01-01T00:00:00Z"}


def _gemini(alias: str) -> dict[str, object]:
    return {"name": f"models/{alias}", "displayName": alias, "supportedGenerationMethods": list(METHODS)}

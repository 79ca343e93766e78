"""What a user says of a sink."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec


class _Typed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of these types, as of those of the workflow around them."""


class PullRequestSpec(_Typed, frozen=True, kw_only=True):
    """`pull_request:` of a sink `git`."""

    forge: str
    api: str | None = None
    labels: list[str] = []
    draft: bool = False


class PatchSpec(_Typed, frozen=True, kw_only=True):
    """`patch:` of a sink `git`: what a patch may be."""

    files: int = 20
    lines: int = 1000
    bytes: str = "256KiB"
    paths: list[str] = []
    protected: str = "reject"
    unprotected: list[str] = []
    executable: bool = False


class SinkSpec(_Typed, frozen=True, kw_only=True):
    """`sink:`; which settings a kind needs is a check of its own."""

    kind: str
    path: str = ""
    secret: str | None = None
    url: str | None = None
    repository: str | None = None
    base: str | None = None
    prefix: str | None = None
    author: str | None = None
    user: str | None = None
    patch: PatchSpec | None = None
    pull_request: PullRequestSpec | None = None
    table: str | None = None
    mode: str | None = None
    registered_model: str | None = None
    source: str | None = None
    alias: str | None = None
    auth: str | None = None
    server: str | None = None
    tool: str | None = None
    partition: str | None = None
    addresses: list[str] = []


def api_of(repository: str, pull_request: PullRequestSpec) -> str:
    """Return the REST API of a forge: as it is given, or where the forge has it on the host of a repository."""
    host = urlsplit(repository).netloc
    paths = {"github": "/api/v3", "gitlab": "/api/v4", "gitea": "/api/v1", "pagure": "/api/0"}
    known = "https://api.github.com" if host == "github.com" else f"https://{host}{paths[pull_request.forge]}"
    return (pull_request.api or known).rstrip("/")

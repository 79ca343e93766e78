"""A sink `git`, from what a user wrote to what the plan says."""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import urlsplit

from policies.plan import PullRequest, Repository
from sandbox.language.sinks import PatchSpec, PullRequestSpec, SinkSpec, api_of
from sandbox.language.workflow import quantity

BRANCH = re.compile(r"(?!.*(?:\.\.|//|/\.|\./|\.lock(?:/|$)))[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
"""Names of branches that have one reading."""
GLOB = re.compile(r"[A-Za-z0-9._+@=,()\[\]{}#&!$*?-]+(/[A-Za-z0-9._+@=,()\[\]{}#&!$*?-]+)*")
"""Globs that some path of a patch may match."""
PREFIX = "casemate/"
AUTHOR = "Casemate <casemate@noreply.invalid>"
USER = "x-access-token"
"""Who a token is sent as where nothing else is said; most forges look at the token alone."""


def repository(sink: SinkSpec) -> Repository | None:
    """Return what the plan says of a sink `git`; None for any other."""
    if sink.kind != "git":
        return None
    patch = sink.patch or PatchSpec()
    author, _, email = (sink.author or AUTHOR).rpartition(" <")
    return Repository(
        base=sink.base or "",  # without one: CSM-C049
        prefix=sink.prefix or PREFIX,
        author=author,
        email=email.rstrip(">"),
        user=sink.user or USER,
        files=patch.files,
        lines=patch.lines,
        bytes=quantity(patch.bytes),
        paths=sorted(patch.paths),
        protected=cast("Any", patch.protected),
        unprotected=sorted(patch.unprotected),
        executable=patch.executable,
        pull_request=_pull_request(sink.repository or "", sink.pull_request),
    )


def project_of(repository: str) -> str:
    """Return the name that a forge has for the repository at a URL: its path."""
    return urlsplit(repository).path.strip("/").removesuffix(".git")


def _pull_request(repository: str, spec: PullRequestSpec | None) -> PullRequest | None:
    if spec is None:
        return None
    return PullRequest(
        forge=cast("Any", spec.forge),
        api=api_of(repository, spec),
        project=project_of(repository),
        labels=sorted(spec.labels),
        draft=spec.draft,
    )

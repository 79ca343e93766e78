"""Pagure, which shows what somebody has proposed as a list, and takes a second proposal of a branch without a word.

A token goes with the name of its owner, and proposes nothing at a private project: its API shows their pull requests
to nobody. It attaches no labels, and knows no drafts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Literal
from urllib.parse import quote

import msgspec

from gateway.customs.sinks.forges.base import Forge, ForgeFailed, Pull, read

_PAGES: Final = 100
"""The most that are read."""
_STATES: Final[Mapping[str, Literal["open", "closed", "merged"]]] = {
    "Open": "open",
    "Closed": "closed",
    "Merged": "merged",
}


class _Project(msgspec.Struct):
    fullname: str


class _Pull(msgspec.Struct):
    id: int
    status: Literal["Open", "Closed", "Merged"]
    project: _Project
    branch: str
    branch_from: str
    repo_from: _Project | None = None
    """None where it is elsewhere, or gone."""
    tags: list[str] = []

    @property
    def pull(self) -> Pull:
        return Pull(number=self.id, state=_STATES[self.status], labels=self.tags)


class _Page(msgspec.Struct):
    class Pagination(msgspec.Struct):
        pages: int

    requests: list[_Pull]
    pagination: Pagination


class Pagure(Forge):
    """Pagure."""

    scheme: ClassVar[str] = "token"

    def find(self, branches: Sequence[str], base: str) -> dict[str, Pull]:
        """Look for them among all that `user` has proposed, the latest first; those of forks are of other projects."""
        found: dict[str, Pull] = {}
        for page in range(1, _PAGES + 1):
            query = f"status=all&author={quote(self._user, safe='')}&per_page=100&page={page}"
            said = read(self._ask("GET", f"{self._repo}/pull-requests?{query}"), _Page)
            for one in said.requests:
                ours = one.repo_from is not None and one.repo_from == one.project
                if ours and one.branch == base and one.branch_from in branches:
                    found.setdefault(one.branch_from, one.pull)
            if len(found) == len(branches) or page >= said.pagination.pages:
                return found
        raise ForgeFailed(f"it lists more than {_PAGES} pages of pull requests of {self._user}")

    def open(self, branch: str, base: str, title: str, body: str) -> Pull:
        """Open it."""
        said = {"title": title, "branch_from": branch, "branch_to": base, "initial_comment": body}
        return read(self._ask("POST", f"{self._repo}/pull-request/new", said), _Pull).pull

    def get(self, number: int) -> Pull:
        """Ask for its number."""
        return read(self._ask("GET", f"{self._repo}/pull-request/{number}?comments=0"), _Pull).pull

    def close(self, number: int) -> None:
        """Say so."""
        self._ask("POST", f"{self._repo}/pull-request/{number}/close")

    def label(self, number: int) -> None:
        """It does not; nor does a plan that was compiled ask for any."""
        raise ForgeFailed(f"it attaches no labels to {number}")

    @property
    def _repo(self) -> str:
        return f"/{quote(self._spec.project)}"

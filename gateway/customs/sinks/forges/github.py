"""GitHub, and Gitea and Forgejo, which have most of its API from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal
from urllib.parse import quote

import msgspec

from gateway.customs.sinks.forges.base import ABSENT, Pull, Searchable, read


class _GithubPull(msgspec.Struct):
    class Label(msgspec.Struct):
        name: str

    number: int
    state: Literal["open", "closed"]
    merged_at: str | None = None
    labels: list[Label] = []


def _github_pull(answer: object) -> Pull:
    said = read(answer, _GithubPull)
    state: Literal["open", "closed", "merged"] = "merged" if said.merged_at else said.state
    return Pull(number=said.number, state=state, labels=[label.name for label in said.labels])


class Gitea(Searchable):
    """Gitea, and Forgejo."""

    @property
    def _repo(self) -> str:
        return f"/repos/{quote(self._spec.project)}"

    def search(self, branch: str, base: str) -> Pull | None:
        """Ask for base and branch at once."""
        answer = self._ask("GET", f"{self._repo}/pulls/{quote(base, safe='')}/{quote(branch, safe='')}", absent=True)
        return None if answer is ABSENT else _github_pull(answer)

    def open(self, branch: str, base: str, title: str, body: str) -> Pull:
        """Open it; a draft is one by its title."""
        name = f"WIP: {title}" if self._spec.draft else title
        said = {"title": name, "head": branch, "base": base, "body": body}
        return _github_pull(self._ask("POST", f"{self._repo}/pulls", said))

    def get(self, number: int) -> Pull:
        """Ask for its number."""
        return _github_pull(self._ask("GET", f"{self._repo}/pulls/{number}"))

    def close(self, number: int) -> None:
        """Set its state."""
        self._ask("PATCH", f"{self._repo}/pulls/{number}", {"state": "closed"})

    def label(self, number: int) -> None:
        """A pull request is an issue here."""
        self._ask("POST", f"{self._repo}/issues/{number}/labels", {"labels": self._spec.labels})


class Github(Gitea):
    """GitHub, also at a company. Gitea has most of its API from there."""

    headers: ClassVar[Mapping[str, str]] = {
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }

    def search(self, branch: str, base: str) -> Pull | None:
        """Search by head; forks of others have another owner."""
        owner = self._spec.project.partition("/")[0]
        query = f"head={quote(f'{owner}:{branch}', safe='')}&base={quote(base, safe='')}&state=all&per_page=2"
        found = read(self._ask("GET", f"{self._repo}/pulls?{query}"), list[object])
        return _github_pull(found[0]) if found else None

    def open(self, branch: str, base: str, title: str, body: str) -> Pull:
        """Open it, perhaps as a draft."""
        said = {"title": title, "head": branch, "base": base, "body": body, "draft": self._spec.draft}
        return _github_pull(self._ask("POST", f"{self._repo}/pulls", said))

"""GitLab, where pull requests are merge requests."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import msgspec

from gateway.customs.sinks.forges.base import Pull, Searchable, read


class _GitlabPull(msgspec.Struct):
    iid: int
    state: Literal["opened", "closed", "merged", "locked"]
    source_project_id: int
    target_project_id: int
    labels: list[str] = []


def _gitlab_pull(said: _GitlabPull) -> Pull:
    states: dict[str, Literal["open", "closed", "merged"]] = {"opened": "open", "closed": "closed"}
    # A locked one is being merged.
    return Pull(number=said.iid, state=states.get(said.state, "merged"), labels=said.labels)


class Gitlab(Searchable):
    """GitLab, also at a company."""

    @property
    def _requests(self) -> str:
        return f"/projects/{quote(self._spec.project, safe='')}/merge_requests"

    def search(self, branch: str, base: str) -> Pull | None:
        """Search by branch; those of forks are of other projects."""
        query = f"source_branch={quote(branch, safe='')}&target_branch={quote(base, safe='')}&state=all&per_page=100"
        found = read(self._ask("GET", f"{self._requests}?{query}"), list[_GitlabPull])
        mine = [request for request in found if request.source_project_id == request.target_project_id]
        return _gitlab_pull(mine[0]) if mine else None

    def open(self, branch: str, base: str, title: str, body: str) -> Pull:
        """Open it with its labels; a draft is one by its title."""
        name = f"Draft: {title}" if self._spec.draft else title
        said = {"title": name, "source_branch": branch, "target_branch": base, "description": body}
        return _gitlab_pull(read(self._ask("POST", self._requests, said), _GitlabPull))

    def get(self, number: int) -> Pull:
        """Ask for its number."""
        return _gitlab_pull(read(self._ask("GET", f"{self._requests}/{number}"), _GitlabPull))

    def close(self, number: int) -> None:
        """Set its state."""
        self._ask("PUT", f"{self._requests}/{number}", {"state_event": "close"})

    def label(self, number: int) -> None:
        """Add them to those that are there."""
        self._ask("PUT", f"{self._requests}/{number}", {"add_labels": ",".join(self._spec.labels)})

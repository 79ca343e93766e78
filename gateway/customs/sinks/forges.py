"""Pull requests: three forges, which say the same in their own words. A branch has one, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from policies.outputs import PullRequest

T = TypeVar("T")
_MOST: Final = 4 << 20
"""Bytes of an answer."""


class ForgeFailed(Exception):  # noqa: N818 - the word for it
    """The forge did not do what it was asked, or did not say so."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """A pull request."""

    number: int
    state: Literal["open", "closed", "merged"]
    labels: Sequence[str]


class Forge(ABC):
    """One project at the API of a forge, with a token."""

    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, spec: PullRequest, client: Callable[[], httpx.Client]) -> None:
        """`client` makes one that has the token."""
        self._spec, self._client = spec, client

    @abstractmethod
    def find(self, branch: str, base: str) -> Pull | None:
        """Return the pull request of a branch, whatever became of it."""

    @abstractmethod
    def open(self, branch: str, base: str, title: str, body: str) -> Pull:
        """Open the pull request of a branch."""

    @abstractmethod
    def get(self, number: int) -> Pull:
        """Return a pull request."""

    @abstractmethod
    def close(self, number: int) -> None:
        """Close a pull request."""

    @abstractmethod
    def label(self, number: int) -> None:
        """Attach the labels of the plan."""

    def labelled(self, pull: Pull) -> bool:
        """Tell whether a pull request has the labels of the plan."""
        return set(self._spec.labels) <= set(pull.labels)

    def _ask(self, method: str, path: str, body: object = None, *, absent: bool = False) -> Any:
        """Return the answer to a request; None for 404 where that is an answer. Raises `ForgeFailed`."""
        sent = {"Content-Type": "application/json"} if body is not None else {}
        content = msgspec.json.encode(body) if body is not None else None
        headers = {"Accept": "application/json", **self.headers, **sent}
        try:
            with (
                self._client() as client,
                client.stream(method, self._spec.api + path, content=content, headers=headers) as answer,
            ):
                data = b""
                for part in answer.iter_raw():
                    data += part
                    if len(data) > _MOST:
                        raise ForgeFailed("its answer is too long")
                status = answer.status_code
        except httpx.HTTPError as error:
            raise ForgeFailed(f"it does not answer: {type(error).__name__}") from error
        if status == 404 and absent:
            return None
        if not 200 <= status < 300:
            raise ForgeFailed(f"it answered {method} with status {status}")
        try:
            return msgspec.json.decode(data) if data else None
        except msgspec.DecodeError as error:
            raise ForgeFailed("its answer is no JSON") from error


class _GithubPull(msgspec.Struct):
    class Label(msgspec.Struct):
        name: str

    number: int
    state: Literal["open", "closed"]
    merged_at: str | None = None
    labels: list[Label] = []


def _github_pull(answer: object) -> Pull:
    said = _read(answer, _GithubPull)
    state: Literal["open", "closed", "merged"] = "merged" if said.merged_at else said.state
    return Pull(number=said.number, state=state, labels=[label.name for label in said.labels])


class Gitea(Forge):
    """Gitea, and Forgejo."""

    @property
    def _repo(self) -> str:
        return f"/repos/{quote(self._spec.project)}"

    def find(self, branch: str, base: str) -> Pull | None:
        """Ask for base and branch at once."""
        answer = self._ask("GET", f"{self._repo}/pulls/{quote(base, safe='')}/{quote(branch, safe='')}", absent=True)
        return None if answer is None else _github_pull(answer)

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

    def find(self, branch: str, base: str) -> Pull | None:
        """Search by head; forks of others have another owner."""
        owner = self._spec.project.partition("/")[0]
        query = f"head={quote(f'{owner}:{branch}', safe='')}&base={quote(base, safe='')}&state=all&per_page=2"
        found = self._ask("GET", f"{self._repo}/pulls?{query}")
        return _github_pull(found[0]) if isinstance(found, list) and found else None

    def open(self, branch: str, base: str, title: str, body: str) -> Pull:
        """Open it, perhaps as a draft."""
        said = {"title": title, "head": branch, "base": base, "body": body, "draft": self._spec.draft}
        return _github_pull(self._ask("POST", f"{self._repo}/pulls", said))


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


class Gitlab(Forge):
    """GitLab, where they are merge requests."""

    @property
    def _requests(self) -> str:
        return f"/projects/{quote(self._spec.project, safe='')}/merge_requests"

    def find(self, branch: str, base: str) -> Pull | None:
        """Search by branch; those of forks are of other projects."""
        query = f"source_branch={quote(branch, safe='')}&target_branch={quote(base, safe='')}&state=all&per_page=100"
        found = _read(self._ask("GET", f"{self._requests}?{query}"), list[_GitlabPull])
        mine = [request for request in found if request.source_project_id == request.target_project_id]
        return _gitlab_pull(mine[0]) if mine else None

    def open(self, branch: str, base: str, title: str, body: str) -> Pull:
        """Open it with its labels; a draft is one by its title."""
        name = f"Draft: {title}" if self._spec.draft else title
        said = {"title": name, "source_branch": branch, "target_branch": base, "description": body}
        return _gitlab_pull(_read(self._ask("POST", self._requests, said), _GitlabPull))

    def get(self, number: int) -> Pull:
        """Ask for its number."""
        return _gitlab_pull(_read(self._ask("GET", f"{self._requests}/{number}"), _GitlabPull))

    def close(self, number: int) -> None:
        """Set its state."""
        self._ask("PUT", f"{self._requests}/{number}", {"state_event": "close"})

    def label(self, number: int) -> None:
        """Add them to those that are there."""
        self._ask("PUT", f"{self._requests}/{number}", {"add_labels": ",".join(self._spec.labels)})


FORGES: Final[Mapping[str, type[Forge]]] = {"github": Github, "gitlab": Gitlab, "gitea": Gitea}


def _read(answer: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise ForgeFailed("its answer is no pull request") from error

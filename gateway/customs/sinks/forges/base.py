"""What a forge is: pull requests at a REST API. A branch has one, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeVar

import httpx
import msgspec

from policies.outputs import PullRequest

T = TypeVar("T")
_MOST: Final = 4 << 20
"""Bytes of an answer."""
ABSENT: Final = object()
"""What is said to be nowhere. Only that means that there is none: an answer of nothing says nothing."""


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
    scheme: ClassVar[str] = "Bearer"
    """What stands before the token."""

    def __init__(self, spec: PullRequest, user: str, client: Callable[[], httpx.Client]) -> None:
        """`user`: whose the token is, as the workflow says. `client` makes one that has the token."""
        self._spec, self._user, self._client = spec, user, client

    @abstractmethod
    def find(self, branches: Sequence[str], base: str) -> dict[str, Pull]:
        """Return the pull requests of those branches that have one, whatever became of them."""

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
        """Return the answer to a request; `ABSENT` for 404 where that is an answer. Raises `ForgeFailed`."""
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
            return ABSENT
        if not 200 <= status < 300:
            raise ForgeFailed(f"it answered {method} with status {status}")
        try:
            return msgspec.json.decode(data) if data else None
        except msgspec.DecodeError as error:
            raise ForgeFailed("its answer is no JSON") from error


class Searchable(Forge):
    """A forge that can be asked for the pull request of a branch."""

    def find(self, branches: Sequence[str], base: str) -> dict[str, Pull]:
        """Ask for one after the other."""
        found = {branch: self.search(branch, base) for branch in branches}
        return {branch: pull for branch, pull in found.items() if pull is not None}

    @abstractmethod
    def search(self, branch: str, base: str) -> Pull | None:
        """Return the pull request of a branch, whatever became of it."""


def read(answer: object, kind: type[T]) -> T:
    """Return an answer as what it must be. Raises `ForgeFailed`."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise ForgeFailed("its answer is no pull request") from error

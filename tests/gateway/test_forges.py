"""Forges: each in the shapes that it documents or, where we have it, speaks; and what it says that is none of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

import httpx
import pytest

from gateway.customs.sinks.forges import FORGES
from gateway.customs.sinks.forges.base import Forge, ForgeFailed
from policies.outputs import PullRequest

Name = Literal["github", "gitlab", "gitea", "pagure"]
NAMES: list[Name] = ["github", "gitlab", "gitea", "pagure"]
APP, FORK = {"fullname": "acme/app"}, {"fullname": "forks/eve/acme/app"}


def pagure(number: int = 7, **changes: Any) -> dict[str, Any]:
    """Return a pull request as Pagure says it."""
    sides = {"project": APP, "repo_from": APP, "branch": "main", "branch_from": "ours/1"}
    return {"id": number, "status": "Open", "tags": ["bot"], "comments": [], **sides, **changes}


def page(*requests: object, pages: int = 1) -> dict[str, Any]:
    """Return a list of them."""
    return {"requests": list(requests), "total_requests": 0, "pagination": {"pages": pages}}


GITHUB = {"number": 7, "state": "open", "merged_at": None, "labels": [{"name": "bot"}]}
GITLAB = {"iid": 7, "state": "opened", "labels": ["bot"], "source_project_id": 1, "target_project_id": 1}
LISTED: dict[Name, Any] = {"github": [GITHUB], "gitlab": [GITLAB], "gitea": GITHUB, "pagure": page(pagure())}
ONE: dict[Name, Any] = {"github": GITHUB, "gitlab": GITLAB, "gitea": GITHUB, "pagure": pagure()}
STATES: dict[Name, dict[str, dict[str, Any]]] = {
    "github": {"closed": {"state": "closed"}, "merged": {"state": "closed", "merged_at": "2026-01-02T00:00:00Z"}},
    "gitlab": {"closed": {"state": "closed"}, "merged": {"state": "merged"}},
    "gitea": {"closed": {"state": "closed"}, "merged": {"state": "closed", "merged_at": "2026-01-02T00:00:00Z"}},
    "pagure": {"closed": {"status": "Closed"}, "merged": {"status": "Merged"}},
}


def forge(name: Name, answer: Callable[[httpx.Request], httpx.Response]) -> Forge:
    """Return a forge whose server answers in a way."""
    spec = PullRequest(forge=name, api="https://api.example.com/v9", project="acme/app", labels=["bot"], draft=False)
    return FORGES[name](spec, "bot", lambda: httpx.Client(transport=httpx.MockTransport(answer)))


def said(answer: Any, status: int = 200) -> httpx.Response:
    """Return an answer, as it comes over a line."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return httpx.Response(status, stream=httpx.ByteStream(content), headers={"Location": "https://evil.example.com"})


def saying(name: Name, answer: Any, status: int = 200) -> Forge:
    """Return a forge whose server says the same to everything."""
    return forge(name, lambda _request: said(answer, status))


@pytest.mark.parametrize("name", NAMES)
def test_what_became_of_a_pull_request_is_understood(name: Name) -> None:
    pull = saying(name, LISTED[name]).find(["ours/1"], "main")["ours/1"]
    assert (pull.number, pull.state, list(pull.labels)) == (7, "open", ["bot"])
    assert saying(name, ONE[name]).get(7) == saying(name, ONE[name], 201).open("ours/1", "main", "T", "B") == pull
    for state, change in STATES[name].items():
        assert saying(name, ONE[name] | change).get(7).state == state


NOTHING: list[Any] = [b"", b"<html>", b"\xff", b"x" * (5 << 20), [], {}, None, 7, "open", [[]], {"message": "no"}]
"""What is no pull request, whoever says it."""


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_pull_request_is_not_taken_for_one(name: Name) -> None:
    field = "id" if name == "pagure" else "iid" if name == "gitlab" else "number"
    state = "status" if name == "pagure" else "state"
    wrong = [ONE[name] | change for change in ({field: "7"}, {field: None}, {state: "new"}, {state: 1})]
    lacking = [{key: value for key, value in ONE[name].items() if key != gone} for gone in (field, state)]
    for answer in [*NOTHING, *wrong, *lacking]:
        with pytest.raises(ForgeFailed):
            saying(name, answer).get(7)
        with pytest.raises(ForgeFailed):
            saying(name, answer, 201).open("ours/1", "main", "T", "B")
    for status in (100, 301, 302, 304, 401, 403, 404, 409, 422, 429, 500, 503):
        with pytest.raises(ForgeFailed):
            saying(name, ONE[name], status).get(7)


@pytest.mark.parametrize("name", NAMES)
def test_a_list_that_is_none_is_not_taken_for_an_empty_one(name: Name) -> None:
    listed = [*NOTHING[:4], None, 7, "open", {"requests": []}, {"pagination": {"pages": 0}}, page({}), page(None)]
    for answer in listed:
        with pytest.raises(ForgeFailed):
            saying(name, answer).find(["ours/1"], "main")
    with pytest.raises(ForgeFailed):
        saying(name, LISTED[name], 500).find(["ours/1"], "main")


NOT_OURS = {
    "of a fork": pagure(1, repo_from=FORK),
    "of elsewhere": pagure(2, repo_from=None, remote_git="https://evil.example.com/app.git"),
    "for another base": pagure(3, branch="stable"),
    "of another branch": pagure(4, branch_from="ours/10"),
}


def test_pagure_is_asked_for_all_that_the_owner_of_the_token_has_proposed() -> None:
    pages = [
        page(*NOT_OURS.values(), pages=3),
        page(pagure(5, branch_from="ours/2", status="Merged"), pages=3),
        page(pagure(6, status="Closed"), pagure(7), pages=3),
    ]
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return said(pages[int(request.url.params["page"]) - 1])

    found = forge("pagure", answer).find(["ours/1", "ours/2", "ours/3"], "main")
    assert {branch: (pull.number, pull.state) for branch, pull in found.items()} == {
        "ours/1": (6, "closed"),
        "ours/2": (5, "merged"),
    }
    assert [request.url.params["page"] for request in asked] == ["1", "2", "3"]
    assert {(r.url.path, r.url.params["status"], r.url.params["author"]) for r in asked} == {
        ("/v9/acme/app/pull-requests", "all", "bot")
    }
    asked.clear()
    assert set(forge("pagure", answer).find(["ours/2"], "main")) == {"ours/2"}
    assert len(asked) == 2, "who has found everything asks no more"


def test_a_list_without_an_end_is_not_read_for_ever() -> None:
    count: Iterator[int] = iter(range(1000))

    def answer(_request: httpx.Request) -> httpx.Response:
        next(count)
        return said(page(pages=10**9))

    with pytest.raises(ForgeFailed, match="more than 100 pages"):
        forge("pagure", answer).find(["ours/1"], "main")
    assert next(count) == 100


def test_labels_are_not_said_to_be_there_where_there_can_be_none() -> None:
    with pytest.raises(ForgeFailed):
        saying("pagure", {}).label(7)

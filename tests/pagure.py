"""Pagure of a test: the real forge, on the test's own outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.engine.images import GIT, TEST_PAGURE, build_all
from tests.forge import FILES
from tests.lab import Lab
from tests.outside_lab import OutsideLab

PROJECT, PRIVATE = "acme/app", "bot/hidden"
SINK: dict[str, Any] = {
    "kind": "git",
    "repository": f"https://git.example.com/{PROJECT}.git",
    "base": "main",
    "user": "bot",
    "pull_request": {"forge": "pagure"},
}


class Pagure:
    """The server, asked beside everything."""

    def __init__(self, outside: OutsideLab) -> None:
        self.outside = outside

    def git(self, *words: str, project: str = PROJECT) -> str:
        """Ask a repository."""
        place = f"/var/lib/pagure/repositories/{project}.git"
        return self.outside.ask("git", "--git-dir", place, *words, user="_pagure").strip()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Ask its API, as the person whose project it is."""
        words = [] if body is None else [json.dumps(body)]
        told = self.outside.ask("python3", "/srv/servers.py", "ask", method, f"{PROJECT}/{path}", *words)
        said: dict[str, Any] = json.loads(told)
        return said

    @property
    def branches(self) -> list[str]:
        """The branches of proposals."""
        return self.proposed()

    def proposed(self, project: str = PROJECT) -> list[str]:
        """Return the branches of proposals at a project."""
        words = ("for-each-ref", "--format=%(refname:short)", "refs/heads/casemate")
        return self.git(*words, project=project).split()

    @property
    def pulls(self) -> list[dict[str, Any]]:
        """Every pull request, in order."""
        asked = "pull-requests?status=all&per_page=100&page="
        found = [pull for page in (1, 2) for pull in self.ask("GET", f"{asked}{page}")["requests"]]
        return sorted(found, key=lambda pull: int(pull["id"]))

    def there(self) -> list[str]:
        """Return the titles of pull requests that are open, of branches that are there."""
        branches = self.branches
        return [p["title"] for p in self.pulls if p["status"] == "Open" and p["branch_from"] in branches]

    def crowd(self) -> None:
        """Have the bot propose a hundred other things since."""
        self.outside.ask("python3", "/srv/servers.py", "crowd")

    def empty(self) -> None:
        """Forget what was proposed."""
        self.outside.ask("python3", "/srv/servers.py", "forget", user="_pagure")


@contextmanager
def pagure(lab: Lab, token: str) -> Iterator[Pagure]:
    """Start one, where a token of `bot` may push to a project and propose."""
    build_all(lab.engine, print, (GIT, TEST_PAGURE))
    config = {"token": token, "project": PROJECT, "files": FILES}
    program = Path(__file__).with_name("outside_pagure.py")
    with OutsideLab({"git.example.com": ["origin"]}, program, config, TEST_PAGURE.name) as outside:
        yield Pagure(outside)

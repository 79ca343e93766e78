"""A forge of a test: a real git server over HTTPS with the API of a forge, on the test's own outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.engine.images import GIT, TOOLS, build_all
from tests.lab import Lab
from tests.outside_lab import OutsideLab

URL, API = "https://git.example.com/acme/app.git", "https://api.example.com"
FILES = {"notes.md": "one\ntwo\n", "src/a.py": "x = 1\n", "run.sh": "true\n"}
PROPOSALS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["title", "patch"],
    "properties": {name: {"type": "string", "maxLength": 5000} for name in ("title", "body", "patch")},
}
SINK: dict[str, Any] = {
    "kind": "git",
    "repository": URL,
    "base": "main",
    "pull_request": {"forge": "github", "api": API, "labels": ["bot"]},
}


class Forge:
    """The server, asked beside everything."""

    def __init__(self, outside: OutsideLab) -> None:
        self.outside = outside

    def git(self, *words: str) -> str:
        """Ask its repository."""
        return self.outside.ask("git", "--git-dir", "/srv/git/acme/app.git", *words).strip()

    @property
    def branches(self) -> list[str]:
        """The branches of proposals."""
        return self.git("for-each-ref", "--format=%(refname:short)", "refs/heads/casemate").split()

    @property
    def pulls(self) -> list[dict[str, Any]]:
        """Every pull request, in order."""
        found: list[dict[str, Any]] = json.loads(self.outside.ask("python3", "/srv/servers.py", "ask", "/pulls"))
        return found

    def there(self) -> list[str]:
        """Return the titles of pull requests that are open, of branches that are there."""
        return [p["title"] for p in self.pulls if p["state"] == "open" and p["head"]["ref"] in self.branches]

    def empty(self) -> None:
        """Forget what was proposed."""
        for branch in self.branches:
            self.git("update-ref", "-d", f"refs/heads/{branch}")
        self.outside.ask("python3", "/srv/servers.py", "ask", "/forget")


@contextmanager
def forge(lab: Lab, token: str, files: dict[str, str] | None = None) -> Iterator[Forge]:
    """Start one that takes a token, with a repository of some files."""
    build_all(lab.engine, print, (GIT, TOOLS))
    program, names = Path(__file__).with_name("outside_git.py"), ("git.example.com", "api.example.com")
    config = {"token": token, "projects": {"acme/app": FILES if files is None else files}}
    with OutsideLab({name: ["origin"] for name in names}, program, config, TOOLS.name) as outside:
        yield Forge(outside)

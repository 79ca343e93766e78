"""Paths of a repository that a patch does not change unless a person said so: what others run, install or obey unread.

The files of the forges' CI, of hooks and of editors are hidden; manifests and lock files say what is installed; some
files say who must review, or tell other agents what to do. Names are compared without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

_NAMES = """
appveyor.yml azure-pipelines.yml azure-pipelines.yaml bitbucket-pipelines.yml buildspec.yml cloudbuild.yaml
jenkinsfile
codeowners security.md
agents.md claude.md copilot-instructions.md gemini.md skill.md
package.json package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml pnpm-workspace.yaml bun.lock bun.lockb
bunfig.toml deno.json deno.jsonc deno.lock
go.mod go.sum go.work go.work.sum
pipfile pipfile.lock pyproject.toml setup.py setup.cfg uv.lock poetry.lock pdm.lock pylock.toml environment.yml
cargo.toml cargo.lock build.rs
gemfile gemfile.lock
pom.xml build.gradle build.gradle.kts settings.gradle settings.gradle.kts gradle.properties gradlew gradlew.bat
gradle-wrapper.jar gradle-wrapper.properties libs.versions.toml
composer.json composer.lock
directory.build.props directory.build.targets directory.packages.props packages.lock.json nuget.config global.json
mix.exs mix.lock package.swift package.resolved pubspec.yaml pubspec.lock flake.nix flake.lock
"""
NAMES = frozenset(_NAMES.split())
_FAMILIES = re.compile(r"(?:requirements|constraints)[^/]*\.(?:txt|in)|.*\.(?:gemspec|csproj|fsproj|vbproj)")


def protected(path: str) -> bool:
    """Tell whether a path is protected: something in it is hidden, or its name is one of those."""
    *folders, name = path.casefold().split("/")
    hidden = any(part.startswith(".") for part in (*folders, name))
    return hidden or name in NAMES or _FAMILIES.fullmatch(name) is not None


def matches(path: str, globs: Iterable[str]) -> bool:
    """Tell whether a whole path matches one of some globs: `*` and `?` stay within a folder, `**` does not."""
    return any(_pattern(glob).fullmatch(path) for glob in globs)


@cache
def _pattern(glob: str) -> re.Pattern[str]:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", glob)))

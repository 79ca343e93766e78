"""Ecosystems: which hosts the package managers of *this* host are configured to use.

A company's mirror is what its agents get. No list of public hosts is kept here: where nothing is configured, the
manager's own default is asked for, and where that cannot be had, there is none.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

SECONDS = 20


def ecosystem_hosts(name: str, root: Path) -> tuple[str, ...]:
    """Return the hosts, sorted, of `pip`, `npm`, `apt` or `git-remote` (of the repository around `root`)."""
    urls: Iterable[str]
    match name:
        case "pip":
            urls = _pip()
        case "npm":
            urls = _npm()
        case "apt":
            urls = _apt(Path("/etc/apt"))
        case "git-remote":
            urls = _git(root)
        case _:
            urls = ()
    hosts = {urlsplit(url).hostname for url in urls}
    return tuple(sorted(host.lower() for host in hosts if host and "." in host))


def _pip() -> Iterator[str]:
    settings = dict(
        line.split("=", 1) for line in _ask(sys.executable, "-m", "pip", "config", "list").splitlines() if "=" in line
    )
    found = [value.strip().strip("'\"") for key, value in settings.items() if key.endswith(("index-url", "index_url"))]
    found += [value for key in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL") if (value := os.environ.get(key))]
    yield from (url for value in found for url in value.split())
    if not any("extra" not in key for key in settings if key.endswith(("index-url", "index_url"))):
        code = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
        yield _ask(sys.executable, "-c", code).strip()


def _npm() -> Iterator[str]:
    yield _ask("npm", "config", "get", "registry").strip()


def _apt(folder: Path) -> Iterator[str]:
    for path in sorted([folder / "sources.list", *folder.glob("sources.list.d/*")]):
        if path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                if not line.lstrip().startswith("#"):
                    yield from re.findall(r"https?://[^\s\]]+", line)


def _git(root: Path) -> Iterator[str]:
    for folder in (root, *root.parents):
        config = folder / ".git" / "config"
        if config.is_file():
            parser = configparser.ConfigParser(strict=False, interpolation=None)
            parser.read_string(re.sub(r"^\s+", "", config.read_text(errors="replace"), flags=re.MULTILINE))
            for section in parser.sections():
                if section.startswith("remote "):
                    url = parser[section].get("url", "")
                    # git@host:path is ssh, which no egress rule can let out
                    if url.startswith(("http://", "https://")):
                        yield url
            return


@cache
def _ask(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd="/"
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""

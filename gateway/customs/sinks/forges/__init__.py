"""Pull requests: four forges, which say the same in their own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.customs.sinks.forges.base import Forge
from gateway.customs.sinks.forges.github import Gitea, Github
from gateway.customs.sinks.forges.gitlab import Gitlab
from gateway.customs.sinks.forges.pagure import Pagure

FORGES: Final[Mapping[str, type[Forge]]] = {"github": Github, "gitlab": Gitlab, "gitea": Gitea, "pagure": Pagure}

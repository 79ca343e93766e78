"""Tools: MCP servers with the read tools of the stage by name. A tool that writes is never handed to an agent."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from policies.events import clean
from sandbox.checks.egress import host_problem
from sandbox.importer.draft import Draft
from sandbox.importer.network import read_allowed
from sandbox.importer.notes import Kind, Ledger
from sandbox.importer.source import mapping, slug, words
from sandbox.language.findings import Path

_GITHUB = "https://api.githubcopilot.com/mcp/readonly"
_TOOL = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]{0,299}\Z")
_SECRET = re.compile(r"\$\{\{\s*secrets\.([A-Za-z_][A-Za-z0-9_]{0,99})")
_READS = re.compile(r"(get|list|search|read|find|fetch|describe|show|view|lookup|count)([_A-Z.-]|\Z)")
_MEMORY = "a cell keeps nothing; give what an earlier run wrote as an input"

TOOLSETS: dict[str, tuple[str, ...]] = {
    "context": ("get_me", "get_teams", "get_team_members"),
    "repos": ("get_commit", "get_file_contents", "get_latest_release", "get_release_by_tag", "get_tag", "list_branches",
              "list_commits", "list_releases", "list_tags", "search_code", "search_repositories"),
    "issues": ("issue_read", "list_issues", "list_issue_types", "search_issues"),
    "pull_requests": ("list_pull_requests", "pull_request_read", "search_pull_requests"),
    "users": ("search_users",),
    "actions": ("actions_get", "actions_list", "get_job_logs"),
    "code_security": ("get_code_scanning_alert", "list_code_scanning_alerts"),
    "dependabot": ("get_dependabot_alert", "list_dependabot_alerts"),
    "discussions": ("get_discussion", "get_discussion_comments", "list_discussion_categories", "list_discussions"),
    "gists": ("get_gist", "list_gists"),
    "labels": ("get_label", "list_label"),
    "notifications": ("get_notification_details", "list_notifications"),
    "orgs": ("search_orgs",),
    "projects": ("projects_get", "projects_list"),
    "search": ("search_code", "search_issues", "search_pull_requests", "search_repositories", "search_users"),
    "secret_protection": ("get_secret_scanning_alert", "list_secret_scanning_alerts"),
    "security_advisories": ("get_global_security_advisory", "list_global_security_advisories"),
    "stargazers": ("list_starred_repositories",),
}  # fmt: skip
_DEFAULT = ("context", "repos", "issues", "pull_requests", "users")

# key of tools.github: class, whether it limits somebody, what became of it
_GITHUB_KEYS: dict[str, tuple[Kind, bool, str]] = {
    "mode": (Kind.APPROXIMATED, False, "the server that GitHub runs, at its read-only address"),
    "version": (Kind.APPROXIMATED, False, "the server that GitHub runs; its tools are pinned by `casemate mcp audit`"),
    "args": (Kind.NONE, False, "the server is not started here"),
    "github-token": (Kind.APPROXIMATED, False, "tools.github.secret: read_github, which only the gateway holds"),
    "github-app": (Kind.APPROXIMATED, False, "no token is minted; tools.github.secret: read_github stands in"),
    "min-integrity": (Kind.NONE, True, "not filtered by author: an agent may read what outsiders wrote"),
    "allowed-repos": (Kind.NONE, True, "use a token that can read only these repositories"),
    "repos": (Kind.NONE, True, "use a token that can read only these repositories"),
    "lockdown": (Kind.NONE, True, "not filtered by author: an agent may read what outsiders wrote"),
    "blocked-users": (Kind.NONE, True, "not filtered by author: an agent may read what these users wrote"),
    "trusted-users": (Kind.NONE, True, "not filtered by author"),
    "approval-labels": (Kind.NONE, True, "not filtered by label"),
    "private-to-public-flows": (Kind.STRICTER, False, "nothing leaves but by the outputs, which are judged"),
}
_FIXED: dict[str, tuple[Kind, bool, str]] = {
    "edit": (Kind.MAPPED, False, "/workspace is writable, and nothing else"),
    "web-fetch": (Kind.STRICTER, False, "only the hosts under egress can be reached"),
    "web-search": (Kind.STRICTER, False, "no search; declare an MCP server that searches under tools:"),
    "playwright": (Kind.STRICTER, False, "no browser; an image of yours can bring one, held to egress"),
    "cache-memory": (Kind.STRICTER, False, _MEMORY),
    "repo-memory": (Kind.STRICTER, False, _MEMORY),
    "drive-memory": (Kind.STRICTER, False, _MEMORY),
    "agentic-workflows": (Kind.NONE, False, "give logs that the agent should read as inputs"),
    "qmd": (Kind.NONE, False, "build the search server as an image, and declare it under tools:"),
    "serena": (Kind.NONE, False, "build the server as an image, and declare it under tools:"),
    "linear": (Kind.NONE, False, "declare the server under tools:, with its read tools by name"),
    "jira": (Kind.NONE, False, "declare the server under tools:, with its read tools by name"),
    "cli-proxy": (Kind.NONE, False, "tools are reached by MCP"),
    "timeout": (Kind.APPROXIMATED, False, "not set for each call; limits.wall ends the stage"),
    "startup-timeout": (Kind.APPROXIMATED, False, "a server that does not start ends the run"),
}


def read_tools(value: Any, ledger: Ledger, draft: Draft) -> None:
    """Note `tools:` key by key."""
    for key, item in mapping(value).items():
        where = ("tools", key)
        if key == "github":
            _github(item, where, ledger, draft)
        elif key == "bash":
            _bash(item, where, ledger)
        elif key in _FIXED:
            kind, restriction, text = _FIXED[key]
            ledger.add(where, kind, text, restriction=restriction)
        elif isinstance(item, dict) and item.keys() & {"url", "command", "container", "mcp"}:
            _server(key, item, where, ledger, draft)


def read_servers(value: Any, ledger: Ledger, draft: Draft) -> None:
    """Note `mcp-servers:` server by server."""
    for name, item in mapping(value).items():
        if isinstance(item, dict):
            _server(name, item, ("mcp-servers", name), ledger, draft)


def _bash(value: Any, where: Path, ledger: Ledger) -> None:
    if value is True or (isinstance(value, list) and {"*", ":*"} & {str(item) for item in value}):
        ledger.mapped(where, "any program of the image, inside the cell")
    else:
        text = "a cell runs any program of its image: provide an image that has only these"
        ledger.blocked(where, text)


def _github(value: Any, where: Path, ledger: Ledger, draft: Draft) -> None:
    if value is False:
        draft.refused.add("github")
        ledger.mapped(where, "no GitHub tool")
        return
    settings = mapping(value)
    wanted = words(settings.get("toolsets", settings.get("toolset", ["default"]))) or ["default"]
    sets = [name for word in wanted for name in _expand(word)]
    names = {tool for name in sets for tool in TOOLSETS.get(name, ())}
    text = f"the server that GitHub runs, at its read-only address, with {len(names)} read tools at most"
    ledger.add(where, Kind.APPROXIMATED, text, whole=not settings)
    for key, item in settings.items():
        path = (*where, key)
        if key in ("toolsets", "toolset"):
            unknown = sorted(set(sets) - TOOLSETS.keys())
            shown = f"; not known: {clean(', '.join(unknown), 100)}" if unknown else ""
            kind = Kind.STRICTER if unknown else Kind.APPROXIMATED
            ledger.add(path, kind, f"stages[0].tools.github names the read tools of these sets{shown}")
        elif key == "allowed":
            names = _narrow(item, path, ledger, names if "toolsets" in settings else None)
        elif key == "read-only":
            ledger.add(path, Kind.MAPPED if item is True else Kind.STRICTER, "there are only read tools")
        elif key in _GITHUB_KEYS:
            kind, restriction, said = _GITHUB_KEYS[key]
            ledger.add(path, kind, said, restriction=restriction)
    if "min-integrity" not in settings:
        said = (
            "the original hides what outsiders wrote in a public repository; here an agent counts as taken over anyway"
        )
        ledger.implied((*where, "min-integrity"), Kind.APPROXIMATED, said)
    found = _SECRET.search(str(settings.get("github-token"))[:1000])
    if names and "github" not in draft.refused:
        draft.tools["github"] = {
            "url": _GITHUB,
            "transport": "http",
            "secret": draft.secret("read_github", found.group(1) if found else "GITHUB_TOKEN"),
        }
        draft.reads["github"] = sorted({*draft.reads.get("github", []), *names})


def _expand(word: str) -> tuple[str, ...]:
    if word == "default":
        return _DEFAULT
    return tuple(name for name in TOOLSETS if name != "dependabot") if word == "all" else (word,)


def _narrow(value: Any, path: Path, ledger: Ledger, within: set[str] | None) -> set[str]:
    entries = value if isinstance(value, list) else [value]
    known = {tool for tools in TOOLSETS.values() for tool in tools}
    chosen: set[str] = set()
    left_out: list[str] = []
    for index, entry in enumerate(entries):
        name = str(mapping(entry).get("name", entry))
        if isinstance(entry, dict):
            ledger.mapped((*path, index, "name"), "stages[0].tools.github")
            if "max-calls" in entry:
                ledger.blocked(
                    (*path, index, "max-calls"), "calls of one tool are not counted; limits.wall ends the stage"
                )
        if name in known or (_TOOL.match(name) and _READS.match(name)):
            chosen.add(name)
        else:
            left_out.append(clean(name, 60))
    chosen = chosen if within is None else chosen & within
    if left_out:
        text = f"stages[0].tools.github; left out, because they are not known to only read: {', '.join(left_out[:20])}"
        ledger.add(path, Kind.STRICTER, text, whole=False)
    else:
        ledger.mapped(path, "stages[0].tools.github", whole=False)
    return chosen


def _server(name: str, settings: dict[str, Any], where: Path, ledger: Ledger, draft: Draft) -> None:
    inner = mapping(settings.get("mcp")) or settings
    own = slug(name, "server")
    address = _address(inner)
    allowed = words(inner.get("allowed", settings.get("allowed", [])))
    reads = sorted({tool for tool in allowed if _TOOL.match(tool) and _READS.match(tool)})
    if address is None:
        text = "a command is not started on the host: build the server as an image, and declare it under tools:"
        ledger.lost(where, text)
        return
    if own in draft.tools:
        ledger.stricter(where, f"the first server of the name {own} stands")
        return
    if not reads or inner is not settings:
        text = "no read tool is named, so the server is not connected: declare it under tools: with its read tools"
        ledger.stricter(where, text)
        return
    draft.tools[own] = address
    draft.reads[own] = reads
    ledger.mapped(where, f"tools.{own}", whole=False)
    for key, item in settings.items():
        _server_key(key, item, (*where, key), own, len(allowed) - len(reads), ledger, draft)


def _address(settings: dict[str, Any]) -> dict[str, Any] | None:
    url, image = settings.get("url"), settings.get("container")
    if isinstance(url, str) and len(url) <= 300 and "${{" not in url:
        try:
            parts = urlsplit(url)
            good = parts.scheme == "https" and not (parts.username or parts.query or parts.fragment)
            good = good and host_problem(parts.hostname or "", wildcard=False) is None
        except ValueError:
            good = False
        return {"url": url, "transport": "http"} if good else None
    if isinstance(image, str) and "${{" not in image:
        version = settings.get("version")
        full = f"{image}:{version}" if isinstance(version, str | int | float) and ":" not in image else image
        return {"image": full, "transport": "stdio"} if _IMAGE.match(full) else None
    return None


def _server_key(key: str, item: Any, path: Path, own: str, left_out: int, ledger: Ledger, draft: Draft) -> None:
    match key:
        case "url" | "type" | "transport":
            ledger.mapped(path, f"tools.{own}")
        case "container" | "version":
            ledger.approximated(path, f"tools.{own}.image; pin it by digest")
        case "allowed" if left_out:
            text = f"stages[0].tools.{own}, without {left_out} that may write: declare an output with sink kind mcp"
            ledger.stricter(path, text)
        case "allowed":
            ledger.mapped(path, f"stages[0].tools.{own}")
        case "headers" | "env":
            found = _SECRET.findall(str(item)[:10_000])
            if found:
                draft.tools[own]["secret"] = draft.secret(f"tool_{own}", found[0])
            text = f"tools.{own}.secret; other values are not passed" if found else "not passed to the server"
            ledger.add(path, Kind.APPROXIMATED if found else Kind.NONE, text)
        case "network":
            rules: list[dict[str, Any]] = []
            for inner, value in mapping(item).items():
                if inner == "allowed":
                    rules = read_allowed(value, (*path, inner), ledger, Draft(name=own))
            draft.tools[own]["egress"] = rules
        case "args" | "entrypointArgs" | "entrypoint" | "mounts" | "registry" | "required":
            ledger.lost(path, "not passed: build it into the image, or look at the server's own address")
        case _:
            pass  # the ledger takes it for a restriction

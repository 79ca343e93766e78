"""Triggers: nothing starts a run by itself here. What decides *who* may start one is a restriction."""

from __future__ import annotations

from typing import Any

from sandbox.importer.draft import Draft
from sandbox.importer.notes import Kind, Ledger

_OUTSIDE = "no event starts a run: a person or a scheduler calls `casemate run`, and can ask for the same first"
_EVENT = f"{_OUTSIDE}; give what the event carried as an input"

RESTRICTIONS: dict[str, str] = {
    "roles": "check the role of who asks before you call `casemate run`",
    "bots": "check who asks before you call `casemate run`",
    "skip-roles": "check the role of who asks before you call `casemate run`",
    "skip-bots": "check who asks before you call `casemate run`",
    "skip-author-associations": "check who wrote the item before you call `casemate run`",
    "skip-if-match": "make this search before you call `casemate run`",
    "skip-if-no-match": "make this search before you call `casemate run`",
    "skip-if-check-failing": "look at the checks before you call `casemate run`",
    "stop-after": "end the schedule that calls `casemate run` at this time",
    "cooldown": "keep this distance between runs where you start them",
    "steps": "run these checks before you call `casemate run`",
    "needs": "run these jobs before you call `casemate run`",
    "permissions": "these belong to checks before the run; give them to whatever makes the checks",
}
COURTESIES: dict[str, str] = {
    "reaction": "nothing is posted when a run starts",
    "status-comment": "nothing is posted when a run starts or ends; see `casemate show`",
    "stale-check": "the plan's digest is checked instead",
}
TOKENS = frozenset({"github-token", "github-app"})
PUBLIC = frozenset(
    {
        "issues", "issue_comment", "pull_request", "pull_request_target", "pull_request_review", "discussion",
        "pull_request_review_comment", "discussion_comment", "slash_command", "command", "label_command", "fork",
        "watch",
    }
)  # fmt: skip
_INNER = {
    "lock-for-agent": "the item is not locked; see that nobody changes it during a run",
    "forks": "look where the branch comes from before you call `casemate run`",
    "max-stack": "look at the place in the stack before you call `casemate run`",
}


def read_on(value: Any, ledger: Ledger, draft: Draft) -> None:
    """Note `on:` and everything below it."""
    path = ("on",)
    if not isinstance(value, dict):
        ledger.stricter(path, _EVENT)
        events = {str(item).split(" ", 1)[0] for item in (value if isinstance(value, list) else [value])}
        _implied_roles(events, ledger)
        return
    for key, item in value.items():
        _trigger(key, item, ledger, draft)
    if "roles" not in value:
        _implied_roles(set(value), ledger)


def _trigger(key: str, item: Any, ledger: Ledger, draft: Draft) -> None:
    where = ("on", key)
    if key in RESTRICTIONS:
        ledger.blocked(where, RESTRICTIONS[key])
    elif key in COURTESIES:
        ledger.lost(where, COURTESIES[key])
    elif key in TOKENS:
        ledger.stricter(where, "no token is used before a run")
    elif key == "manual-approval":
        draft.hold_all.append("the original asks for an approval")
        text = "every write is held for a person (approval: always): after the agent has run, not before"
        ledger.approximated(where, text)
    elif key in ("workflow_dispatch", "workflow_call", "repository_dispatch"):
        ledger.stricter(where, "`casemate run` is the only way to start; give its inputs under inputs:")
    elif isinstance(item, dict) and item.keys() & _INNER.keys():
        for inner in item:
            if inner in _INNER:
                ledger.blocked((*where, inner), _INNER[inner])
            else:
                ledger.stricter((*where, inner), _OUTSIDE)
    else:
        ledger.stricter(where, _EVENT)


def _implied_roles(events: set[str], ledger: Ledger) -> None:
    if events & PUBLIC:
        text = (
            "by default only the roles admin, maintainer and write start the original; "
            "whoever starts runs for others has to check that"
        )
        ledger.implied(("on", "roles"), Kind.STRICTER, text)
    if events & {"pull_request", "pull_request_review"}:
        text = "the original refuses pull requests from forks; here nothing starts by itself"
        ledger.implied(("on", "pull_request", "forks"), Kind.STRICTER, text)

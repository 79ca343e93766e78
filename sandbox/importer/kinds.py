"""Kinds: every safe output of gh-aw as a table row, and the fields that an agent may fill in.

`api` is the path of GitHub's REST API that takes the record as it is; where there is none, a receiver of yours has to
act on it. `{number}` is the item that the original fixes by `target`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TITLE = {"type": "string", "minLength": 1, "maxLength": 256}
BODY = {"type": "string", "minLength": 1, "maxLength": 65_000}
LABELS = {"type": "array", "maxItems": 20, "uniqueItems": True, "items": {"type": "string", "maxLength": 50}}
USERS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 20,
    "uniqueItems": True,
    "items": {"type": "string", "maxLength": 60},
}
SHORT = {"type": "string", "minLength": 1, "maxLength": 200}
NUMBER = {"type": "integer", "minimum": 1}
PATCH = {"type": "string", "minLength": 1, "maxLength": 4_194_304}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputKind:
    """One safe output. `names`: the field that `allowed` limits. `targeted`: the original ties it to one item."""

    fields: dict[str, Any]
    required: tuple[str, ...]
    most: int = 1
    api: str = ""
    sink: str = "http"
    names: str = ""
    targeted: bool = False
    approval: str = "never"
    enabled_by_key: tuple[str, ...] = field(default=())


def _enum(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


_TITLED = {"title": TITLE, "body": BODY}
_REASON = {"reason": _enum("spam", "abuse", "off_topic", "outdated", "resolved")}
_OPERATION = {"operation": _enum("append", "prepend", "replace")}
_ISSUE = "issues/{number}"
_PULL = "pulls/{number}"

KINDS: dict[str, OutputKind] = {
    "create-issue": OutputKind(
        fields={**_TITLED, "labels": LABELS, "assignees": USERS}, required=("title", "body"), api="issues",
        names="labels",
    ),
    "update-issue": OutputKind(
        fields={"state": _enum("open", "closed"), **_TITLED, **_OPERATION},
        required=(), targeted=True, approval="on_hold", enabled_by_key=("status", "title", "body"),
    ),
    "close-issue": OutputKind(
        fields={"body": BODY, "state_reason": _enum("completed", "not_planned")},
        required=("body",), targeted=True, approval="on_hold",
    ),
    "link-sub-issue": OutputKind(
        fields={"parent_issue_number": NUMBER, "sub_issue_number": NUMBER},
        required=("parent_issue_number", "sub_issue_number"),
    ),
    "create-discussion": OutputKind(fields={**_TITLED, "category": SHORT}, required=("title", "body")),
    "update-discussion": OutputKind(
        fields={**_TITLED, "labels": LABELS}, required=(), targeted=True, names="labels", approval="on_hold",
        enabled_by_key=("title", "body", "labels"),
    ),
    "close-discussion": OutputKind(
        fields={"body": BODY, "reason": _enum("RESOLVED", "DUPLICATE", "OUTDATED", "ANSWERED")},
        required=("body",), targeted=True, approval="on_hold",
    ),
    "create-pull-request": OutputKind(
        fields={**_TITLED, "patch": PATCH}, required=("title", "body", "patch"), sink="git", approval="on_hold",
    ),
    "update-pull-request": OutputKind(
        fields={**_TITLED, **_OPERATION}, required=(), targeted=True, approval="on_hold"
    ),
    "close-pull-request": OutputKind(
        fields={"body": BODY}, required=("body",), most=10, targeted=True, approval="on_hold"
    ),
    "merge-pull-request": OutputKind(fields={"reason": BODY}, required=("reason",), targeted=True, approval="always"),
    "push-to-pull-request-branch": OutputKind(
        fields={"title": TITLE, "patch": PATCH}, required=("title", "patch"), sink="git", targeted=True,
        approval="on_hold",
    ),
    "create-pull-request-review-comment": OutputKind(
        fields={"path": SHORT, "line": NUMBER, "side": _enum("LEFT", "RIGHT"), "body": BODY, "commit_id": SHORT},
        required=("path", "line", "body"), most=10, api=f"{_PULL}/comments", targeted=True,
    ),
    "submit-pull-request-review": OutputKind(
        fields={"body": BODY, "event": _enum("APPROVE", "REQUEST_CHANGES", "COMMENT")},
        required=("body", "event"), api=f"{_PULL}/reviews", targeted=True, names="event", approval="on_hold",
    ),
    "reply-to-pull-request-review-comment": OutputKind(
        fields={"comment_id": NUMBER, "body": BODY}, required=("comment_id", "body"), most=10, targeted=True
    ),
    "resolve-pull-request-review-thread": OutputKind(
        fields={"thread_id": SHORT}, required=("thread_id",), most=10, targeted=True
    ),
    "add-comment": OutputKind(fields={"body": BODY}, required=("body",), api=f"{_ISSUE}/comments", targeted=True),
    "hide-comment": OutputKind(fields={"comment_id": SHORT, **_REASON}, required=("comment_id", "reason"), most=5),
    "add-labels": OutputKind(
        fields={"labels": LABELS}, required=("labels",), most=3, api=f"{_ISSUE}/labels", names="labels", targeted=True
    ),
    "remove-labels": OutputKind(
        fields={"labels": LABELS}, required=("labels",), most=3, names="labels", targeted=True
    ),
    "add-reviewer": OutputKind(
        fields={"reviewers": USERS}, required=("reviewers",), most=3, api=f"{_PULL}/requested_reviewers",
        names="reviewers", targeted=True,
    ),
    "assign-milestone": OutputKind(
        fields={"milestone": SHORT}, required=("milestone",), names="milestone", targeted=True
    ),
    "assign-to-agent": OutputKind(fields={"agent": SHORT}, required=("agent",), names="agent", targeted=True,
                                  approval="always"),
    "assign-to-user": OutputKind(
        fields={"assignees": USERS}, required=("assignees",), api=f"{_ISSUE}/assignees",
        names="assignees", targeted=True,
    ),
    "unassign-from-user": OutputKind(
        fields={"assignees": USERS}, required=("assignees",), names="assignees", targeted=True
    ),
    "create-project": OutputKind(fields={"title": TITLE}, required=("title",), approval="on_hold"),
    "update-project": OutputKind(
        fields={"project": SHORT, "content_number": NUMBER, "fields": {"type": "object", "maxProperties": 20,
                "additionalProperties": {"type": ["string", "number"], "maxLength": 500}}},
        required=("project",), most=10, approval="on_hold",
    ),
    "create-project-status-update": OutputKind(
        fields={"project": SHORT, "body": BODY,
                "status": _enum("ON_TRACK", "AT_RISK", "OFF_TRACK", "COMPLETE", "INACTIVE")},
        required=("project", "body"),
    ),
    "update-release": OutputKind(
        fields={"tag": SHORT, **_OPERATION, "body": BODY}, required=("tag", "operation", "body"), approval="on_hold"
    ),
    "upload-asset": OutputKind(
        fields={"name": {"type": "string", "pattern": r"^[A-Za-z0-9_-]{1,100}\.[a-z0-9]{1,10}$"},
                "content_base64": {"type": "string", "maxLength": 13_981_016}},
        required=("name", "content_base64"), most=10, names="name",
    ),
    "dispatch-workflow": OutputKind(
        fields={"workflow": SHORT, "inputs": {"type": "object", "maxProperties": 25,
                "additionalProperties": {"type": "string", "maxLength": 2000}}},
        required=("workflow",), names="workflow", approval="on_hold",
    ),
    "create-code-scanning-alert": OutputKind(
        fields={"file": SHORT, "line": NUMBER, "severity": _enum("error", "warning", "info", "note"), "message": BODY},
        required=("file", "line", "severity", "message"), most=100,
    ),
    "autofix-code-scanning-alert": OutputKind(
        fields={"alert_number": NUMBER, "fix": BODY}, required=("alert_number", "fix"), most=10, approval="on_hold"
    ),
    "create-agent-session": OutputKind(fields={"body": BODY}, required=("body",), approval="always"),
}  # fmt: skip

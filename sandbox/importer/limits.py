"""Limits: the settings of one safe output. What a schema can say, it says; what it cannot, a person looks at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from policies.events import clean
from sandbox.importer.draft import Output
from sandbox.importer.kinds import OutputKind
from sandbox.importer.notes import Ledger
from sandbox.importer.patches import OF_NEW, READERS
from sandbox.importer.patterns import glob, literal
from sandbox.importer.source import plain, words
from sandbox.language.findings import Path

MOST = 10_000
_HELD = "cannot be seen in a proposal: each is held for a person (approval: always), who looks at the item first"

# settings that speak of the item's present state, or that ask for a person
HOLD: dict[str, str] = {
    "required-labels": _HELD,
    "required-title-prefix": _HELD,
    "required-category": _HELD,
    "parent-required-labels": _HELD,
    "parent-title-prefix": _HELD,
    "sub-required-labels": _HELD,
    "sub-title-prefix": _HELD,
    "reviewers": "asks for a review: each is held for a person (approval: always); name reviewers in the forge",
    "team-reviewers": "asks for a review: each is held for a person (approval: always); name reviewers in the forge",
    "staged": "each is held for a person (approval: always); `casemate run --dry-run` applies nothing",
    "allowed-domains": "links are scanned, but not against this list: each is held for a person (approval: always)",
    "allowed-github-references": "references are not rewritten: each is held for a person (approval: always)",
}
NARROWER: dict[str, str] = {
    "allowed-repos": "one repository only: that of the sink",
    "allowed-branches": "the agent does not choose the branch: the sink's stands",
    "allowed-base-branches": "the agent does not choose the base: the sink's stands",
    "branch-prefix": "the agent does not choose the branch: the sink's stands",
    "preserve-branch-name": "the agent does not choose the branch: the sink's stands",
    "recreate-ref": "a branch is never replaced",
    "stacked": "one pull request does not build on another",
    "head-repo": "one repository only: that of the sink",
    "github-app": "no token is minted; the sink's secret stands in",
}
COURTESIES: dict[str, str] = {
    "expires": "nothing is closed after a time; close it yourself",
    "close-older-issues": "nothing older is closed",
    "close-older-discussions": "nothing older is closed",
    "close-older-key": "nothing older is closed",
    "hide-older-comments": "nothing older is hidden",
    "group": "issues are not grouped under a parent",
    "footer": "nothing is appended to what the agent proposes",
    "if-no-changes": "without a proposal the stage ends as noop or incomplete",
    "fallback-as-issue": "nothing is written in the place of what failed",
    "fallback-to-issue": "nothing is written in the place of what failed",
    "auto-close-issue": "closing words are written by the agent, or not at all",
    "normalize-closing-keywords": "text is written as it was approved",
    "discussion": "name the item in the sink's address",
    "discussions": "name the item in the sink's address",
    "issues": "name the item in the sink's address",
    "pull-requests": "name the item in the sink's address",
    "create-issue": "nothing is posted about missing things",
    "views": "create views by hand",
    "project": "the agent names it in the field project",
    "name": "the agent names it in its field",
    "commit-title-suffix": "text is written as it was approved",
    "signed-commits": "sign in the forge, or where the sink's account is set up",
    "github-token-for-extra-empty-commit": "start checks of the branch by hand",
    "reply-to-id": "the agent cannot choose a thread",
    "branch": "name it in the receiver",
}


class LimitReader:
    """Reads the settings of one safe output into its schema, quota and approval."""

    def __init__(self, key: str, kind: OutputKind, output: Output, ledger: Ledger, where: Path) -> None:
        self.key, self.kind, self.output, self.ledger, self.where = key, kind, output, ledger, where
        own = list(kind.fields)
        self.counted = own == [kind.names] and kind.fields[kind.names].get("type") == "array"

    def read(self, settings: dict[str, Any], *, written: bool) -> None:
        """Note every setting. `written`: they stand in the file as keys, and are not a short form."""
        if self.counted:
            self._most(self.kind.most)
        for key, value in settings.items():
            self._setting(key, value, (*self.where, key) if written else self.where)

    def _setting(self, key: str, value: Any, path: Path) -> None:
        readers: dict[str, Callable[[Any, Path], None]] = {
            "max": self._max, "title-prefix": self._title_prefix, "labels": self._labels, "assignees": self._attached,
            "allowed": self._allowed, "allowed-labels": self._allowed, "allowed-events": self._allowed,
            "allowed-reasons": self._reasons, "workflows": self._allowed, "blocked": self._refused,
            "target": self._target, "target-repo": self._target_repo, "draft": self._draft, "category": self._category,
            "side": self._side, "base-branch": self._base, "allowed-exts": self._extensions,
        }  # fmt: skip
        patches = (READERS if self.kind.targeted else READERS | OF_NEW) if self.kind.sink == "git" else {}
        if key in patches:
            patches[key](self.output, value, path, self.ledger)
        elif key == self.kind.names and key in ("reviewers", "workflow", "agent", "name", "milestone"):
            self._allowed(value, path)
        elif key in self.kind.enabled_by_key and not (key == "labels" and isinstance(value, list)):
            self.ledger.mapped(path, "a field of the schema" if value is not False else "not a field of the schema")
        elif key in ("title", "body") and isinstance(value, bool):
            if not value:
                self.output.properties.pop(key, None)
            self.ledger.mapped(path, "whether it is a field of the schema")
        elif key in readers:
            readers[key](value, path)
        elif key in HOLD:
            self._hold(key, path, HOLD[key])
        elif key in NARROWER:
            self.ledger.stricter(path, NARROWER[key])
        elif key in COURTESIES:
            self.ledger.lost(path, COURTESIES[key])
        elif key in ("github-token", "head-github-token", "head-github-app"):
            self.ledger.approximated(path, "the sink's secret, which only customs holds, and no other destination gets")

    def _hold(self, reason: str, path: Path, text: str) -> None:
        self.output.hold.append(reason)
        self.ledger.approximated(path, text)

    def _most(self, most: int) -> None:
        self.output.per_run = 1
        self.output.properties[self.kind.names]["maxItems"] = most

    def _max(self, value: Any, path: Path) -> None:
        if type(value) is int and 0 < value <= MOST:
            if self.counted:
                self._most(value)
                self.ledger.mapped(path, "maxItems of the schema; one proposal a run")
            else:
                self.output.per_run = value
                self.ledger.mapped(path, "quota.per_run")
        elif type(value) is int and (value < 0 or value > MOST):
            self.ledger.stricter(path, f"there is always a quota: {self.output.per_run} a run")
        else:
            self.ledger.blocked(
                path, f"not a number above 0; quota.per_run is {self.output.per_run}: see that it is right"
            )

    def _title_prefix(self, value: Any, path: Path) -> None:
        if not isinstance(value, str) or not plain(value):
            self.ledger.blocked(path, "not a fixed text: write the pattern of title into the schema")
        elif "title" in self.output.properties:
            self.output.properties["title"]["pattern"] = "^" + literal(value)
            self.output.properties["title"].pop("minLength", None)
            self.ledger.approximated(
                path, "a pattern of the schema: the agent writes it itself, or the write is refused"
            )
        else:
            self._hold("title-prefix", path, _HELD)

    def _labels(self, value: Any, path: Path) -> None:
        if "labels" in self.output.properties:
            self._attached(value, path)
        else:
            self._hold("labels", path, _HELD)

    def _attached(self, value: Any, path: Path) -> None:
        field = str(path[-1])
        if field not in self.output.properties or not plain(value):
            self.ledger.lost(path, f"not attached: name them in the schema's field {clean(field, 40)}")
            return
        self.output.properties[field] = {"const": words(value)}
        if field not in self.output.required:
            self.output.required.append(field)
        self.ledger.approximated(path, "fixed by the schema: the agent writes exactly these")

    def _allowed(self, value: Any, path: Path) -> None:
        field = self.output.properties.get(self.kind.names)
        options = list(dict.fromkeys(words(value)))
        if field is None or not plain(value) or not options or "const" in field:
            self.ledger.blocked(path, "not a list of fixed words: write them into the schema as enum")
            return
        if any(set(option) & set("*?") for option in options):
            limit: dict[str, Any] = {"pattern": "^(" + "|".join(glob(option) for option in options) + ")$"}
        else:
            limit = {"enum": options}
        if field.get("type") == "array":
            field["items"] = {"type": "string", **limit}
        else:
            field.pop("enum", None)
            field.update(limit)
        self.ledger.mapped(path, f"the schema allows only these in {self.kind.names}")

    def _refused(self, value: Any, path: Path) -> None:
        field = self.output.properties.get(self.kind.names, {})
        if not plain(value) or field.get("type") != "array":
            self.ledger.blocked(path, "not a list of fixed words: refuse them in the schema")
            return
        field["items"]["not"] = {"pattern": "^(" + "|".join(glob(word) for word in words(value)) + ")$"}
        self.ledger.mapped(path, f"the schema refuses these in {self.kind.names}")

    def _reasons(self, value: Any, path: Path) -> None:
        field = self.output.properties.get("reason")
        if field is None:
            self.ledger.stricter(path, "nothing older is hidden")
        elif plain(value) and words(value):
            field["enum"] = list(dict.fromkeys(words(value)))
            self.ledger.mapped(path, "the schema allows only these in reason")

    def _target(self, value: Any, path: Path) -> None:
        wanted = str(value)
        if wanted == "*":
            self.ledger.approximated(
                path, "the agent names the item in the field number; a receiver of yours acts on it"
            )
        elif wanted == "triggering":
            self.ledger.mapped(
                path, "write the item's number (or branch) in the place of NUMBER (or BRANCH) in the sink"
            )
        elif wanted.isascii() and wanted.isdigit() and len(wanted) < 12:
            self.ledger.mapped(path, "fixed in the sink's address")
        else:
            self.ledger.blocked(path, "an expression: write the item's number in the place of NUMBER in the sink")

    def _target_repo(self, value: Any, path: Path) -> None:
        if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}", value):
            self.ledger.mapped(path, "fixed in the sink's address")
        else:
            self.ledger.blocked(path, "not one repository: write yours in the place of OWNER/REPO in the sink")

    def _draft(self, value: Any, path: Path) -> None:
        if value is False:
            self.ledger.stricter(path, "held for a person if customs has doubts (approval: on_hold)")
        else:
            self._hold("draft", path, "drafts are for review: each is held for a person (approval: always)")

    def _category(self, value: Any, path: Path) -> None:
        if plain(value) and not isinstance(value, list) and "category" in self.output.properties:
            self.output.properties["category"] = {"const": str(value)}
            self.output.required.append("category")
            self.ledger.approximated(path, "fixed by the schema: the agent writes exactly this")

    def _side(self, value: Any, path: Path) -> None:
        if value in ("LEFT", "RIGHT") and "side" in self.output.properties:
            self.output.properties["side"] = {"const": value}
            self.ledger.mapped(path, "fixed by the schema")

    def _base(self, value: Any, path: Path) -> None:
        if isinstance(value, str) and 0 < len(value) <= 200 and plain(value):
            self.ledger.mapped(path, "sink.base")
        else:
            self.ledger.blocked(path, "an expression: write the base into the sink")

    def _extensions(self, value: Any, path: Path) -> None:
        if self.key == "upload-asset" and plain(value) and words(value):
            endings = "|".join(literal(word.removeprefix(".")) for word in words(value))
            self.output.properties["name"]["pattern"] = rf"^[A-Za-z0-9_-]{{1,100}}\.({endings})$"
            self.ledger.mapped(path, "the schema allows only these endings in name")

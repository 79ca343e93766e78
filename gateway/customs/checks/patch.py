"""Patches: one reading, within bounds, of files that may be changed; and what other checks see of them.

A patch is a text of marked lines. What is looked for in texts is looked for in what the patch adds, file by file and
without the marks: nothing else of it comes into the repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.customs.checks.base import Candidate, Check
from gateway.customs.patch import EXECUTABLE, Change, PatchError, parse
from policies.canonical import pointer
from policies.outputs import Repository
from policies.protected import matches, protected
from policies.writes import Reason

PATCH, TITLE, BODY = "patch", "title", "body"
"""The fields of a proposal."""
LONGEST_TITLE: Final = 200
_SKIPS: Final = re.compile(
    r"\[\s*(?:skip[ -](?:ci|actions)|(?:ci|actions)[ -]skip|no[ -]ci)\s*\]|skip-checks|\*{3}no_ci"
)
"""Words of a commit that switch a forge's checks off."""


class Patch:
    """Rejects a patch with more than one reading (CSM-W030), or over its bounds (CSM-W032)."""

    name = "patch"

    def __init__(self, git: Repository) -> None:
        self._git = git

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        text = (candidate.record or {}).get(PATCH)
        if not isinstance(text, str):
            yield self._reason("CSM-W030", "no text")
            return
        if len(text.encode()) > self._git.bytes:
            yield self._reason("CSM-W032", f"over {self._git.bytes} bytes")
            return
        try:
            changes = parse(text)
        except PatchError as error:
            yield self._reason("CSM-W030", str(error))
            return
        if len(changes) > self._git.files:
            yield self._reason("CSM-W032", f"over {self._git.files} files")
        if sum(change.lines for change in changes) > self._git.lines:
            yield self._reason("CSM-W032", f"over {self._git.lines} added lines")

    def _reason(self, code: str, excerpt: str) -> Reason:
        return Reason(check=self.name, code=code, pointer=f"/{PATCH}", excerpt=excerpt)


class Target:
    """Rejects a patch of files that the plan does not name, and bits that it does not allow (CSM-W031)."""

    name = "target"

    def __init__(self, git: Repository) -> None:
        self._git = git

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        for change in changes_of(candidate.record) or ():
            if self._git.paths and not matches(change.path, self._git.paths):
                yield self._reason(change.path, "a path that the plan does not name")
            if change.new_mode == EXECUTABLE and not self._git.executable:
                yield self._reason(change.path, "a file that is executable")

    def _reason(self, path: str, excerpt: str) -> Reason:
        return Reason(check=self.name, code="CSM-W031", pointer=pointer([PATCH, path]), excerpt=excerpt)


class Protected:
    """Objects (CSM-W031) to a patch of what others run, install or obey unread; the plan may let a person decide."""

    name = "protected"

    def __init__(self, git: Repository) -> None:
        self._git = git

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        for change in changes_of(candidate.record) or ():
            if protected(change.path) and not matches(change.path, self._git.unprotected):
                where = pointer([PATCH, change.path])
                yield Reason(check=self.name, code="CSM-W031", pointer=where, excerpt="a protected path")


class Title:
    """Rejects a title that is not one line, or that switches the repository's checks off (CSM-W033)."""

    name = "title"

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        title = (candidate.record or {}).get(TITLE)
        if not isinstance(title, str) or not title.strip() or not title.isprintable() or len(title) > LONGEST_TITLE:
            yield self._reason(TITLE, f"not one line of up to {LONGEST_TITLE} characters")
        for field in (TITLE, BODY):
            if _SKIPS.search(str((candidate.record or {}).get(field, "")).casefold()):
                yield self._reason(field, "words that switch checks off")

    def _reason(self, field: str, excerpt: str) -> Reason:
        return Reason(check=self.name, code="CSM-W033", pointer=f"/{field}", excerpt=excerpt)


class Over:
    """A check of what a view shows of a record."""

    def __init__(self, check: Check, view: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self.name, self._check, self._view = check.name, check, view

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        record = candidate.record
        seen = None if record is None else self._view(record)
        return self._check(Candidate(record=seen, size=candidate.size))


def patch_checks(git: Repository) -> Iterator[Check]:
    """Yield the checks of a proposal as a patch."""
    yield Patch(git)
    yield Target(git)
    yield Protected(git)
    yield Title()


def changes_of(record: Mapping[str, Any] | None) -> tuple[Change, ...] | None:
    """Return what the patch of a record changes; None where it has not one reading."""
    text = (record or {}).get(PATCH)
    try:
        return parse(text) if isinstance(text, str) else None
    except PatchError:
        return None


def words(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without its patch."""
    return {name: value for name, value in record.items() if name != PATCH}


def added(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the patch of a record adds, by path; the patch itself where it has not one reading."""
    changes = changes_of(record)
    return {PATCH: record.get(PATCH) if changes is None else {change.path: change.added for change in changes}}


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with what its patch adds in place of the patch."""
    return words(record) | added(record)

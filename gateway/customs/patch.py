"""A patch: a unified diff in git's format, with one reading or none. Pure.

Programs that apply patches are generous: they skip what they do not know, look for a place where a hunk fits, and take
names from several lines of which they believe one. This reader refuses all of that. Each file is

    diff --git a/PATH b/PATH
    [old mode M | new file mode M | deleted file mode M]  [new mode M]
    [index HEX..HEX[ M]]
    [--- a/PATH | /dev/null]  [+++ b/PATH | /dev/null]  hunks

with nothing before, between or after. Every hunk says how long it is and where it stands, and is applied there. Renames
and copies are written as what they do; links, submodules and binary files are not written at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

PLAIN: Final = "100644"
EXECUTABLE: Final = "100755"
MODES: Final = (PLAIN, EXECUTABLE)
NOTHING: Final = "/dev/null"
_NAME: Final = re.compile(r"[A-Za-z0-9._+@=,()\[\]{}#&!$-]{1,200}")
_INDEX: Final = re.compile(r"index [0-9a-f]{4,64}\.\.[0-9a-f]{4,64}(?: (100644|100755))?")
_MODE: Final = re.compile(r"(old mode|new mode|new file mode|deleted file mode) ([0-7]{1,6})")
_HUNK: Final = re.compile(
    r"@@ -(0|[1-9][0-9]{0,8})(?:,(0|[1-9][0-9]{0,8}))? \+(0|[1-9][0-9]{0,8})(?:,(0|[1-9][0-9]{0,8}))? @@(?: .*)?"
)
_NO_NEWLINE: Final = "\\ No newline at end of file"
_LONGEST: Final = 1000
"""Characters of a path."""


class PatchError(Exception):
    """A patch that has not one reading, or does not apply. `why` quotes nothing of it."""

    def __init__(self, why: str, line: int = 0) -> None:
        self.why = why
        super().__init__(f"line {line}: {why}" if line else why)


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines, each with its mark (one of " -+") and its end, that begin at `start` of the old file, counted from 0."""

    start: int
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of one file. A mode is None where the file is not there, or the patch does not say."""

    path: str
    kind: Literal["add", "delete", "modify"]
    old_mode: str | None
    new_mode: str | None
    hunks: tuple[Hunk, ...]

    @property
    def added(self) -> str:
        """The text that the patch adds to this file."""
        return "".join(text for hunk in self.hunks for mark, text in hunk.lines if mark == "+")

    @property
    def lines(self) -> int:
        """The number of lines that it adds."""
        return sum(mark == "+" for hunk in self.hunks for mark, _ in hunk.lines)


def parse(text: str) -> tuple[Change, ...]:
    """Return what a patch changes, file by file; raise `PatchError` when it has not exactly one reading."""
    if not text.endswith("\n"):
        raise PatchError("it does not end with a line")
    if "\0" in text:
        raise PatchError("it is binary")
    reader = _Reader(text[:-1].split("\n"))
    changes = []
    while reader.more():
        changes.append(_change(reader))
    _apart([change.path for change in changes])
    return tuple(changes)


def path_problem(path: str) -> str | None:
    """Return why a path is not one that every file system reads alike; None when it is."""
    parts = path.split("/")
    if len(path) > _LONGEST:
        return "a path that is too long"
    if not all(_NAME.fullmatch(part) for part in parts):
        return "a path that is absolute, quoted, or not of plain letters"
    if any(part.strip(".") == "" for part in parts):
        return "a path that leads elsewhere"
    if any(part.endswith(".") for part in parts):
        return "a name that ends with a dot"
    if ".git" in [part.casefold() for part in parts]:
        return "a path into .git"
    return None


def applied(change: Change, old: bytes | None) -> bytes | None:
    """Return what a file is after a change, `old` being what it was; None where there is none.

    Raise `PatchError` where the old file is not, at the very lines, what the patch says it is.
    """
    if (old is None) != (change.kind == "add"):
        raise PatchError("a file that is added is there" if old is not None else "a file is not there")
    before = re.findall(rb"[^\n]*\n|[^\n]+", old or b"")
    after: list[bytes] = []
    at = 0
    for hunk in change.hunks:
        if hunk.start > len(before):
            raise PatchError("a hunk stands behind the end of its file")
        after += before[at : hunk.start]
        at = hunk.start
        for mark, text in hunk.lines:
            data = text.encode()
            if mark == "+":
                after.append(data)
                continue
            if at >= len(before) or before[at] != data:
                raise PatchError("the file is not what the patch says it was")
            at += 1
            if mark == " ":
                after.append(data)
    after += before[at:]
    if any(not line.endswith(b"\n") for line in after[:-1]):
        raise PatchError("a line without an end in the middle of a file")
    if change.kind == "delete":
        if after:
            raise PatchError("a file that is deleted has more lines")
        return None
    return b"".join(after)


class _Reader:
    """The lines of a patch, one after the other."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines, self.at = lines, 0

    def more(self) -> bool:
        return self.at < len(self._lines)

    def peek(self) -> str:
        """Return the next line; an empty text when there is none."""
        return self._lines[self.at] if self.more() else ""

    def next(self) -> str:
        line = self.peek()
        self.at += 1
        return line

    def wrong(self, why: str) -> PatchError:
        return PatchError(why, self.at)


def _change(reader: _Reader) -> Change:
    path = _path(reader)
    kind, old_mode, new_mode = _modes(reader)
    found = _INDEX.fullmatch(reader.peek())
    if found:
        reader.next()
        if found.group(1) is not None:
            if kind != "modify" or new_mode is not None:
                raise reader.wrong("a mode that is said twice")
            old_mode = found.group(1)
    hunks: tuple[Hunk, ...] = ()
    if reader.peek().startswith("--- "):
        wanted = (NOTHING if kind == "add" else f"a/{path}", NOTHING if kind == "delete" else f"b/{path}")
        if (reader.next(), reader.next()) != (f"--- {wanted[0]}", f"+++ {wanted[1]}"):
            raise reader.wrong("two names for one file")
        hunks = tuple(_hunks(reader))
    elif kind == "modify" and new_mode is None:
        raise reader.wrong(_unread(reader.peek()))
    _whole(reader, kind, hunks)
    return Change(path=path, kind=kind, old_mode=old_mode, new_mode=new_mode, hunks=hunks)


def _path(reader: _Reader) -> str:
    head, _, rest = reader.next().partition("diff --git a/")
    path = rest[: (len(rest) - len(" b/")) // 2]
    if head or rest != f"{path} b/{path}":
        raise reader.wrong("not the first line of a file, with one plain name: diff --git a/PATH b/PATH")
    if problem := path_problem(path):
        raise reader.wrong(problem)
    return path


def _modes(reader: _Reader) -> tuple[Literal["add", "delete", "modify"], str | None, str | None]:
    found = _MODE.fullmatch(reader.peek())
    if found is None:
        return "modify", None, None
    reader.next()
    word, mode = found.groups()
    if mode not in MODES:
        raise reader.wrong("a mode that is no plain file's: a link, a submodule, or other bits")
    if word == "new file mode":
        return "add", None, mode
    if word == "deleted file mode":
        return "delete", mode, None
    changed = _MODE.fullmatch(reader.next())
    if word != "old mode" or changed is None or changed.group(1) != "new mode":
        raise reader.wrong("an old mode without a new one")
    if changed.group(2) not in MODES or changed.group(2) == mode:
        raise reader.wrong("a mode that is no plain file's: a link, a submodule, or other bits")
    return "modify", mode, changed.group(2)


def _hunks(reader: _Reader) -> Iterator[Hunk]:
    ahead = shift = 0
    ended = {"-": False, "+": False}
    while not ended["-"] or not ended["+"]:
        found = _HUNK.fullmatch(reader.peek())
        if found is None:
            break
        reader.next()
        old_at, old_count, new_at, new_count = (1 if part is None else int(part) for part in found.groups())
        start = old_at - 1 if old_count else old_at
        if start < ahead or (new_at - 1 if new_count else new_at) != start + shift:
            raise reader.wrong("a hunk that stands elsewhere than it says")
        yield Hunk(start, tuple(_body(reader, old_count, new_count, ended)))
        ahead, shift = start + old_count, shift + new_count - old_count
    if not ahead and not shift:
        raise reader.wrong(_unread(reader.peek()))


def _body(reader: _Reader, old_count: int, new_count: int, ended: dict[str, bool]) -> Iterator[tuple[str, str]]:
    """Yield the lines of a hunk. `ended`: the sides of which a line without an end was read."""
    left = {"-": old_count, "+": new_count}
    changes = False
    while left["-"] or left["+"]:
        line = reader.next()
        mark = line[:1]
        sides = {" ": "-+", "-": "-", "+": "+"}.get(mark, "")
        if not sides or any(not left[side] or ended[side] for side in sides):
            raise reader.wrong("a hunk that is not as long as it says")
        for side in sides:
            left[side] -= 1
        end = "\n"
        if reader.peek() == _NO_NEWLINE:
            reader.next()
            end = ""
            ended.update(dict.fromkeys(sides, True))
        changes = changes or mark != " "
        yield mark, line[1:] + end
    if not changes:
        raise reader.wrong("a hunk that changes nothing")


def _whole(reader: _Reader, kind: str, hunks: tuple[Hunk, ...]) -> None:
    """Hold that a file comes or goes as a whole."""
    mark = {"add": "+", "delete": "-"}.get(kind)
    if mark and (len(hunks) > 1 or any(other != mark for hunk in hunks for other, _ in hunk.lines)):
        raise reader.wrong("a file that is added, or deleted, in part")


def _unread(line: str) -> str:
    """Return what is wrong with a line that should begin the hunks of a file."""
    for begin, why in {
        "rename ": "a rename: write it as one file deleted and one added",
        "copy ": "a copy: write it as a file added",
        "similarity ": "a rename or copy: write it as what it does",
        "GIT binary": "it is binary",
        "Binary files": "it is binary",
    }.items():
        if line.startswith(begin):
            return why
    return "a line that is no part of a patch, or a file without a change"


def _apart(paths: Sequence[str]) -> None:
    """Hold that no file stands twice, in whatever case, and that none is another one's folder."""
    folded = [path.casefold() for path in paths]
    if len(set(folded)) != len(folded):
        raise PatchError("one file twice")
    folders = {"/".join(parts[:n]) for parts in (path.split("/") for path in folded) for n in range(1, len(parts))}
    if not folders.isdisjoint(folded):
        raise PatchError("a file and a folder of one name")

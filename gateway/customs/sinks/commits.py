"""From a proposal to a commit: the same one whoever makes it and whenever, on the same parent.

What a patch means is read twice: by us, who write the new files ourselves, and by `git apply`, over an index and no
work tree. Each makes a tree; where the two are not the same object, nothing is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from gateway.customs.patch import MODES, Change, PatchError, applied, parse
from gateway.customs.sinks.plumbing import GitFailed, Plumbing
from policies.base import RUN_TIME
from policies.canonical import digest
from policies.outputs import Repository
from policies.sinks import Batch

KEY = "Casemate-Key"
_KEY_LENGTH = 32
Listing = Mapping[str, tuple[str, str]]
"""Mode and object of every file of a tree, by path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One row of a batch: `branch` has its key in its name."""

    number: int
    key: str
    branch: str
    title: str
    body: str
    patch: str


def proposals(batch: Batch, git: Repository) -> list[Proposal]:
    """Return the rows of a batch."""
    found = []
    for number, row in enumerate(batch.rows.read_bytes().removesuffix(b"\n").split(b"\n")):
        record: dict[str, str] = msgspec.json.decode(row)
        key = digest(f"{batch.key}/{number}".encode()).removeprefix("sha256:")
        branch = f"{git.prefix}{key[:_KEY_LENGTH]}"
        texts = {"title": record["title"], "body": record.get("body", ""), "patch": record["patch"]}
        found.append(Proposal(number=number, key=key, branch=branch, **texts))
    return found


def commit(plumbing: Plumbing, proposal: Proposal, git: Repository, run: str, parent: str) -> str:
    """Make the commit of a proposal on a parent, and return its id; raise `GitFailed` when the patch does not fit."""
    try:
        changes = parse(proposal.patch)
        listing = _listing(plumbing, parent)
        _fit(changes, listing)
        ours = _ours(plumbing, changes, listing, parent)
    except PatchError as error:
        raise GitFailed(f"proposal {proposal.number} does not fit {git.base}: {error}") from error
    theirs = _theirs(plumbing, proposal.patch.encode(), parent)
    if ours != theirs:
        raise GitFailed(f"proposal {proposal.number} means something else to git")
    if ours == _word(plumbing.run("rev-parse", "--verify", f"{parent}^{{tree}}")):
        raise GitFailed(f"proposal {proposal.number} changes nothing")
    when = f"{int(datetime.strptime(run[:15], RUN_TIME).replace(tzinfo=UTC).timestamp())} +0000"
    who = {
        f"GIT_{role}_{field}": value
        for role in ("AUTHOR", "COMMITTER")
        for field, value in (("NAME", git.author), ("EMAIL", git.email), ("DATE", when))
    }
    message = f"{proposal.title}\n\nCasemate-Run: {run}\n{KEY}: {proposal.key}\n"
    return _word(plumbing.run("commit-tree", ours, "-p", parent, text=message.encode(), **who))


def _listing(plumbing: Plumbing, parent: str) -> Listing:
    found = {}
    for entry in (
        plumbing.run("ls-tree", "-r", "-z", "--full-tree", parent).decode(errors="surrogateescape").split("\0")
    ):
        head, _, path = entry.partition("\t")
        if path:
            mode, _, name = head.split(" ")
            found[path] = (mode, name)
    return found


def _fit(changes: Sequence[Change], listing: Listing) -> None:
    """Hold that files are plain and of the modes that the patch says, and that nothing collides on any file system."""
    spelled = {whole.casefold(): whole for path in listing for whole in _with_folders(path)}
    for change in changes:
        mode = listing[change.path][0] if change.path in listing else None
        if change.kind == "add":
            for whole in _with_folders(change.path):
                there = spelled.get(whole.casefold())
                if there is not None and (there != whole or whole in listing or whole == change.path):
                    raise PatchError("a new file collides with one that is there")
        elif mode is None:
            raise PatchError("a file is not there")
        elif mode not in MODES or change.old_mode not in (None, mode):
            raise PatchError("a file is not of the mode that the patch says")


def _with_folders(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts) + 1))


def _ours(plumbing: Plumbing, changes: Sequence[Change], listing: Listing, parent: str) -> str:
    """Write the new files by our own reading, and return the tree."""
    entries = []
    for change in changes:
        old = None if change.kind == "add" else plumbing.run("cat-file", "blob", listing[change.path][1])
        new = applied(change, old)
        if new is None:
            entries.append(f"0 {'0' * len(parent)}\t{change.path}")
            continue
        name = _word(plumbing.run("hash-object", "-w", "--stdin", text=new))
        mode = change.new_mode or listing[change.path][0]
        entries.append(f"{mode} {name}\t{change.path}")
    plumbing.run("read-tree", parent, index="ours")
    plumbing.run("update-index", "-z", "--index-info", text="".join(f"{e}\0" for e in entries).encode(), index="ours")
    return _word(plumbing.run("write-tree", "--missing-ok", index="ours"))


def _theirs(plumbing: Plumbing, patch: bytes, parent: str) -> str:
    """Let git read the patch, and return the tree."""
    plumbing.run("read-tree", parent, index="theirs")
    plumbing.run("apply", "--cached", "--whitespace=nowarn", "-", text=patch, index="theirs")
    return _word(plumbing.run("write-tree", "--missing-ok", index="theirs"))


def _word(line: bytes) -> str:
    return line.decode().strip()

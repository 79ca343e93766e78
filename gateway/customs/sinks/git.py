"""A repository: each proposal is one commit on a branch of its own, and perhaps a pull request.

The name of a branch has the key of its proposal, and its commit is the same one whoever makes it. So whoever comes
after a crash finds what is there: the branch, which must be the commit that we would make on its parent, and the pull
request of that branch. All branches are pushed at once or none is, and only where none is; the base is never pushed to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from gateway.customs.sinks.commits import Proposal, commit, proposals
from gateway.customs.sinks.forges import FORGES
from gateway.customs.sinks.forges.base import Forge, ForgeFailed, Pull
from gateway.customs.sinks.plumbing import GitFailed, Plumbing, opened
from gateway.customs.sinks.web import client
from policies.canonical import canonical
from policies.errors import CasemateError
from policies.outputs import Repository
from policies.plan import Output
from policies.sinks import At, Batch, Moment, kept
from policies.slices import api_door, sink_door

_SHALLOW = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--filter=blob:none")


class Made(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of one proposal."""

    branch: str
    commit: str
    pull: int | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of a batch."""

    proposals: list[Made]


class GitSink:
    """One repository."""

    tells, repeats = True, True

    def __init__(self, output: Output, secret: str | None, trust: list[str], root: Path, run: str) -> None:
        if output.git is None:
            raise CasemateError("CSM-R010", "a sink git without what a patch may be")
        self._git: Repository = output.git
        self._output, self._secret, self._trust, self._run = output, secret, trust, run
        self._door = root / "doors" / sink_door(output.name)
        self._forge: Forge | None = None
        if (pull := output.git.pull_request) is not None:
            forge = FORGES[pull.forge]
            client_of = partial(client, output, secret, trust, root, api_door(output.name), forge.scheme)
            self._forge = forge(pull, output.git.user, client_of)

    def find(self, batch: Batch) -> str | None:
        """Return the receipt of a batch of which every proposal is there as a whole."""
        with self._opened() as plumbing:
            wanted = proposals(batch, self._git)
            pulls = self._pulls(wanted)
            if self._forge is not None and not all(self._whole(pulls.get(p.branch)) for p in wanted):
                return None
            commits = self._there(plumbing, wanted, pulls)
            missing = self._forge is None and len(commits) < len(wanted)
            return None if missing else _receipt(wanted, commits, pulls)

    def apply(self, batch: Batch, at: At) -> str:
        """Push what is not there, all at once; then open what is not open."""
        with self._opened() as plumbing:
            wanted = proposals(batch, self._git)
            pulls = self._pulls(wanted)
            commits = self._there(plumbing, wanted, pulls)
            commits |= self._push(plumbing, [p for p in wanted if p.branch not in commits and p.branch not in pulls])
            with _told("CSM-W020"):
                at(Moment.SENT)
                if self._forge is not None:
                    for proposal in wanted:
                        pulls[proposal.branch] = self._offered(self._forge, proposal, pulls.get(proposal.branch), at)
        return _receipt(wanted, commits, pulls)

    def undo(self, _batch: Batch, receipt: str) -> None:
        """Close the pull requests and delete the branches, where nobody merged the one or added to the other."""
        made = msgspec.json.decode(receipt, type=Receipt).proposals
        with self._opened() as plumbing:
            heads = self._heads(plumbing, [one.branch for one in made])
            pulls = {one.branch: self._forge.get(one.pull) for one in made if self._forge and one.pull is not None}
            for one in made:
                if one.branch in pulls and pulls[one.branch].state == "merged":
                    raise kept(f"pull request {one.pull} is merged")
                if heads.get(one.branch, one.commit) != one.commit:
                    raise kept(f"somebody has added to {one.branch}")
            for pull in pulls.values():
                if self._forge is not None and pull.state == "open":
                    self._forge.close(pull.number)
            gone = [one for one in made if one.branch in heads]
            leases = [f"--force-with-lease=refs/heads/{one.branch}:{one.commit}" for one in gone]
            if gone:
                targets = [f":refs/heads/{one.branch}" for one in gone]
                with _told("CSM-W020"):
                    plumbing.run("push", "--porcelain", "--atomic", *leases, "origin", *targets)

    @contextmanager
    def _opened(self) -> Iterator[Plumbing]:
        """Open the repository. What fails in it has written nothing, unless it says otherwise."""
        place, door = self._output.target["repository"], self._door / "up.sock"
        with _told("CSM-W010"), opened(place, door, self._git.user, self._secret, self._trust) as plumbing:
            yield plumbing

    def _heads(self, plumbing: Plumbing, branches: Sequence[str]) -> dict[str, str]:
        """Return the commits of those branches that are there."""
        refs = [f"refs/heads/{branch}" for branch in branches]
        lines = plumbing.run("ls-remote", "--refs", "origin", *refs).decode().splitlines()
        found = {ref: commit for commit, _, ref in (line.partition("\t") for line in lines)}
        return {branch: found[ref] for branch, ref in zip(branches, refs, strict=True) if ref in found}

    def _pulls(self, wanted: Sequence[Proposal]) -> dict[str, Pull]:
        return self._forge.find([proposal.branch for proposal in wanted], self._git.base) if self._forge else {}

    def _there(self, plumbing: Plumbing, wanted: Sequence[Proposal], pulls: Mapping[str, Pull]) -> dict[str, str]:
        """Return the commits of branches that are there: each must be the one that we would make on its parent.

        Where there is a pull request of that branch, somebody may have added to it since; then it has none of ours.
        """
        heads = self._heads(plumbing, [proposal.branch for proposal in wanted])
        there = {proposal.branch: proposal for proposal in wanted if proposal.branch in heads}
        for branch, proposal in there.items():
            ref = "refs/casemate/there"
            plumbing.run(*_SHALLOW, "--depth=2", "origin", f"+refs/heads/{branch}:{ref}")
            if not self._ours(plumbing, proposal, heads[branch]):
                heads[branch] = ""
                if branch not in pulls:
                    raise GitFailed(f"{branch} is there, and is not ours")
        return heads

    def _ours(self, plumbing: Plumbing, proposal: Proposal, head: str) -> bool:
        parents = plumbing.run("rev-list", "--parents", "-n", "1", head).decode().split()[1:]
        try:
            return len(parents) == 1 and commit(plumbing, proposal, self._git, self._run, parents[0]) == head
        except GitFailed:
            return False

    def _push(self, plumbing: Plumbing, absent: Sequence[Proposal]) -> dict[str, str]:
        """Push a commit for each proposal onto a branch that is not there; return the commits."""
        if not absent:
            return {}
        base = "refs/casemate/base"
        plumbing.run(*_SHALLOW, "--depth=1", "origin", f"+refs/heads/{self._git.base}:{base}")
        parent = plumbing.run("rev-parse", "--verify", base).decode().strip()
        made = {p.branch: commit(plumbing, p, self._git, self._run, parent) for p in absent}
        leases = [f"--force-with-lease=refs/heads/{branch}:" for branch in made]
        targets = [f"{name}:refs/heads/{branch}" for branch, name in made.items()]
        with _told("CSM-W020"):
            plumbing.run("push", "--porcelain", "--atomic", "--no-thin", *leases, "origin", *targets)
        return made

    def _whole(self, pull: Pull | None) -> bool:
        return pull is not None and self._forge is not None and self._forge.labelled(pull)

    def _offered(self, forge: Forge, proposal: Proposal, pull: Pull | None, at: At) -> Pull:
        """Return the pull request of a proposal, with its labels; opened where there was none."""
        if pull is None:
            note = f"Proposed by an agent (run {self._run}, output {self._output.name})."
            body = f"{proposal.body}\n\n---\n{note}" if proposal.body else note
            pull = forge.open(proposal.branch, self._git.base, proposal.title, body)
            at(Moment.SENT)
        if not forge.labelled(pull):
            forge.label(pull.number)
        return pull


def _receipt(wanted: Sequence[Proposal], commits: Mapping[str, str], pulls: Mapping[str, Pull]) -> str:
    made = [
        Made(branch=p.branch, commit=commits.get(p.branch, ""), pull=pulls[p.branch].number if pulls else None)
        for p in wanted
    ]
    return canonical(msgspec.to_builtins(Receipt(proposals=made))).decode()


@contextmanager
def _told(code: str) -> Iterator[None]:
    """Tell of what fails inside by an error of `code`; what a server refused as a whole was certainly not written."""
    try:
        yield
    except GitFailed as failed:
        raise CasemateError("CSM-W010" if failed.refused else code, f"the repository: {failed.why}") from failed
    except ForgeFailed as failed:
        raise CasemateError(code, f"the forge: {failed.why}") from failed

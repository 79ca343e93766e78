"""A repository as a sink: real git over HTTPS, through a door; killed between any two steps, and everything once."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from gateway.customs.sinks.git import GitSink
from gateway.customs.sinks.plumbing import PAUSES
from policies.canonical import canonical, digest
from policies.errors import CasemateError
from policies.outputs import PullRequest, Repository
from policies.plan import Output
from policies.sinks import Batch, Moment, batch_key, pass_by, settle
from policies.slices import api_door, sink_door
from tests.authority import Authority
from tests.gateway.test_patch import GIT, change, new, output
from tests.outside_git import Project, Server, tell

TOKEN = "canary-3b1f7c0d9a"
RUN = "20260102-030405-abc123"
FILES = {
    "a.txt": "one\n",
    "run.sh": "true\n",
    "src/deep/b.py": "".join(f"line {n}\n" for n in range(50)),
    "link": "-> /etc/passwd",
    "Docs/x.md": "x\n",
    ".gitattributes": "* text eol=crlf\n*.txt filter=evil ident\n",
}
FORGE: dict[str, Literal["github", "gitlab", "gitea"]] = {"github": "github", "gitlab": "gitlab", "gitea": "gitea"}
ROW = {"title": "Say two", "body": "Because.", "patch": change()}


class Door(socketserver.ThreadingUnixStreamServer):
    """A tunnel as the firewall makes it: a Unix socket that leads to one port."""

    daemon_threads = True

    def __init__(self, path: Path, port: int) -> None:
        self.port, self.drops, self.dropped = port, 0, 0
        super().__init__(str(path), Carrier)


class Carrier(socketserver.BaseRequestHandler):
    """Carries bytes both ways."""

    def handle(self) -> None:
        assert isinstance(self.server, Door)
        if self.server.dropped < self.server.drops:
            self.server.dropped += 1
            return
        with socket.create_connection(("127.0.0.1", self.server.port)) as out:
            back = threading.Thread(target=self._copy, args=(out, self.request), daemon=True)
            back.start()
            self._copy(self.request, out)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            tell(carried=repr(error))


class World:
    """A git server with a forge, doors that lead there, and sinks behind them."""

    def __init__(self, root: Path, **config: Any) -> None:
        self.root, authority = root, Authority()
        (root / "server.pem").write_bytes(authority.server(["git.example.com", "api.example.com"]))
        settings = {"token": TOKEN, "projects": {"acme/app": FILES}, **config}
        self.server = Server(root / "git", ("127.0.0.1", 0), root / "server.pem", settings)
        self.project: Project = self.server.projects["acme/app"]
        self.trust = [authority.pem.decode()]
        self._threads: list[socketserver.BaseServer] = [self.server]
        self.doors: list[Door] = []
        for door in (sink_door("pulls"), api_door("pulls")):
            (root / "doors" / door).mkdir(parents=True)
            self.doors.append(Door(root / "doors" / door / "up.sock", self.server.server_port))
        self._threads += self.doors
        for server in self._threads:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        for server in self._threads:
            server.shutdown()
            server.server_close()

    def sink(self, forge: str = "github", secret: str | None = TOKEN, **changes: Any) -> GitSink:
        return GitSink(self.output(forge, **changes), secret, self.trust, self.root, RUN)

    def output(self, forge: str = "github", **changes: Any) -> Output:
        pull = None
        if forge:
            pull = PullRequest(
                forge=FORGE[forge],
                api="https://api.example.com/api/v9",
                project="acme/app",
                labels=["bot"],
                draft=False,
            )
        git: Repository = msgspec.structs.replace(GIT, **{"pull_request": pull, **changes})
        return output(git, target={"repository": "https://git.example.com/acme/app.git"}, secret="hub")

    def batch(self, *rows: dict[str, str]) -> Batch:
        data = b"".join(canonical(row) + b"\n" for row in rows or (ROW,))
        path = self.root / f"{digest(data)[7:20]}.jsonl"
        path.write_bytes(data)
        return Batch(
            key=batch_key(RUN, "pulls", "accepted", digest(data)), digest=digest(data), rows=path, count=len(rows)
        )

    @property
    def branches(self) -> list[str]:
        """Branches of proposals."""
        return self.project.git("for-each-ref", "--format=%(refname:short)", "refs/heads/casemate").split()

    def show(self, what: str) -> str:
        return self.project.git("show", what)


@pytest.fixture
def world() -> Iterator[World]:
    # Short, so that names of sockets fit.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        made = World(Path(folder))
        yield made
        made.close()


def receipt(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)["proposals"]
    return found


@pytest.mark.parametrize("forge", FORGE)
def test_a_proposal_becomes_a_branch_and_a_pull_request_and_both_go_again(world: World, forge: str) -> None:
    before = world.project.head("main")
    sink, batch = world.sink(forge), world.batch(ROW, {"title": "Add", "patch": new("docs.md", "new")})
    first = settle(sink, batch, again=False)
    one, two = receipt(first)
    assert world.branches == sorted([one["branch"], two["branch"]])
    assert world.show(f"{one['branch']}:a.txt") == "two\n"
    assert world.show(f"{two['branch']}:docs.md") == "new\n"
    shown = world.project.git("log", "-1", "--format=%P%n%an <%ae>%n%cn <%ce>%n%at %ct%n%B", one["branch"]).splitlines()
    who, when = "A Bot <bot@example.com>", int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())
    assert shown[:6] == [before, who, who, f"{when} {when}", "Say two", ""]
    assert shown[6] == f"Casemate-Run: {RUN}"
    assert [p["head"]["ref"] for p in world.project.pulls] == [one["branch"], two["branch"]]
    assert {p["base"]["ref"] for p in world.project.pulls} == {"main"}
    assert [[label["name"] for label in p["labels"]] for p in world.project.pulls] == [["bot"], ["bot"]]
    assert world.project.pulls[0]["body"].startswith("Because.\n")
    assert world.project.head("main") == before
    assert settle(sink, batch, again=True) == first, "what is there is found"
    assert len(world.project.pulls) == 2
    sink.undo(batch, first)
    assert world.branches == []
    assert [p["state"] for p in world.project.pulls] == ["closed", "closed"]
    sink.undo(batch, first)


STEPS: list[tuple[Moment, int]] = [
    (Moment.BEGUN, 1),
    *((Moment.SENT, count) for count in (1, 2, 3)),
    (Moment.FINAL, 1),
]
"""About to begin; all branches pushed; one pull request open, then the other; done, and nobody told."""


def dying() -> None:
    """Be a process that applies a batch, and is killed at a moment."""
    output, trust, root, batch, moment, count = pickle.loads(sys.stdin.buffer.read())
    seen: list[Moment] = []

    def dies(now: Moment) -> None:
        seen.append(now)
        if now is moment and seen.count(now) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    settle(GitSink(output, TOKEN, trust, root, RUN), batch, again=False, at=dies)


@pytest.mark.parametrize(
    ("forge", "moment", "count"),
    [
        *(("github", *step) for step in STEPS),
        ("", Moment.SENT, 1),
        ("gitlab", Moment.SENT, 2),
        ("gitea", Moment.SENT, 2),
    ],
)
def test_whoever_comes_after_a_kill_finds_what_is_there_and_does_the_rest(
    world: World, forge: str, moment: Moment, count: int
) -> None:
    batch = world.batch(ROW, {"title": "Add", "patch": new("docs.md", "new")})
    told = pickle.dumps((world.output(forge), world.trust, world.root, batch, moment, count))
    command = [sys.executable, "-c", f"from {__name__} import dying; dying()"]
    done = subprocess.run(command, input=told, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    there = 0 if moment is Moment.BEGUN else 2
    opened = count - 1 if moment is Moment.SENT else there
    assert (len(world.branches), len(world.project.pulls)) == (there, opened if forge else 0)
    world.project.commit("main", {"later.txt": "the base has moved\n"}, "Later")
    made = receipt(settle(world.sink(forge), batch, again=True))
    assert world.branches == sorted(one["branch"] for one in made)
    assert len(world.project.pulls) == (2 if forge else 0)
    assert {one["commit"] for one in made} == {world.project.head(branch) for branch in world.branches}
    assert all(sorted(label["name"] for label in p["labels"]) == ["bot"] for p in world.project.pulls)
    again = settle(world.sink(forge), batch, again=True)
    assert receipt(again) == made
    world.sink(forge).undo(batch, again)
    assert world.branches == []


REFUSED = {
    "of what is not there": change("absent.txt"),
    "of other lines": change(hunk="@@ -1 +1 @@\n-eins\n+two\n"),
    "at another place": change("src/deep/b.py", hunk="@@ -3,2 +3,2 @@\n line 3\n-line 4\n+x\n"),
    "through a link": new("link/x", "x"),
    "of a link": change("link", hunk="@@ -1 +1 @@\n-/etc/passwd\n\\ No newline at end of file\n+/etc/shadow\n"),
    "of another mode": change("run.sh", hunk="@@ -1 +1 @@\n-true\n+false\n", head="index 1234567..89abcde 100644\n"),
    "over a file that is there": new("a.txt", "x"),
    "over a folder that is there": new("src", "x"),
    "below a file": new("a.txt/x", "x"),
    "of another spelling": new("A.TXT", "x"),
    "of another spelling of a folder": new("docs/y.md", "x"),
    "of nothing": change(hunk="@@ -1 +1 @@\n-one\n+one\n"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_patch_that_does_not_fit_the_repository_is_refused_and_no_other_is_pushed(world: World, name: str) -> None:
    sink = world.sink()
    with pytest.raises(CasemateError, match="CSM-W010"):
        settle(sink, world.batch(ROW, {"title": "x", "patch": REFUSED[name]}), again=False)
    assert (world.branches, world.project.pulls) == ([], [])
    settle(sink, world.batch(), again=False)
    assert len(world.branches) == 1


GONE = "diff --git a/a.txt b/a.txt\ndeleted file mode 100644\n--- a/a.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n"


def test_modes_stay_and_change_as_the_patch_says(world: World) -> None:
    rows = [
        {"title": "Keep", "patch": change("run.sh", hunk="@@ -1 +1 @@\n-true\n+false\n")},
        {"title": "Bits", "patch": "diff --git a/a.txt b/a.txt\nold mode 100644\nnew mode 100755\n"},
        {"title": "Gone", "patch": GONE},
    ]  # fmt: skip
    keep, bits, gone = receipt(settle(world.sink(""), world.batch(*rows), again=False))
    assert world.project.git("ls-tree", keep["branch"], "run.sh").startswith("100755 ")
    assert world.project.git("ls-tree", bits["branch"], "a.txt").startswith("100755 ")
    assert world.project.git("ls-tree", gone["branch"], "a.txt") == ""
    assert world.show(f"{keep['branch']}:run.sh") == "false\n", "no attribute of the repository has a say"


def test_a_branch_of_our_name_that_is_not_ours_is_left_alone(world: World) -> None:
    batch = world.batch()
    (branch,) = (one["branch"] for one in receipt(settle(world.sink(""), batch, again=False)))
    world.project.git("update-ref", f"refs/heads/{branch}", "main")
    world.project.commit(branch, {"evil.txt": "x\n"}, "Evil")
    head = world.project.head(branch)
    for again in (True, False):
        with pytest.raises(CasemateError, match="not ours"):
            settle(world.sink(""), batch, again=again)
    assert world.project.head(branch) == head


def test_what_people_have_worked_on_is_not_taken_back(world: World) -> None:
    batch, sink = world.batch(), world.sink()
    made = settle(sink, batch, again=False)
    (branch,) = world.branches
    head = world.project.head(branch)
    world.project.commit(branch, {"more.txt": "x\n"}, "More")
    with pytest.raises(CasemateError, match="CSM-W017"):
        sink.undo(batch, made)
    assert settle(sink, batch, again=True), "a pull request is there, whatever was added to it"
    world.project.git("update-ref", f"refs/heads/{branch}", str(head))
    world.project.pulls[0] |= {"merged_at": "2026-01-02T00:00:00Z", "state": "closed"}
    with pytest.raises(CasemateError, match="is merged"):
        sink.undo(batch, made)
    assert world.branches == [branch]
    world.project.git("update-ref", "-d", f"refs/heads/{branch}")
    assert settle(sink, batch, again=True), "a merged one whose branch is gone is not opened again"
    assert len(world.project.pulls) == 1


def test_the_server_may_refuse_and_then_nothing_is_written(world: World) -> None:
    hook = world.project.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not here >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(CasemateError, match="CSM-W010"):
        settle(world.sink(), world.batch(), again=False)
    hook.unlink()
    assert world.branches == []
    settle(world.sink(), world.batch(), again=False)


def test_without_its_token_it_does_nothing_and_the_token_is_told_to_nobody(
    world: World, capfd: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for secret in (None, "wrong", "two\nlines"):
        with pytest.raises(CasemateError, match="CSM-W010") as refused:
            settle(world.sink("", secret), world.batch(), again=False)
        assert secret is None or secret not in str(refused.value)
    assert world.branches == []
    seen: list[str] = []

    def look(_moment: Moment) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                seen.append((process / "cmdline").read_text() + (process / "environ").read_text())
        seen.extend(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())

    settle(world.sink(""), world.batch(), again=False, at=look)
    assert any("repositoryformatversion" in text for text in seen), "the configuration of the clone was looked at"
    assert not any(TOKEN in text for text in seen)
    assert TOKEN not in "".join(capfd.readouterr())


@pytest.mark.parametrize("elsewhere", ["https://api.example.com", "https://evil.example.com", "http://git.example.com"])
def test_a_server_that_sends_us_elsewhere_is_not_followed(elsewhere: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        world = World(Path(folder), elsewhere=elsewhere)
        with pytest.raises(CasemateError, match="CSM-W010"):
            settle(world.sink(""), world.batch(), again=False)
        world.close()


def test_a_server_that_gives_only_whole_repositories_is_a_sink_too() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        world = World(Path(folder), whole=True)
        made = settle(world.sink(""), world.batch(), again=False)
        assert settle(world.sink(""), world.batch(), again=True) == made
        assert len(world.branches) == 1
        world.close()


@pytest.mark.parametrize(("drops", "is_there"), [(len(PAUSES), True), (100, False)])
def test_a_line_that_breaks_before_anything_is_asked_is_tried_again(world: World, drops: int, is_there: bool) -> None:
    door = world.doors[0]
    door.drops = drops
    if is_there:
        settle(world.sink(""), world.batch(), again=False)
    else:
        with pytest.raises(CasemateError, match="CSM-W010"):
            settle(world.sink(""), world.batch(), again=False)
    assert (len(world.branches), door.dropped) == (int(is_there), len(PAUSES) + (not is_there))


def test_another_certificate_is_not_believed(world: World) -> None:
    world.trust[:] = [Authority().pem.decode()]
    for forge in ("", "github"):
        with pytest.raises(CasemateError, match="CSM-W010"):
            settle(world.sink(forge), world.batch(), again=False)


def test_what_a_home_or_a_machine_says_to_git_is_not_heard(world: World, tmp_path: Path, monkeypatch: Any) -> None:
    evil = tmp_path / "evil"
    (tmp_path / ".gitconfig").write_text(
        f'[core]\n\tfsmonitor = touch {evil}\n\tsshCommand = touch {evil}\n[alias]\n\tinit = "!touch {evil}"\n'
    )
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("GIT_SSL_NO_VERIFY", "1")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"touch {evil}")
    world.trust[:] = [Authority().pem.decode()]
    with pytest.raises(CasemateError, match="CSM-W010"):
        settle(world.sink(""), world.batch(), again=False)
    assert not evil.exists()
    assert os.environ["HOME"] == str(tmp_path)


def test_a_request_from_a_fork_is_not_taken_for_ours(world: World) -> None:
    batch, sink = world.batch(), world.sink("gitlab")
    (branch,) = (one["branch"] for one in receipt(settle(world.sink(""), batch, again=False)))
    theirs = {"number": 1, "state": "open", "merged_at": None, "labels": [{"name": "bot"}], "fork": 8}
    world.project.pulls.append({**theirs, "title": "Evil", "head": {"ref": branch, "sha": ""}, "base": {"ref": "main"}})
    # Ours is opened beside it: the forge refuses a second one of the same project only.
    world.project.pulls[0]["state"] = "closed"
    (made,) = receipt(settle(sink, batch, again=True))
    assert made["pull"] == 2


def test_a_forge_that_refuses_leaves_a_branch_that_is_found_later(world: World) -> None:
    world.server.forge._projects = {}
    with pytest.raises(CasemateError):
        settle(world.sink(), world.batch(), again=False, at=pass_by)
    world.server.forge._projects = world.server.projects
    settle(world.sink(), world.batch(), again=True)
    assert (len(world.branches), len(world.project.pulls)) == (1, 1)

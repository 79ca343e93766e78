"""Patches: each hostile one has its verdict; and what is accepted is what git itself would make of it."""

from __future__ import annotations

import difflib
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from gateway.customs.examine import examiner
from gateway.customs.patch import PatchError, applied, parse
from gateway.customs.scan.values import needles
from policies.canonical import canonical
from policies.outputs import Repository
from policies.plan import Output
from tests.gateway.kit import make_output

GIT = Repository(
    base="main", prefix="casemate/", author="A Bot", email="bot@example.com", user="x", files=3, lines=20, bytes=4000,
    paths=[], protected="reject", unprotected=[], executable=False, pull_request=None,
)  # fmt: skip
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["title", "patch"],
    "properties": {name: {"type": "string"} for name in ("title", "body", "patch")},
}
SECRET = "hunter2-correct-horse-battery"


def output(git: Repository = GIT, **changes: Any) -> Output:
    """Return an output whose sink is a repository."""
    fields = {"sink": "git", "path": "", "format": "", "schema": SCHEMA, "bounds": {}, "unique": [], "git": git}
    return make_output("pulls", **{**fields, **changes})


def new(path: str, *lines: str, mode: str = "100644") -> str:
    """Return the patch that adds a file."""
    head = f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
    return head + f"@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines)


def change(path: str = "a.txt", hunk: str = "@@ -1 +1 @@\n-one\n+two\n", head: str = "") -> str:
    """Return the patch that changes a file."""
    return f"diff --git a/{path} b/{path}\n{head}--- a/{path}\n+++ b/{path}\n{hunk}"


def against(record: dict[str, Any], wanted: Output | None = None) -> list[tuple[str, str]]:
    """Return what customs has against a proposal, each with its code."""
    judge = examiner(wanted or output(), needles({"hub": SECRET}), b"k" * 32)
    found = judge.examine(canonical(record))
    return [(reason.code, reason.excerpt) for reason in found.reasons.get(0, [])]


def codes(patch: str, wanted: Output | None = None, **record: str) -> set[str]:
    """Return the codes of what customs has against a patch."""
    return {code for code, _ in against({"title": "A change", "patch": patch, **record}, wanted)}


HONEST = {
    "a change": change(),
    "two hunks": change(hunk="@@ -1,3 +1,3 @@ def f():\n one\n-two\n+zwei\n three\n@@ -9 +9,2 @@\n nine\n+ten\n"),
    "with an index": change(head="index 5626abf..814f4a4 100644\n"),
    "with a long index": change(head="index " + "5" * 40 + ".." + "8" * 40 + "\n"),
    "a new file": new("src/new.py", "print('hello')"),
    "an empty file": "diff --git a/src/__init__.py b/src/__init__.py\nnew file mode 100644\nindex 0000000..e69de29\n",
    "a file goes": "diff --git a/a b/a\ndeleted file mode 100644\n--- a/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n",
    "no newline": change(hunk="@@ -1 +1 @@\n-one\n\\ No newline at end of file\n+one\n"),
    "lines of Windows": change(hunk="@@ -1 +1 @@\n-one\r\n+two\r\n"),
    "lines that look like marks": change(hunk="@@ -1,2 +1,2 @@\n--- a/b\n+++ b/c\n @@ -1 +1 @@\n"),
    "other scripts": change(hunk="@@ -1 +1 @@\n-один\n+два\n"),
    "a name of a route": new("app/[slug]/(group)/+page.@x.$id.tsx", "x"),
    "two files": change() + new("b.txt", "x"),
    "a folder named git": new("tools/git/x.gitignored", "x"),
}
SUBMODULE = (
    "diff --git a/lib b/lib\nnew file mode 160000\n--- /dev/null\n+++ b/lib\n@@ -0,0 +1 @@\n+Subproject commit 1\n"
)
RENAME = "diff --git a/a.txt b/b.txt\nsimilarity index 100%\nrename from a.txt\nrename to b.txt\n"
UNREADABLE = {
    "a link": new("a", "/etc/passwd", mode="120000"),
    "a submodule": SUBMODULE,
    "a folder": new("a", "x", mode="040000"),
    "setuid": new("a", "x", mode="104755"),
    "group may write": new("a", "x", mode="100664"),
    "a file becomes a link": change(head="old mode 100644\nnew mode 120000\n"),
    "a link in the index line": change(head="index 5626abf..814f4a4 120000\n"),
    "old mode alone": change(head="old mode 100644\n"),
    "no change of a mode": change(head="old mode 100644\nnew mode 100644\n"),
    "above": new("../outside", "x"),
    "above, from within": new("a/../../outside", "x"),
    "a dot": new("a/./b", "x"),
    "absolute": new("/etc/cron.d/x", "x"),
    "two slashes": new("a//b", "x"),
    "a slash at the end": new("a/", "x"),
    "hooks": new(".git/hooks/post-checkout", "x"),
    "hooks, louder": new(".GIT/hooks/post-checkout", "x"),
    "hooks of a submodule": new("lib/.Git/config", "x"),
    "short name of Windows": new("GIT~1/config", "x"),
    "a dot that Windows drops": new(".git./config", "x"),
    "a space that Windows drops": new(".git /config", "x"),
    "a stream of Windows": new(".git::$INDEX_ALLOCATION/config", "x"),
    "a zero-width joiner that HFS drops": new(".g\u200cit/config", "x"),
    "full-width letters": new(".\uff47\uff49\uff54/config", "x"),
    "a backslash": new("a\\..\\b", "x"),
    "a drive": new("c:/x", "x"),
    "a tab": new("a\tb", "x"),
    "an escape": new("a\x1b[2J", "x"),
    "a quoted name": 'diff --git "a/\\056git/config" "b/\\056git/config"\nnew file mode 100644\n',
    "a name that is too long": new("a/" + "b" * 300, "x"),
    "two names in the first line": "diff --git a/a.txt b/b.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-one\n+two\n",
    "another name below": "diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/.github/x\n@@ -1 +1 @@\n-one\n+two\n",
    "a name without a prefix": "diff --git a.txt a.txt\n--- a.txt\n+++ a.txt\n@@ -1 +1 @@\n-one\n+two\n",
    "a time after a name": "diff --git a/a b/a\n--- a/a\t2020-01-01\n+++ b/a\n@@ -1 +1 @@\n-one\n+two\n",
    "no first line": "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-one\n+two\n",
    "another tool's": "Index: a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-one\n+two\n",
    "a mail": "From 1 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: x\n\n---\n" + change(),
    "a word before": "Here it is:\n" + change(),
    "a fence": "```diff\n" + change() + "```\n",
    "a word after": change() + "done\n",
    "a signature": change() + "-- \n2.47.3\n",
    "an empty line after": change() + "\n",
    "an empty line between": change() + "\n" + new("b", "x"),
    "a rename": RENAME,
    "a copy": RENAME.replace("rename", "copy"),
    "a rename of hooks": RENAME.replace("b.txt", ".git/hooks/x"),
    "a binary patch": "diff --git a/a b/a\nindex 1234567..89abcde 100644\nGIT binary patch\nliteral 1\nIcmZ\n\n",
    "binary files": "diff --git a/a b/a\nindex 1234567..89abcde 100644\nBinary files a/a and b/a differ\n",
    "a zero byte": change(hunk="@@ -1 +1 @@\n-one\n+t\0wo\n"),
    "one line too few": change(hunk="@@ -1,2 +1,2 @@\n one\n"),
    "one line too many": change(hunk="@@ -1 +1 @@\n-one\n+two\n+three\n"),
    "an empty line for a context": change(hunk="@@ -1,2 +1,2 @@\n-one\n+two\n\n"),
    "a hunk of nothing": change(hunk="@@ -1,0 +1,0 @@\n"),
    "a hunk that changes nothing": change(hunk="@@ -1 +1 @@\n one\n"),
    "a header that changes nothing": "diff --git a/a b/a\n--- a/a\n+++ b/a\n",
    "a first line alone": "diff --git a/a b/a\n",
    "hunks in the wrong order": change(hunk="@@ -5 +5 @@\n-a\n+b\n@@ -1 +1 @@\n-a\n+b\n"),
    "hunks that overlap": change(hunk="@@ -1,2 +1,2 @@\n-a\n+b\n c\n@@ -2 +2 @@\n-c\n+d\n"),
    "a hunk that lands elsewhere": change(hunk="@@ -1 +7 @@\n-one\n+two\n"),
    "a number with a zero": change(hunk="@@ -01 +1 @@\n-one\n+two\n"),
    "a huge number": change(hunk="@@ -99999999999 +1 @@\n-one\n+two\n"),
    "a negative count": change(hunk="@@ -1,-1 +1 @@\n-one\n+two\n"),
    "a combined diff": "diff --cc a\nindex 1,2..3\n--- a/a\n+++ b/a\n@@@ -1 -1 +1 @@@\n- one\n++two\n",
    "more after the end of a file": change(hunk="@@ -1 +1,2 @@\n-one\n+two\n\\ No newline at end of file\n+three\n"),
    "an end without a line": change(hunk="@@ -1 +1 @@\n\\ No newline at end of file\n-one\n+two\n"),
    "a file added in part": change(head="new file mode 100644\n").replace("--- a/a.txt", "--- /dev/null"),
    "a file added that was there": change(head="new file mode 100644\n"),
    "a file twice": change() + change(),
    "a file twice, louder": change() + change("A.TXT"),
    "a file and its folder": new("a", "x") + new("a/b", "x"),
    "a header with a line of Windows": change().replace("\n--- a", "\r\n--- a"),
    "no end": change().rstrip("\n"),
    "nothing": "\n",
    "no text at all": "",
}
FORBIDDEN = {
    "a workflow": new(".github/workflows/ci.yml", "on: push"),
    "a workflow, louder": new(".GitHub/workflows/ci.yml", "on: push"),
    "CI of GitLab": new(".gitlab-ci.yml", "x"),
    "CI of Gitea": new(".gitea/workflows/x.yml", "x"),
    "CI of Jenkins": new("ci/Jenkinsfile", "x"),
    "attributes": new("src/.gitattributes", "* filter=evil"),
    "submodules": new(".gitmodules", "[submodule]"),
    "hooks that are shared": new(".husky/pre-commit", "x"),
    "an editor's tasks": new(".vscode/tasks.json", "{}"),
    "owners": new("docs/CODEOWNERS", "* @evil"),
    "a lock file": change("web/package-lock.json"),
    "a manifest": change("pyproject.toml"),
    "requirements": change("requirements-dev.txt"),
    "instructions for agents": new("CLAUDE.md", "obey"),
    "an executable": new("run.sh", "x", mode="100755"),
    "a file made executable": "diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n",
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_patch_is_read(name: str) -> None:
    assert codes(HONEST[name]) == set()


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_patch_with_another_reading_is_rejected(name: str) -> None:
    assert codes(UNREADABLE[name]) == {"CSM-W030"}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_path_that_is_not_the_agents_is_rejected(name: str) -> None:
    assert codes(FORBIDDEN[name]) == {"CSM-W031"}


def test_there_are_many_hostile_patches() -> None:
    assert len(UNREADABLE) + len(FORBIDDEN) >= 80


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_the_plan_allows_is_read(name: str) -> None:
    git = msgspec.structs.replace(GIT, unprotected=["**"], executable=True)
    assert codes(FORBIDDEN[name], output(git)) == set()


def test_a_person_may_decide_over_protected_paths_and_over_nothing_else() -> None:
    held = output(msgspec.structs.replace(GIT, protected="hold"))
    judge = examiner(held, [], b"k" * 32)
    rows = [FORBIDDEN["a workflow"], FORBIDDEN["an executable"]]
    lines = [canonical({"title": "A change", "patch": row}) for row in rows]
    assert not judge.examine(b"\n".join(lines[:1])).rejects
    assert judge.examine(b"\n".join(lines[1:])).rejects


def test_only_paths_of_the_plan_may_be_changed() -> None:
    git = msgspec.structs.replace(GIT, paths=["docs/**", "*.md"])
    for path, fits in {"docs/a/b.txt": True, "README.md": True, "src/a.py": False, "a/README.md": False}.items():
        assert codes(new(path, "x"), output(git)) == (set() if fits else {"CSM-W031"}), path


def test_a_patch_has_bounds() -> None:
    assert codes("".join(new(f"f{n}", "x") for n in range(4))) == {"CSM-W032"}
    assert codes(new("a", *"x" * 21)) == {"CSM-W032"}
    assert codes(new("a", "x" * 4001)) == {"CSM-W032"}
    assert codes(new("a", *"x" * 20)) == set()


@pytest.mark.parametrize(
    "title", ["", " ", "one\ntwo", "x" * 201, "a\x1b[2J", "fix [skip ci]", "fix [CI-SKIP]", "***NO_CI***"]
)
def test_a_title_is_one_line_and_switches_nothing_off(title: str) -> None:
    assert "CSM-W033" in codes(change(), title=title)
    assert codes(change(), body="fine [no ci]") == {"CSM-W033"}
    assert codes(change(), body="two\nlines", title="Skip what CI does twice") == set()


def test_what_a_patch_adds_is_looked_at_like_any_text() -> None:
    wanted = output(scan=["links", "pii", "secrets", "unicode"], hosts=["example.com"])
    whole = {"secret": SECRET, "reversed": SECRET[::-1], "hidden": "pass\u202eword", "link": "see https://evil.test/x"}
    for text in whole.values():
        assert codes(new("a.txt", text), wanted), text
        there = change(hunk=f"@@ -1,2 +1,2 @@\n {text}\n-one\n+two\n")
        assert codes(there, wanted) == set(), "what is in the repository already is none of the agent's"
    half = len(SECRET) // 2
    assert codes(new("a.txt", SECRET[:half], SECRET[half:]), wanted) == {"CSM-W005"}, "over two lines"
    between = f"@@ -1,3 +1,5 @@\n one\n+{SECRET[:half]}\n two\n+{SECRET[half:]}\n three\n"
    assert codes(change(hunk=between), wanted) == {"CSM-W005"}, "over two places"
    two = new("a.txt", SECRET[:half]) + new("b.txt", SECRET[half:])
    assert codes(two, wanted) == {"CSM-W005"}, "over two files"
    assert codes(new(f"{SECRET}.txt", "x"), wanted) == {"CSM-W005"}, "in a name"
    assert codes(change(), wanted, title=SECRET, body="x") == {"CSM-W005"}
    assert codes(change(), wanted, body="thanks @somebody, fixes #3") == {"CSM-W012"}
    assert codes(new("a.py", "@property", "# fixes #3"), wanted) == set(), "of code the forge does not speak"


def git(folder: Path, *words: str, text: bytes = b"") -> tuple[int, bytes]:
    """Run git in a folder, with nothing of the machine's own settings."""
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": "/nowhere"}
    done = subprocess.run(["git", *words], cwd=folder, input=text, capture_output=True, check=False, env=env)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    assert git(folder, "init", "-q", ".")[0] == 0
    return folder


def by_git(folder: Path, old: bytes | None, patch: bytes) -> bytes | None:
    """Return what git makes of the file `a` by a patch; `PatchError` when it refuses."""
    git(folder, "read-tree", "--empty")
    if old is not None:
        blob = git(folder, "hash-object", "-w", "--stdin", text=old)[1].decode().strip()
        git(folder, "update-index", "--add", "--cacheinfo", f"100644,{blob},a")
    if git(folder, "apply", "--cached", "--whitespace=nowarn", "-", text=patch)[0]:
        raise PatchError("git refuses")
    code, content = git(folder, "cat-file", "blob", ":a")
    return None if code else content


LINES = st.lists(
    st.sampled_from(["", "one", "two", "two", "-three", "+four", " five", "@@ -1 +1 @@", "six\r"]), max_size=9
)
FILES = st.one_of(st.none(), st.tuples(LINES, st.booleans()))


def content(file: tuple[list[str], bool] | None) -> bytes | None:
    if file is None:
        return None
    lines, ended = file
    data = "".join(f"{line}\n" for line in lines)
    return (data if ended else data.removesuffix("\n")).encode()


@given(old=FILES, wanted=FILES, context=st.integers(0, 4))
def test_what_git_writes_is_read_as_git_reads_it(
    repository: Path, old: tuple[list[str], bool] | None, wanted: tuple[list[str], bool] | None, context: int
) -> None:
    before, after = content(old), content(wanted)
    if before == after:
        return
    trees = []
    for data in (before, after):
        git(repository, "read-tree", "--empty")
        if data is not None:
            blob = git(repository, "hash-object", "-w", "--stdin", text=data)[1].decode().strip()
            git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},a")
        trees.append(git(repository, "write-tree")[1].decode().strip())
    patch = git(repository, "diff", "--no-renames", f"-U{context}", *trees)[1]
    (found,) = parse(patch.decode())
    assert applied(found, before) == after
    if context:
        assert by_git(repository, before, patch) == after


PIECES = (" one\n", "+x\n", "-two\n", "\\ No newline at end of file\n", "\n", "@@ -1 +1 @@\n", "@@ -2,0 +3 @@\n")


@given(old=LINES, wanted=LINES, data=st.data())
def test_a_patch_that_was_tampered_with_is_refused_or_means_the_same_to_git(
    repository: Path, old: list[str], wanted: list[str], data: st.DataObject
) -> None:
    before = content((old, True))
    one, two = ([f"{line}\n" for line in lines] for lines in (old, wanted))
    lines = ["diff --git a/a b/a\n", *difflib.unified_diff(one, two, "a/a", "b/a", n=data.draw(st.integers(0, 3)))]
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(1, len(lines)))
        lines[at : at + data.draw(st.integers(0, 1))] = [data.draw(st.sampled_from(PIECES))]
    patch = "".join(lines)
    try:
        (found,) = parse(patch)
        ours = applied(found, before)
    except (PatchError, ValueError):
        return
    try:
        theirs = by_git(repository, before, patch.encode())
    except PatchError:
        return  # then nothing comes of it
    event("both made something of it")
    assert ours == theirs

"""A real forge. That each proposal is there once, whoever dies, is told by the conformance suite of sinks."""

from __future__ import annotations

import uuid

from policies.sinks import Moment
from tests.lab import Lab
from tests.pagure import PRIVATE, SINK, Pagure, pagure
from tests.sinks import killed, proposing, states

TOKEN = f"canary-{uuid.uuid4().hex}"


def test_a_real_forge_is_asked_what_became_of_proposals_and_a_private_one_takes_branches(lab: Lab) -> None:
    with pagure(lab, TOKEN) as server:
        world = proposing(SINK, server, TOKEN)
        home = lab.folder / ".casemate"
        assert lab.run(world.workflow(lab), "--dry-run").exit_code == 0
        killed(lab, home, Moment.FINAL)
        one, two = server.pulls
        assert [(p["title"], p["user"]["name"], p["status"]) for p in (one, two)] == [
            ("one", "bot", "Open"),
            ("two", "bot", "Open"),
        ]
        assert "Proposed by an agent" in one["initial_comment"]
        merged = server.ask("POST", f"pull-request/{one['id']}/merge", {"wait": True})
        assert merged == {"message": "Changes merged!"}
        server.ask("POST", f"pull-request/{two['id']}/close", {})
        assert server.git("show", "main:one.md") == "x"
        server.crowd()
        assert states(lab, home) == ["applied"]
        ours = [pull for pull in server.pulls if not pull["title"].startswith("Other")]
        assert [(p["id"], p["status"]) for p in ours] == [(one["id"], "Merged"), (two["id"], "Closed")]
        assert len(server.pulls) == 102, "the control: theirs were on the second page"
        undone = lab.cli("undo", "latest")
        assert (undone.returncode, two["branch_from"] in server.branches) == (4, True), undone.stderr
        assert "is merged" in undone.stderr
        private(lab, server)


def private(lab: Lab, server: Pagure) -> None:
    """A project that is not there for who says nothing takes branches of who has a token."""
    asked = f"GIT_SSL_NO_VERIFY=1 GIT_TERMINAL_PROMPT=0 git ls-remote https://127.0.0.1/{PRIVATE}.git 2>&1 || true"
    said = server.outside.ask("sh", "-c", asked)
    assert (f"fatal: repository 'https://127.0.0.1/{PRIVATE}.git" in said, "not found" in said) == (True, True), said
    sink = {"kind": "git", "repository": f"https://git.example.com/{PRIVATE}.git", "base": "main", "user": "bot"}
    result = lab.run(proposing(sink, server, TOKEN).workflow(lab))
    assert result.exit_code == 0, result.stderr
    titles = [server.git("log", "-1", "--format=%s", b, project=PRIVATE) for b in server.proposed(PRIVATE)]
    assert sorted(titles) == ["one", "two"]

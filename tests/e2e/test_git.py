"""A repository as a sink, for real: what an agent in a cell proposes becomes branches and pull requests.

That it does so once, whoever dies, is told by the conformance suite of sinks, and step by step in
`tests/gateway/test_git_sink.py`.
"""

from __future__ import annotations

import uuid

from tests.forge import PROPOSALS, SINK, forge
from tests.lab import Lab
from tests.sinks import World

TOKEN = f"canary-{uuid.uuid4().hex}"
ONE = "diff --git a/notes.md b/notes.md\n--- a/notes.md\n+++ b/notes.md\n@@ -1,2 +1,2 @@\n one\n-two\n+zwei\n"
TWO = "diff --git a/new.md b/new.md\nnew file mode 100644\n--- /dev/null\n+++ b/new.md\n@@ -0,0 +1 @@\n+new\n"
ROWS = [{"title": "Say zwei", "body": "It is nicer.", "patch": ONE}, {"title": "Add a file", "patch": TWO}]


def test_a_proposal_is_a_commit_on_the_base_and_nothing_else_is_reached_or_told(lab: Lab) -> None:
    with forge(lab, TOKEN) as server:
        outside = server.outside
        world = World(
            sink=SINK, there=server.there, empty=server.empty, outside=outside, secret=TOKEN, schema=PROPOSALS
        )
        before = server.git("rev-parse", "main")
        wrong = {"title": "Elsewhere", "patch": ONE.replace(" one\n-two", " eins\n-two")}
        refused = lab.run(world.proposing(lab, [ROWS[1], wrong]))
        assert (refused.exit_code, server.branches) == (1, []), refused.stderr
        assert "proposal 1 does not fit main" in refused.stderr
        result = lab.run(world.proposing(lab, ROWS))
        assert (result.exit_code, server.there()) == (0, ["Say zwei", "Add a file"]), result.stderr
        texts = {server.git("show", f"{branch}:notes.md") for branch in server.branches}
        assert texts == {"one\nzwei", "one\ntwo"}
        parents = {server.git("rev-parse", f"{branch}^") for branch in server.branches}
        assert parents == {before} == {server.git("rev-parse", "main")}
        assert server.pulls[0]["body"].startswith("It is nicer.\n")
        assert {query.split()[1] for query in outside.queries} == {"git.example.com", "api.example.com"}
    held = {event.attrs["casemate.component"] for event in result.of("secret.delivered")}
    assert held <= {"customs"}, "nobody who met the agent had it"

"""Row 65: patches that would do something else in a repository than change its files, proposed from inside a cell."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path

from tests.forge import PROPOSALS, SINK, forge
from tests.lab import Lab
from tests.outside_lab import OutsideLab
from tests.sinks import World

TOKEN = f"canary-{uuid.uuid4().hex}"


def new(path: str, line: str = "x", mode: str = "100644") -> str:
    """Return the patch that adds a file of one line."""
    head = f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n"
    return f"{head}+{line}\n" + ("\\ No newline at end of file\n" if mode == "120000" else "")


HONEST = new("docs/honest.md")
HOSTILE = {
    "a link out": new("secrets", "/etc/passwd", "120000"),
    "a link to hooks": new("docs/hooks", "../.git/hooks", "120000"),
    "above": new("../outside"),
    "above, from within": new("docs/../../outside"),
    "absolute": new("/tmp/outside"),
    "setuid": new("run", mode="104755"),
    "an executable": new("run", mode="100755"),
    "hooks": new(".git/hooks/pre-commit"),
    "hooks of a checkout on a Mac": new(".GIT/hooks/pre-commit"),
    "hooks of a folder": new("docs/.git/hooks/pre-commit"),
    "configuration": new(".git/config", "[core] fsmonitor = touch /tmp/evil"),
    "attributes": new(".gitattributes", "* filter=evil"),
    "attributes of a folder": new("docs/.gitattributes", "* filter=evil"),
    "modules": new(".gitmodules", "[submodule]"),
    "a submodule": new("lib", f"Subproject commit {'1' * 40}", "160000"),
    "a workflow": new(".github/workflows/ci.yml", "on: push"),
    "a workflow, louder": new(".GitHub/workflows/ci.yml", "on: push"),
    "CI elsewhere": new(".gitlab-ci.yml", "evil:"),
    "owners": new("CODEOWNERS", "* @evil"),
    "a lock file": new("package-lock.json", "{}"),
    "instructions for other agents": new("docs/AGENTS.md", "Obey."),
    "after an honest one": HONEST + new("../outside"),
}
LANDS_ELSEWHERE = (
    "diff --git a/notes.md b/notes.md\n--- a/notes.md\n+++ b/notes.md\n@@ -2,2 +2,2 @@\n one\n-two\n+evil\n"
)
"""Git finds the place by itself; whoever reads the patch is shown another one."""


def taken(outside: OutsideLab, patch: str) -> bool:
    """Tell whether git takes a patch beside everything, in a folder where nothing protects it."""
    data = base64.b64encode(patch.encode()).decode()
    words = "rm -rf /tmp/x; mkdir -p /tmp/x/w; cd /tmp/x/w; printf 'one\\ntwo\\n' > notes.md;"
    words += f" echo {data} | base64 -d | git apply --unsafe-paths 2>/dev/null && echo taken || true"
    return "taken" in outside.ask("sh", "-c", words)


def test_row_65_no_hostile_patch_reaches_the_repository(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    rows = [{"title": name, "patch": patch} for name, patch in HOSTILE.items()]
    with forge(lab, TOKEN) as server:
        outside = server.outside
        world = World(
            sink=SINK, there=server.there, empty=server.empty, outside=outside, secret=TOKEN, schema=PROPOSALS
        )
        quota = {"quota": {"per_run": 50}}
        result = lab.run(world.proposing(lab, [*rows, {"title": "honest", "patch": HONEST}], **quota))
        assert (result.exit_code, server.there()) == (0, ["honest"]), result.stderr
        (branch,) = server.branches
        assert server.git("diff", "--name-only", "main", branch) == "docs/honest.md"
        assert result.folder is not None
        lines = (result.folder / "quarantine" / "verdicts.jsonl").read_text().splitlines()
        codes = [{reason["code"] for reason in verdict["reasons"]} for verdict in map(json.loads, lines)]
        codes = [found for found in codes if found]
        assert len(codes) == len(HOSTILE)
        assert all(found <= {"CSM-W030", "CSM-W031"} for found in codes)
        elsewhere = lab.run(world.proposing(lab, [{"title": "elsewhere", "patch": LANDS_ELSEWHERE}]))
        assert (elsewhere.exit_code, server.there()) == (1, ["honest"]), elsewhere.stderr
        refused = [name for name, patch in HOSTILE.items() if not taken(outside, patch)]
        assert refused == [], "the control: without any of this git takes them"
        assert taken(outside, LANDS_ELSEWHERE)

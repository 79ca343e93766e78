"""Real sinks, each as a world of its own: what a workflow says to write there, and what is there now.

The conformance suite (`tests/e2e/test_sink_conformance.py`) runs over every one of them, and kills whoever applies.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from policies.errors import CasemateError
from policies.sinks import Moment
from policies.slices import seal
from sandbox.cells.driver import Driver
from sandbox.engine.host import connect
from sandbox.engine.images import MCP_SERVERS, TEST_MLFLOW, TEST_POSTGRES, build_all
from sandbox.records.log import RunLog
from sandbox.records.store import Store
from sandbox.records.writes import State
from sandbox.sinks.applying import Applier
from sandbox.sinks.outside import reached
from tests.forge import PROPOSALS, SINK, Forge, forge
from tests.lab import PROPOSE, ROW_SCHEMA, Lab
from tests.outside_lab import OutsideLab
from tests.pagure import SINK as PAGURE
from tests.pagure import Pagure, pagure

SECRET = f"canary-{uuid.uuid4().hex}"
ROWS: list[dict[str, Any]] = [{"text": "one", "n": 1}, {"text": "two"}]
KNOWN = {"unique": ["text"]}
HERE = Path(__file__).parent
DIES = """
import os
from functools import partial
from gateway.customs.sinks import run
from gateway.__main__ import main
run.run = partial(run.run, at=lambda now: os._exit(9) if now.value == "{moment}" else None)
main(["apply"])
"""
"""What runs in place of the program that applies: the same, which ends at a moment, with nothing flushed or closed.
The first process of a container cannot kill itself."""
IN_SINK = (Moment.BEGUN, Moment.SENT, Moment.FINAL)


@dataclass(frozen=True, kw_only=True)
class World:
    """A real sink.

    `there`: what it has, as texts in order, doubled where it is doubled. `tells`: after a kill it is known what it
    has; `undoes`: it gives back. `tools`, `secret` and `pin`: what a workflow declares beside it.
    `ask`: asks it in its own words. `schema`: of its records, where they are others.
    """

    sink: dict[str, Any]
    there: Callable[[], list[str]]
    empty: Callable[[], object]
    tells: bool = True
    undoes: bool = True
    outside: OutsideLab | None = None
    secret: str = SECRET
    output: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=lambda: ROWS)
    fields: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, Any] = field(default_factory=dict)
    pin: str | None = None
    ask: Callable[[str], str] = str
    schema: dict[str, Any] | None = None

    def proposing(self, lab: Lab, rows: list[dict[str, Any]], **changes: Any) -> Path:
        """Return a workflow whose agent proposes other rows."""
        return replace(self, rows=rows).workflow(lab, **changes)

    def workflow(self, lab: Lab, **changes: Any) -> Path:
        """Return a workflow whose agent proposes the rows."""
        top: dict[str, Any] = {"tools": self.tools}
        sink = dict(self.sink)
        if self.outside is not None:
            lab.env |= self.outside.env | {"SINK_SECRET": self.secret}
            (lab.folder / "ca.pem").write_bytes(self.outside.authority)
            top |= {"trust": ["ca.pem"], "secrets": {"sink": {"from": "env", "key": "SINK_SECRET"}}}
            if not self.tools:
                sink |= {"secret": "sink", "addresses": [self.outside.subnet]}
        rows = {"sink": sink, "schema": "rows.json", "quota": {"per_run": 10}, **self.output, **changes}
        top["outputs"] = {"rows": rows}
        agent = PROPOSE + f"print(asyncio.run(propose(*json.loads({json.dumps(json.dumps(self.rows))}))))\n"
        path = lab.workflow(agent, outputs=["rows"], top=top)
        properties: Any = ROW_SCHEMA["properties"]
        required = ["text", *(name for name in self.fields if all(name in row for row in self.rows))]
        schema = {**ROW_SCHEMA, "required": required, "properties": properties | self.fields}
        (lab.folder / "rows.json").write_text(json.dumps(self.schema or schema))
        if self.pin is not None:
            pinned = lab.cli("mcp", "audit", str(path), "--approve-sink", self.pin)
            assert pinned.returncode == 0, pinned.stderr
        return path


def killed(lab: Lab, home: Path, moment: Moment) -> None:
    """Apply the latest run of a store; who applies is killed at a moment."""
    store = Store(home)
    run = store.latest()
    plan = store.plan(run)
    command = ("python3", "-c", DIES.format(moment=moment.value))
    with store.taken_up(run) as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in lab.env.items():
            patch.setenv(name, value)
        log = RunLog(folder, run, seal(plan).plan, goes_on=True)
        driver = Driver(connect(), folder, log, lambda _event, _tally: None, time.monotonic() + 120)
        applier = Applier(store, run, plan, driver.note, reached(driver, plan, folder, command))
        with pytest.raises(CasemateError, match="CSM-W020"):
            applier.apply()
        log.close()
    assert store.writes.of(run)[0].state is State.INTENDED


def killed_here(_lab: Lab, home: Path, moment: Moment) -> None:
    """The same for a sink that the orchestrator itself writes: it dies by SIGKILL."""
    code = "import sys; from tests.sandbox.sinks.test_applying import main; main(*sys.argv[1:])"
    words = [sys.executable, "-c", code]
    died = subprocess.run([*words, str(home), Store(home).latest(), moment.value], check=False, timeout=60)
    assert died.returncode == -9, "it did not die where it was to"


def states(lab: Lab, home: Path, *words: str, code: int = 0) -> list[str]:
    """Call `casemate apply` over a store, as a user would, and return how far its writes are."""
    other = Lab(home.parent)
    other.env = lab.env
    done = other.cli("apply", "latest", "--json", *words)
    assert done.returncode == code, done.stderr
    return [write["state"] for write in json.loads(done.stdout)]


@contextmanager
def copied(lab: Lab, name: str) -> Iterator[Path]:
    """A copy of what a dry run left, so that it can be applied once more from the start."""
    home = lab.folder / name / ".casemate"
    shutil.copytree(lab.folder / ".casemate", home)
    yield home


@contextmanager
def in_project(lab: Lab, sink: dict[str, Any], output: dict[str, Any]) -> Iterator[World]:
    """A file of the project, or a SQLite database."""
    path = lab.folder / (sink.get("path") or sink["url"].removeprefix("sqlite:"))

    def there() -> list[str]:
        if not path.exists():
            return []
        if sink["kind"] == "sql":
            asked = "import sqlite3, sys; print(*(r[0] for r in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])))"
            words = [sys.executable, "-c", asked, str(path), "SELECT text FROM notes ORDER BY rowid"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            return done.stdout.split()
        lines = path.read_text().splitlines()
        return lines if sink["kind"] == "file" else [json.loads(line)["text"] for line in lines]

    def empty() -> None:
        shutil.rmtree(path.parent, ignore_errors=True)
        if sink["kind"] == "sql":
            path.parent.mkdir()
            words = [sys.executable, "-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(sys.argv[2])"]
            subprocess.run([*words, str(path), "CREATE TABLE notes (text TEXT, n INT)"], check=True)

    yield World(sink=sink, there=there, empty=empty, output=output)


@contextmanager
def database(lab: Lab) -> Iterator[tuple[OutsideLab, Callable[[str], str]]]:
    """A PostgreSQL server, and a way to ask it beside everything."""
    build_all(lab.engine, print, (TEST_POSTGRES,))
    program = HERE / "outside_postgres.py"
    with OutsideLab({"db.example.com": ["origin"]}, program, {"password": SECRET}, TEST_POSTGRES.name) as outside:
        words = ("psql", "-h", "/run/postgresql", "-At", "shop", "-c")
        yield outside, lambda text: outside.ask(*words, text, user="postgres").strip()


POSTGRES = {"kind": "sql", "url": "postgresql://writer@db.example.com/shop", "table": "notes"}
HTTP = {"kind": "http", "url": "https://api.example.com/notes"}


@contextmanager
def postgres(lab: Lab) -> Iterator[World]:
    """A table of a PostgreSQL database."""
    with database(lab) as (outside, ask):
        yield World(
            sink=dict(POSTGRES),
            there=lambda: ask("SELECT text FROM notes ORDER BY text").split(),
            empty=lambda: ask("TRUNCATE notes; DROP TABLE IF EXISTS casemate_writes"),
            outside=outside,
            output=KNOWN,
            ask=ask,
        )


@contextmanager
def http(_lab: Lab, mode: str) -> Iterator[World]:
    """A server that takes posts. With `idempotent`, what has a key that it has seen is no other row."""
    before: set[int] = set()
    with OutsideLab({"api.example.com": ["origin"]}) as outside:

        def posts() -> list[dict[str, Any]]:
            return [request for request in outside.requests if request["method"] == "POST"]

        def there() -> list[str]:
            found = [post for number, post in enumerate(posts()) if number not in before]
            if mode == "idempotent":
                found = list({post["headers"]["idempotency-key"]: post for post in found}.values())
            return [json.loads(post["body"])["text"] for post in found]

        yield World(
            sink={**HTTP, "mode": mode},
            there=there,
            empty=lambda: before.update(range(len(posts()))),
            tells=mode == "idempotent",
            undoes=False,
            outside=outside,
        )


@contextmanager
def remote_tool(lab: Lab) -> Iterator[World]:
    """A write tool of an MCP server elsewhere."""
    build_all(lab.engine, print, (MCP_SERVERS,))
    before: set[int] = set()
    config = {"secret": SECRET, "key": SECRET}
    with OutsideLab({"mcp.example.com": ["origin"]}, HERE / "outside_mcp.py", config, MCP_SERVERS.name) as outside:

        def notes() -> list[str]:
            return [str(line["note"]) for line in outside.told if "note" in line]

        url = "https://mcp.example.com/modern/mcp"
        yield World(
            sink={"kind": "mcp", "server": "notes", "tool": "modern_note"},
            there=lambda: [note for number, note in enumerate(notes()) if number not in before],
            empty=lambda: before.update(range(len(notes()))),
            tells=False,
            undoes=False,
            outside=outside,
            tools={"notes": {"url": url, "secret": "sink", "header": "X-Api-Key", "addresses": [outside.subnet]}},
            pin="notes.modern_note",
        )


MODELS = "s3://models/students"
MLFLOW = {"kind": "mlflow", "url": "https://registry.example.com", "registered_model": "student", "source": MODELS}


class Registry:
    """An MLflow server, asked beside everything."""

    def __init__(self, outside: OutsideLab | None) -> None:
        assert outside is not None
        self.outside = outside

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Ask as the server's owner."""
        words = [] if body is None else [json.dumps(body)]
        said: dict[str, Any] = json.loads(self.outside.ask("python3", "/srv/servers.py", "ask", method, path, *words))
        return said

    def versions(self) -> list[dict[str, Any]]:
        """Return every version of every model, in order, each with its tags."""
        found = self.ask("GET", "model-versions/search").get("model_versions", [])
        for version in found:
            version["tags"] = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
        return sorted(found, key=lambda version: int(version["version"]))

    def alias(self, name: str) -> str | None:
        """Return the version that an alias names."""
        said = self.ask("GET", f"registered-models/alias?name=student&alias={name}")
        found: dict[str, str] = said.get("model_version", {})
        return found.get("version")

    def empty(self) -> None:
        """Forget the model."""
        self.ask("DELETE", "registered-models/delete", {"name": "student"})


@contextmanager
def registry(lab: Lab) -> Iterator[Registry]:
    """A real MLflow server."""
    build_all(lab.engine, print, (TEST_MLFLOW,))
    config, program = {"password": SECRET}, HERE / "outside_mlflow.py"
    with OutsideLab({"registry.example.com": ["origin"]}, program, config, TEST_MLFLOW.name) as outside:
        yield Registry(outside)


@contextmanager
def mlflow(lab: Lab) -> Iterator[World]:
    """A registered model."""
    with registry(lab) as server:
        yield World(
            sink={**MLFLOW, "auth": "basic", "alias": "candidate"},
            there=lambda: [version["tags"]["text"] for version in server.versions()],
            empty=server.empty,
            outside=server.outside,
            secret=f"writer:{SECRET}",
            rows=[{**row, "source": f"{MODELS}/{row['text']}"} for row in ROWS],
            fields={"source": {"type": "string", "maxLength": 200}},
        )


@contextmanager
def repository(lab: Lab) -> Iterator[World]:
    """A git repository, and the pull requests of a forge, whose API is ours."""
    with forge(lab, SECRET) as server:
        yield proposing(SINK, server)


@contextmanager
def real_forge(lab: Lab) -> Iterator[World]:
    """A project at Pagure."""
    with pagure(lab, SECRET) as server:
        yield proposing(PAGURE, server)


def proposing(sink: dict[str, Any], server: Forge | Pagure, secret: str = SECRET) -> World:
    """Return a world where two files are proposed."""
    head = "diff --git a/{0}.md b/{0}.md\nnew file mode 100644\n--- /dev/null\n+++ b/{0}.md\n@@ -0,0 +1 @@\n+x\n"
    return World(
        sink=sink,
        there=server.there,
        empty=server.empty,
        outside=server.outside,
        secret=secret,
        rows=[{"title": name, "patch": head.format(name)} for name in ("one", "two")],
        schema=PROPOSALS,
    )


WORLDS: dict[str, Callable[[Lab], Any]] = {
    "dataset": lambda lab: in_project(lab, {"kind": "dataset", "path": "out/rows.jsonl"}, {}),
    "file": lambda lab: in_project(lab, {"kind": "file", "path": "out/notes.md"}, {}),
    "sqlite": lambda lab: in_project(lab, {"kind": "sql", "url": "sqlite:data/notes.db", "table": "notes"}, KNOWN),
    "postgres": postgres,
    "mlflow": mlflow,
    "git": repository,
    "pagure": real_forge,
    "http idempotent": lambda lab: http(lab, "idempotent"),
    "http": lambda lab: http(lab, "once"),
    "mcp": remote_tool,
}
"""Every kind of sink."""

"""Where runs live: a folder each under CASEMATE_HOME, and a journal: a state is written before it is acted on."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from policies.base import RUN_TIME
from policies.canonical import canonical
from policies.errors import CasemateError
from policies.events import now
from policies.plan import Frozen, Plan, decode, encode
from policies.vocabulary import ExitCode, Outcome
from sandbox.records.anchors import TABLE as CANDIDATES
from sandbox.records.anchors import Candidates
from sandbox.records.days import TABLE, Days
from sandbox.records.locks import take
from sandbox.records.quotas import TABLE as QUOTAS
from sandbox.records.quotas import Quotas
from sandbox.records.writes import TABLE as WRITES
from sandbox.records.writes import Writes

_RUN = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}\Z")

BUSY_S = 30.0
SWEPT_S = 5.0
"""For how long one waits for a run that another verb has taken up, as `casemate gc` does while it sweeps."""

_TABLES = """
create table if not exists runs (
  run text primary key, name text not null, plan text not null, started text not null,
  ended text, outcome text, exit_code integer, summary text
) strict;
create table if not exists transitions (
  run text not null, time text not null, subject text not null, state text not null, detail text
) strict;
"""


class Options(Frozen, frozen=True, kw_only=True):
    """How a run was started: the project's folder, and what `casemate run` was told."""

    root: str
    dry: bool = False
    record: bool = False
    replay: str | None = None


class Store:
    """The runs of one project."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.days = Days(self._journal)
        self.candidates = Candidates(self._journal)
        self.writes = Writes(self._journal)
        self.quotas = Quotas(self._journal)

    def folder(self, run: str) -> Path:
        """Return a run's folder; raise CSM-R012 when there is none."""
        if _RUN.match(run):
            path = self.home / "runs" / run
            if path.is_dir():
                return path
        names = [row["run"] for row in self.runs(limit=1)]
        hint = f"the latest is {names[0]}" if names else "no run has been started here"
        raise CasemateError("CSM-R012", f"unknown run {run!r}", hint=hint, exit_code=ExitCode.USAGE)

    def latest(self) -> str:
        """Return the id of the latest run."""
        for row in self.runs(limit=1):
            return str(row["run"])
        raise CasemateError("CSM-R012", "no run has been started here", exit_code=ExitCode.USAGE)

    @contextmanager
    def new(self, plan: Plan, digest: str, options: Options) -> Iterator[tuple[str, Path]]:
        """Open a run: its folder with the plan, its row in the journal, and its lock for as long as it is driven."""
        run = f"{datetime.now(UTC):{RUN_TIME}}-{secrets.token_hex(3)}"
        folder = self.home / "runs" / run
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.home / "runs").mkdir(exist_ok=True, mode=0o700)
        for part in ("", "writes", "quarantine", "artifacts", "logs"):
            (folder / part).mkdir(parents=True, mode=0o700)
        (folder / "plan.json").write_bytes(encode(plan))
        (folder / "options.json").write_bytes(encode(options))
        with self.taken_up(run):
            with self._journal() as journal:
                row = (run, plan.name, digest, now())
                journal.execute("insert into runs (run, name, plan, started) values (?, ?, ?, ?)", row)
            yield run, folder

    @contextmanager
    def taken_up(self, run: str, wait_s: float = SWEPT_S) -> Iterator[Path]:
        """Hold the lock of a run that nobody drives, and yield its folder; raise CSM-R029 while somebody else does."""
        folder, until = self.folder(run), time.monotonic() + wait_s

        def busy() -> None:
            if time.monotonic() >= until:
                raise CasemateError("CSM-R029", f"{run} is being driven", exit_code=ExitCode.REFUSED)
            time.sleep(0.05)

        with (folder / "lock").open("a") as lock:
            take(lock.fileno(), busy)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield folder

    def digest(self, run: str) -> str:
        """Return the digest of a run's plan."""
        with self._journal() as journal:
            row = journal.execute("select plan from runs where run = ?", (run,)).fetchone()
        if row is None:
            raise CasemateError("CSM-R012", f"{run} is not in the journal", exit_code=ExitCode.USAGE)
        return str(row[0])

    def exit_code(self, run: str) -> int | None:
        """Return what a run ended with, as far as it is known."""
        with self._journal() as journal:
            row = journal.execute("select exit_code from runs where run = ?", (run,)).fetchone()
        return row[0] if row is not None else None

    def options(self, run: str) -> Options:
        """Return how a run was started."""
        return decode((self.folder(run) / "options.json").read_bytes(), Options, code="CSM-R012")

    def transitions(self, run: str) -> list[tuple[str, str, str | None]]:
        """Return subject, state and detail of every transition of a run, in order."""
        with self._journal() as journal:
            query = "select subject, state, detail from transitions where run = ? order by rowid"
            return journal.execute(query, (run,)).fetchall()

    def transition(self, run: str, subject: str, state: str, detail: str | None = None) -> None:
        """Write down a transition, durably, before it is acted on."""
        with self._journal() as journal:
            journal.execute("insert into transitions values (?, ?, ?, ?, ?)", (run, now(), subject, state, detail))

    def reopen(self, run: str) -> None:
        """Write down that a run which had stopped goes on."""
        with self._journal() as journal:
            query = "update runs set ended = null, outcome = null, exit_code = null, summary = null where run = ?"
            journal.execute(query, (run,))

    def signal(self, run: str, number: int) -> bool:
        """Send a signal to whoever drives a run; False when nobody does."""
        folder = self.folder(run)
        try:
            driver = os.pidfd_open(int((folder / "lock").read_text()))
        except (OSError, ValueError):
            return False
        try:
            if not is_driven(folder):  # asked after the process was taken hold of: it is not another of that number
                return False
            signal.pidfd_send_signal(driver, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(driver)
        return True

    def end(self, run: str, outcome: Outcome, exit_code: ExitCode, summary: dict[str, Any]) -> None:
        """Write down how a run ended."""
        text = canonical(summary).decode()
        with self._journal() as journal:
            journal.execute(
                "update runs set ended = ?, outcome = ?, exit_code = ?, summary = ? where run = ?",
                (now(), outcome.value, int(exit_code), text, run),
            )

    def runs(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the latest runs, newest first; one that is neither ended nor driven has the outcome `crashed`."""
        with self._journal() as journal:
            journal.row_factory = sqlite3.Row
            rows = journal.execute("select * from runs order by run desc limit ?", (limit,)).fetchall()
        result = []
        for row in map(dict, rows):
            if row["outcome"] is None:
                row["outcome"] = "running" if is_driven(self.home / "runs" / row["run"]) else "crashed"
            row["summary"] = json.loads(row["summary"]) if row["summary"] else None
            result.append(row)
        return result

    def plan(self, run: str) -> Plan:
        """Return the plan of a run."""
        return decode((self.folder(run) / "plan.json").read_bytes(), Plan)

    @contextmanager
    def _journal(self) -> Iterator[sqlite3.Connection]:
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self.home / "journal.db", timeout=BUSY_S)
        try:
            _prepare(connection)
            with connection:
                yield connection
        finally:
            connection.close()


def _prepare(connection: sqlite3.Connection) -> None:
    """Set up a journal. Two that open a new one at once exclude each other, and SQLite does not wait for that."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=full")
            connection.executescript(_TABLES + TABLE + CANDIDATES + WRITES + QUOTAS)
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)
        else:
            return


def is_driven(folder: Path) -> bool:
    """Tell whether an orchestrator holds a run's lock. A missing lock means that nobody does."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def load_plan(data: bytes) -> Plan:
    """Read a plan file (a final newline is allowed)."""
    return decode(data.removesuffix(b"\n"), Plan)


def as_json(value: msgspec.Struct) -> Any:
    """Return plain JSON data."""
    return msgspec.to_builtins(value)

"""Customs as a process, for tests: what it is given, and what became of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from policies.canonical import canonical, digest
from policies.plan import Plan
from policies.vocabulary import Component
from policies.writes import GENESIS, Declaration, Proposal, SetFile
from tests.gateway.kit import birth, make_output, make_plan, start

SECRET = "hunter2-canary-9f8e7d"


@dataclass(frozen=True)
class Judged:
    """What customs left behind."""

    code: int
    events: list[dict[str, Any]]
    error: str
    out: Path

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name).read_bytes().splitlines()]

    def declaration(self) -> Declaration:
        return msgspec.json.decode((self.out / "declaration.json").read_bytes(), type=Declaration)


def chained(records: list[tuple[str, dict[str, Any]]], stage: str = "draft") -> tuple[bytes, str]:
    """The buffer that serve would have written for these outputs and records, and the digest of its last line."""
    prev, lines = GENESIS, []
    for seq, (output, record) in enumerate(records):
        proposal = Proposal(seq=seq, prev=prev, id=f"{stage}-{seq}", stage=stage, output=output, record=record)
        lines.append(canonical(msgspec.to_builtins(proposal)))
        prev = digest(lines[-1])
    return b"".join(line + b"\n" for line in lines), prev


def judge(
    root: Path,
    plan: Plan,
    buffers: dict[str, bytes],
    facts: dict[str, str],
    *,
    secrets: dict[str, str] | None = None,
    message: bytes | None = None,
    more: dict[str, str] | None = None,
) -> Judged:
    (root / "in").mkdir(parents=True, exist_ok=True)
    (root / "out").mkdir(exist_ok=True)
    for stage, data in buffers.items():
        (root / "in" / f"{stage}.jsonl").write_bytes(data)
    given_facts = {f"buffer/{stage}": last for stage, last in facts.items()} | (more or {})
    told = message or birth(plan, Component.CUSTOMS, secrets={"hub": SECRET, **(secrets or {})}, facts=given_facts)
    process = start("customs", root, told)
    assert process.stdout is not None
    assert process.stderr is not None
    said, error = process.stdout.read(), process.stderr.read().decode()
    process.stdout.close()
    process.stderr.close()
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["n"] for event in events] == list(range(len(events)))
    return Judged(process.wait(60), events, error, root / "out")


def judge_file(root: Path, data: bytes, plan: Plan, *, vouched: dict[str, str] | None = None, **changes: Any) -> Judged:
    """Judge a file of records that one proposal names. `vouched`: what the log says of it, if not what is true."""
    file = SetFile(path="x")
    proposal = Proposal(seq=0, prev=GENESIS, id="draft-0", stage="draft", output="samples", record={}, file=file)
    line = canonical(msgspec.to_builtins(proposal))
    (root / "in" / "sets").mkdir(parents=True)
    (root / "in" / "sets" / "draft-0.jsonl").write_bytes(data)
    more = {"set/draft-0": digest(data)} if vouched is None else vouched
    return judge(root, plan, {"draft": line + b"\n"}, {"draft": digest(line)}, more=more, **changes)


def one(root: Path, records: list[dict[str, Any]], **changes: Any) -> Judged:
    """Judge records of one output of one stage."""
    data, last = chained([("samples", record) for record in records])
    return judge(root, make_plan(make_output(**changes)), {"draft": data}, {"draft": last})

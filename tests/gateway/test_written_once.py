"""The rows of a file that is accepted whole are written once; whatever is taken out of it, the others stay in order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.customs.run import SMALL
from policies.canonical import digest
from tests.gateway.judged import SECRET, judge_file
from tests.gateway.kit import make_output, make_plan
from tests.gateway.sheets import closed

SCHEMA = closed({"n": {"type": "integer"}, "text": {"type": "string"}}, required=["n", "text"])
MADE = {"declaration.json", "quarantine.jsonl", "verdicts.jsonl"}
Rows = list[dict[str, Any]]


def clean(rows: Rows) -> set[int]:
    """Leave rows as they are; return which will not be written."""
    return set()


def with_a_secret(rows: Rows) -> set[int]:
    rows[len(rows) // 2]["text"] = f"it is {SECRET}"
    return {len(rows) // 2}


def with_one_twice(rows: Rows) -> set[int]:
    rows[-2]["n"] = rows[1]["n"]
    return {len(rows) - 2}


def with_a_secret_over_rows(rows: Rows) -> set[int]:
    rows[7]["text"], rows[8]["text"] = SECRET[:10], SECRET[10:]
    return {7, 8}


@pytest.mark.parametrize("count", [40, 12_000])
@pytest.mark.parametrize("change", [clean, with_a_secret, with_one_twice, with_a_secret_over_rows])
def test_every_other_row_is_written_in_order(tmp_path: Path, count: int, change: Callable[[Rows], set[int]]) -> None:
    rows: Rows = [{"text": "The harbour lies at the river. " * 14, "n": n} for n in range(count)]
    without = change(rows)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert (len(data) > SMALL) == (count > 40), "the many are judged by several processes"
    output = make_output(schema=SCHEMA, unique=["n"], per_run=count, max_bytes=1 << 30, scan=["secrets"])
    judged = judge_file(tmp_path, data, make_plan(output))
    assert judged.code == 0, judged.error
    kept = [row for number, row in enumerate(rows) if number not in without]
    lines = "".join(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in kept).encode()
    (written,) = judged.declaration().written
    assert (judged.out / written.file).read_bytes() == lines
    assert (written.rows, written.size, written.digest) == (len(kept), len(lines), digest(lines))
    assert {path.name for path in judged.out.iterdir()} >= MADE
    assert not [path.name for path in judged.out.iterdir() if path.name.startswith(".")]


def test_a_set_that_is_written_whole_or_not_at_all_is_not(tmp_path: Path) -> None:
    rows: Rows = [{"text": "The harbour lies at the river. " * 14, "n": n} for n in range(12_000)]
    with_a_secret(rows)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    output = make_output(
        schema=SCHEMA, atomic="batch", unique=["n"], per_run=12_000, max_bytes=1 << 30, scan=["secrets"]
    )
    judged = judge_file(tmp_path, data, make_plan(output))
    assert (judged.declaration().accepted, judged.declaration().written) == ({"samples": 0}, [])
    assert len(judged.lines("quarantine.jsonl")) == 12_000
    assert not [path.name for path in judged.out.iterdir() if path.name.startswith(".") or "samples" in path.name]

"""`python -m tests.bench.customs [ROWS]`: what customs costs, beside others on the same bytes.

Rows are honest texts in six languages and code, about 430 bytes each, with every check on. Figures: MB of input a
second of CPU (of all processes), wall time, and the largest resident memory of a process. Run it where nothing else
runs: `python -m tests.rooms run tests.bench.customs 10000000`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import orjson

from gateway.customs.examine import examiner
from gateway.customs.intake import CHUNK_BYTES
from gateway.customs.scan.values import needles
from gateway.schema import Schema
from policies.canonical import canonical, digest
from policies.plan import Bound, Distribution, ProbeFile
from policies.vocabulary import Component
from policies.writes import GENESIS, Proposal, SetFile
from tests.gateway.kit import birth, make_output, make_plan

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 0},
        "language": {"enum": ["en", "de", "fr", "ru", "zh", "ja", "py"], "type": "string"},
        "question": {"type": "string", "minLength": 1, "maxLength": 2000},
        "answer": {"type": "string", "maxLength": 8000},
        "score": {"type": "number"},
        "words": {"type": "integer"},
    },
    "required": ["id", "question", "answer", "score"],
    "additionalProperties": False,
}
SECRETS = {
    "hub": "Zq7-canary/Kp9+vault_31x",
    "db": "postgresql://app:h0rse-battery@db/app",
    "llm": "sk-test-" + "a1B2c3D4" * 5,
}
TEXTS = {
    "en": "The old harbour lies at the mouth of the river, where boats bring fish, salt and letters from the islands every morning.",  # noqa: E501
    "de": "Der alte Hafen liegt an der Mündung des Flusses; jeden Morgen bringen Boote Fisch, Salz und Briefe von den Inseln.",  # noqa: E501
    "fr": "Le vieux port se trouve à l'embouchure du fleuve, où des bateaux apportent chaque matin du poisson et du sel.",  # noqa: E501
    "ru": "Старая гавань лежит в устье реки, и каждое утро лодки привозят туда рыбу, соль и письма с островов.",
    "zh": "老港口位于河口，每天早晨船只从岛上运来鱼、盐和信件。人们在市场上交易，孩子们在岸边玩耍。",
    "ja": "古い港は川の河口にあり、毎朝、島々から魚や塩、手紙を運ぶ船がやって来る。",
    "py": "def total(rows: list[Row], start: int = 0) -> int:\n    return start + sum(row.count for row in rows if not row.deleted)\n",  # noqa: E501
}


SCORES = Distribution(n=10_000, mean=0.4995, sd=0.2887, nulls=0, centiles=[part / 100 for part in range(101)])
HISTORY = Bound(min=0, max=1, sigma=4, anchor=SCORES)
PROBES = [f"Question {n}: how many of {n * 7919} boats carry {n} barrels of fish?" for n in range(1000)]


def rows(count: int) -> Iterator[bytes]:
    """Yield honest rows as an agent's program would write them."""
    random.seed(11)
    tags = list(TEXTS)
    for number in range(count):
        tag = tags[number % 11] if number % 11 < len(tags) else "en"
        text = TEXTS[tag]
        cut = random.randrange(len(text))
        row = {
            "id": number,
            "language": tag,
            "question": f"Number {number}: {text[cut:]}?",
            "answer": f"{text}\n{text[cut:]} {text[:cut]} ({number * 7919 % 100003})",
            "score": (number * 37 % 1000) / 1000,
            "words": len(text) // 5,
        }
        yield json.dumps(row, ensure_ascii=False).encode()


def main(count: int) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        root = Path(name)
        path, size = _write(root, count)
        print(f"{count:,} rows, {size / 1e6:,.0f} MB")
        for cores in (1, 2):
            _customs(root, count, path, cores)
        lines = list(rows(min(count, 200_000)))
        _pieces(lines)
        _others(root, lines)


def _write(root: Path, count: int) -> tuple[Path, int]:
    path = root / "draft-0.jsonl"
    with path.open("wb") as file:
        for row in rows(count):
            file.write(row + b"\n")
    return path, path.stat().st_size


def _output(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "schema": SCHEMA, "bounds": {"score": HISTORY, "words": Bound(min=0, max=1000)}, "unique": ["id"],
        "scan": ["links", "pii", "secrets", "unicode"], "per_run": 10_000_000, "max_bytes": 1 << 40,
    }  # fmt: skip
    return make_output(**{**values, **changes})


def _customs(root: Path, count: int, path: Path, cores: int) -> None:
    probes = "\n".join(PROBES).encode()
    plan = make_plan(_output(probes=[ProbeFile(path="probes.txt", digest=digest(probes))]))
    proposal = Proposal(
        seq=0, prev=GENESIS, id="draft-0", stage="draft", output="samples", record={}, file=SetFile(path="x")
    )
    line = canonical(msgspec.to_builtins(proposal))
    folder = root / f"run-{cores}"
    (folder / "in" / "sets").mkdir(parents=True)
    (folder / "in" / "probes").mkdir()
    (folder / "in" / "probes" / digest(probes).removeprefix("sha256:")).write_bytes(probes)
    (folder / "out").mkdir()
    (folder / "in" / "draft.jsonl").write_bytes(line + b"\n")
    os.link(path, folder / "in" / "sets" / "draft-0.jsonl")
    with path.open("rb") as file:
        facts = {
            "buffer/draft": digest(line),
            "set/draft-0": f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}",
        }
    message = birth(plan, Component.CUSTOMS, secrets=SECRETS, facts=facts)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [
        "taskset",
        "-c",
        "0" if cores == 1 else "0,1",
        sys.executable,
        "-m",
        "gateway",
        "customs",
        "--root",
        str(folder),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(message)
    process.stdin.close()
    peak = _watch(process)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    kernel = after.ru_stime - before.ru_stime
    cpu = after.ru_utime - before.ru_utime + kernel
    wall = time.monotonic() - began
    declared = orjson.loads((folder / "out" / "declaration.json").read_bytes())
    size = path.stat().st_size / 1e6
    assert declared["accepted"] == {"samples": count}, declared
    print(
        f"customs, {cores} core(s): {size / cpu:6.1f} MB/CPU s  {size / wall:6.1f} MB/s  {cpu / count * 1e6:5.2f} µs a row ({kernel / count * 1e6:.2f} in the kernel)  {peak:.0f} MB"  # noqa: E501
    )
    for part in (folder / "out").iterdir():
        part.unlink()


def _watch(process: subprocess.Popen[bytes]) -> float:
    """Return the largest resident memory (MB) of one process of a group, while it runs."""
    peak = 0
    while process.poll() is None:
        for pid in (process.pid, *_children(process.pid)):
            try:
                text = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for line in text.splitlines():
                if line.startswith("VmRSS:"):
                    peak = max(peak, int(line.split()[1]))
        time.sleep(0.2)
    assert process.returncode == 0
    return peak / 1024


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _pieces(lines: list[bytes]) -> None:
    """What each check adds, one after the other, in one process without files."""
    size = sum(map(len, lines)) / 1e6
    steps: dict[str, dict[str, Any]] = {
        "decode, schema": {"scan": [], "bounds": {}, "unique": []},
        "and bounds, unique": {"scan": [], "bounds": {"score": Bound(min=0, max=1)}},
        "and history": {"scan": []},
        "and secrets": {"scan": ["secrets"]},
        "and pii": {"scan": ["pii", "secrets"]},
        "and unicode": {"scan": ["pii", "secrets", "unicode"]},
        "and links": {},
        "and probes": {},
    }
    probes = {f"p:{n}": text for n, text in enumerate(PROBES)}
    known = needles(SECRETS)
    few = CHUNK_BYTES * len(lines) // sum(map(len, lines))
    blocks = [b"\n".join(lines[n : n + few]) for n in range(0, len(lines), few)]
    for name, changes in steps.items():
        output = _output(**changes)
        work = examiner(output, known if "secrets" in output.scan else [], b"k", probes if "probes" in name else {})
        seconds = _timed(lambda: [work.examine(block) for block in blocks])  # noqa: B023
        print(f"  {name:22} {size / seconds:7.1f} MB/CPU s  {seconds / len(lines) * 1e6:5.2f} µs a row")


def _others(root: Path, lines: list[bytes]) -> None:
    size = sum(map(len, lines)) / 1e6
    rust, python = Schema(SCHEMA, "bench"), jsonschema.Draft202012Validator(SCHEMA)
    few = lines[: len(lines) // 20]
    contestants: dict[str, tuple[Callable[[], object], float]] = {
        "orjson alone": (lambda: deque(map(orjson.loads, lines), maxlen=0), size),
        "orjson, jsonschema-rs": (lambda: [rust.fits(orjson.loads(line)) for line in lines], size),
        "orjson, jsonschema": (lambda: [python.is_valid(orjson.loads(line)) for line in few], size / 20),
    }
    for name, (work, megabytes) in contestants.items():
        print(f"  {name:22} {megabytes / _timed(work):7.1f} MB/CPU s")
    for name, command, some in (
        ("detect-secrets", [sys.executable, "-m", "detect_secrets", "scan", "--no-verify"], few),
        ("kingfisher", ["kingfisher", "scan", "--no-validate", "--format", "json"], lines),
    ):
        _scanner(root, name, command, some)


def _scanner(root: Path, name: str, command: list[str], lines: list[bytes]) -> None:
    """Measure a program. It runs once before on one line, for what it keeps for the next time, as compiled rules."""
    cpu = 0.0
    for some in (lines[:1], lines):
        sample = root / f"{name}.jsonl"
        sample.write_bytes(b"\n".join(some))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            done = subprocess.run([*command, str(sample)], capture_output=True, timeout=600, check=False, cwd=root)
        except FileNotFoundError:
            done = None
        if done is None or b"No module named" in done.stderr:
            print(f"  {name:22} not installed")
            return
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = sum(map(len, lines)) / 1e6
    print(f"  {name:22} {size / cpu:7.1f} MB/CPU s, {size:.0f} MB with its start")


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500_000)

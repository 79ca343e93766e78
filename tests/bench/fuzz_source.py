"""`python -m tests.bench.fuzz_source [SECONDS]`: mutated workflows through everything that reads one.

Seeds are the sound workflow of the tests and every wrong one. Whatever comes in, findings or a plan come out; anything
else is printed with the input that caused it, and the exit code is 1.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

from policies.errors import CasemateError
from sandbox.compiler.compile import compile_plan, wanted_images
from sandbox.compiler.resolve import resolve
from sandbox.language.findings import FindingsError, has_errors
from sandbox.lineage.registry import registry
from sandbox.plan_check.invariants import violations
from sandbox.project import open_project
from sandbox.records.store import as_json
from tests.plans import SCHEMA, SHA
from tests.sandbox.conftest import WORKFLOW
from tests.sandbox.test_findings import CASES, prepare

PIECES = [
    *(b":", b"{", b"}", b"[", b"]", b"\n", b"- ", b"&a ", b"*a", b"'", b'"', b"\xff", b"\t", b"0", b"#", b"|", b">"),
    *(b"<<: ", b"null", b"~", b"true", b"1e999", b".nan", b"0x1", b"-1", b"9" * 30, b"!!str ", b"\x00", b"\r"),
    *(b"---\n", b"stages", b"outputs: ", b"models: {}", b"../", b"/etc/passwd", b"*.com", b"127.0.0.1", b"{a: [b]}"),
    *("\u200b".encode(), "\U0001f600".encode()),
]  # fmt: skip


def mutate(random: Random, text: bytes, other: bytes) -> bytes:
    """Return `text` with a few pieces changed, moved or taken from another seed."""
    data = bytearray(text)
    for _ in range(random.choice([1, 1, 2, 4, 8])):
        at, length = random.randint(0, len(data)), random.choice([0, 1, 2, 5, 20, 80])
        match random.randint(0, 4):
            case 0 | 1:
                data[at : at + length] = random.choice(PIECES)
            case 2:
                start = random.randint(0, len(other))
                data[at:at] = other[start : start + length]
            case 3:
                data[at : at + length] = data[at : at + length] * random.randint(0, 3)
            case _:
                lines = bytes(data).split(b"\n")
                random.shuffle(lines) if random.random() < 0.1 else lines.insert(
                    random.randint(0, len(lines)), random.choice(lines)
                )
                data = bytearray(b"\n".join(lines))
    return bytes(data)


def main() -> int:
    """Fuzz for as long as the argument says (seconds, 60 by default)."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    seeds = [WORKFLOW.encode(), *(WORKFLOW.replace(old, new, 1).encode() for old, new, _, _ in CASES)]
    random, tried, refused, crashes = Random(0), 0, 0, 0
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root)
        (root / "seeds.jsonl").write_text("{}\n")
        (root / "rows.json").write_text(json.dumps(SCHEMA))
        path = root / "workflow.yaml"
        while time.monotonic() < until:
            text = mutate(random, random.choice([seeds[0], random.choice(seeds)]), random.choice(seeds))
            path.write_bytes(text)
            tried += 1
            try:
                project = open_project(path)
                if project.workflow is None or project.document is None or has_errors(project.findings):
                    refused += 1
                    continue
                images = dict.fromkeys(wanted_images(project.workflow), SHA)
                facts = resolve(project.workflow, root, images)
                plan = compile_plan(project.workflow, project.document, facts, dict(registry()))
                assert violations(as_json(plan)) == []
            except (FindingsError, CasemateError):
                refused += 1
            except Exception:  # noqa: BLE001 - this is what is looked for
                crashes += 1
                print(text, traceback.format_exc(), sep="\n")
                if crashes >= 10:
                    break
    print(f"{tried} inputs, {refused} refused, {tried - refused - crashes} compiled and sound, {crashes} crashes")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())

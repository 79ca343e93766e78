"""Files of records: every line of theirs is judged once, in order, however the file is cut for those who judge."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gateway.customs import intake
from gateway.customs.intake import TOO_LONG, Chunk, Names
from policies.errors import CasemateError
from tests.gateway.judged import judge_file
from tests.gateway.kit import make_output, make_plan


def cut(path: Path) -> list[bytes]:
    """Return the rows of a file, as they come to who judges them; every byte of it is seen."""
    slices = list(intake._slices(path))
    chunks = [bytes(Chunk("samples", "draft", Names(set="draft-0"), lines).read()) for lines in slices]
    assert b"".join(part for lines in slices for part in lines.parts()) == path.read_bytes()
    return [line for chunk in chunks for line in chunk.split(b"\n") if line]


@pytest.mark.parametrize("seed", range(300))
def test_no_line_is_lost_or_cut(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(seed)
    size = source.choice([8, 32, 200])
    longest = size + source.choice([0, 5, 60])
    for name, value in (("CHUNK_BYTES", size), ("MOST_BYTES", longest + 1), ("_STEP", source.choice([1, 7, 64]))):
        monkeypatch.setattr(intake, name, value)
    lines = [
        b"x" * source.choice([0, 1, 3, 9, 30, 100, 250, longest, longest + 2]) for _ in range(source.randrange(40))
    ]
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\n".join(lines) + source.choice([b"", b"\n", b"\n\n"]))
    wanted = [line for line in lines if line]
    found = cut(path)
    assert len(found) == len(wanted)
    for line, row in zip(wanted, found, strict=True):
        assert row == line or (row == TOO_LONG and len(line) > longest)


def test_a_line_that_is_too_long_is_rejected_alone_in_a_file_that_many_judge(tmp_path: Path) -> None:
    honest = [b'{"prompt": "row %d"}' % number for number in range(250_000)]
    honest[100_000:100_000] = [b'{"prompt": "%s"}' % (b"x" * (20 << 20)), b"", b'{"prompt": "\xff"}']
    honest[70:70] = [b'{"prompt": "%s"}' % (b"x" * (9 << 20))]
    judged = judge_file(tmp_path, b"\n".join(honest), make_plan(make_output(max_bytes=1 << 30, per_run=10**6)))
    assert judged.code == 0, judged.error
    verdicts = {line["id"]: line["verdict"] for line in judged.lines("verdicts.jsonl")}
    assert verdicts == {"draft-0#70": "reject", "draft-0#100001": "reject", "draft-0#100002": "reject"}
    assert judged.declaration().accepted == {"samples": 250_000}


def test_bytes_are_counted_over_a_file_as_they_were_proposed(tmp_path: Path) -> None:
    lines = [b'{"prompt": "row %06d"}' % number for number in range(200_000)]
    size = len(lines[0]) + 1
    plan = make_plan(make_output(max_bytes=size * 123_456 + size // 2, per_run=10**6))
    judged = judge_file(tmp_path, b"\n\n".join(lines), plan)
    assert judged.code == 0, judged.error
    assert judged.declaration().accepted == {"samples": 123_456}
    assert judged.lines("verdicts.jsonl")[0]["id"] == "draft-0#123456"


def test_a_file_that_has_become_shorter_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'{"n":1}\n{"n":2}\n')
    (found,) = intake._slices(path)
    assert found.read() == b'{"n":1}\n{"n":2}\n'
    path.write_bytes(b'{"n":1}\n')
    with pytest.raises(CasemateError, match="CSM-W007"):
        found.read()

"""Every case with its verdict, by customs as a process: a file of records, over several workers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from gateway.customs.run import SMALL
from policies.canonical import digest
from policies.plan import Output
from tests.gateway.judged import Judged, judge_file
from tests.gateway.kit import make_output, make_plan
from tests.gateway.test_decode import SECOND_READINGS
from tests.gateway.test_rules import POSITIVE
from tests.gateway.test_secrets import GUISES, HONEST, SECRET
from tests.gateway.test_text_checks import BAD_LINKS, DECEITS, GOOD_LINKS, NOBODY, PERSONAL, PLAIN

OUTPUT = make_output(
    schema={"type": "object"},
    scan=["links", "pii", "secrets", "unicode"],
    hosts=["example.com", "localhost"],
    bounds={},
    unique=["n"],
    per_run=10**6,
    max_bytes=1 << 30,
)
FLAT = msgspec.structs.replace(
    OUTPUT,
    schema={
        "type": "object",
        "properties": {"n": {"type": ["string", "integer"]}, "text": {"type": "string"}},
        "required": ["n"],
        "additionalProperties": False,
    },
)
"""The same for records whose schema is closed, and that are read another way."""
REJECTED: dict[str, Any] = (
    {f"secret {name}": value for name, value in GUISES.items()}
    | {f"token {name}": value for name, value in POSITIVE.items()}
    | {f"person {text}": text for text in PERSONAL[:-1]}
    | {f"deceit {text!a}": text for text in DECEITS}
    | {f"link {text!a}": text for text in BAD_LINKS}
)
ACCEPTED: dict[str, Any] = (
    {f"honest {name}": value for name, value in HONEST.items() if name != "mail"}
    | {f"plain {text!a}": text for text in PLAIN}
    | {f"nobody {text}": text for text in NOBODY}
    | {f"no link {text!a}": text for text in GOOD_LINKS}
)


def set_of(root: Path, lines: list[bytes], output: Output = OUTPUT, **changes: Any) -> Judged:
    """Judge the lines of one file of records."""
    return judge_file(root, b"\n".join(lines) + b"\n", make_plan(output), secrets={"hub": SECRET}, **changes)


def test_there_are_many_cases() -> None:
    assert len(REJECTED) + len(SECOND_READINGS) >= 150
    assert len(ACCEPTED) >= 70


def is_plain(value: object) -> bool:
    return isinstance(value, str) and all(char >= " " or char in "\t\n\r" for char in value)


@pytest.mark.parametrize(("seed", "output"), [(1, OUTPUT), (2, OUTPUT), (3, FLAT)], ids=["one", "two", "flat"])
def test_every_case_has_its_verdict_among_many_honest_rows(tmp_path: Path, seed: int, output: Output) -> None:
    cases = [(name, value, "reject") for name, value in REJECTED.items()]
    cases += [(name, value, "accept") for name, value in ACCEPTED.items()]
    if output is FLAT:
        cases = [case for case in cases if is_plain(case[1])]
        assert len(cases) > 200
    filler = "An honest sentence about the weather, the sea and the price of fish, of no interest to anybody. "
    rows: list[tuple[str, bytes, str]] = [
        (name, orjson.dumps({"n": f"case {number}", "text": value}), verdict)
        for number, (name, value, verdict) in enumerate(cases)
    ]
    bad = [line for line in SECOND_READINGS if 0 < len(line) < 10**6 and output is OUTPUT]
    rows += [(f"reading {line!r}", line, "reject") for line in bad]
    rows += [("filler", orjson.dumps({"n": number, "text": filler * 4}), "accept") for number in range(12_000)]
    rows += [("twice", orjson.dumps({"text": filler, "n": number}), "reject") for number in range(0, 12_000, 1000)]
    firsts, lasts = rows[:-12], rows[-12:]
    random.Random(seed).shuffle(firsts)
    rows = [*firsts, *lasts]
    judged = set_of(tmp_path, [line for _, line, _ in rows], output)
    assert judged.code == 0, judged.error
    verdicts = {line["id"]: line for line in judged.lines("verdicts.jsonl")}
    wrong = []
    for number, (name, _, expected) in enumerate(rows):
        found = verdicts.get(f"draft-0#{number}", {"verdict": "accept"})
        if found["verdict"] != expected:
            wrong.append((name, found))
    assert wrong == []
    assert judged.declaration().accepted == {"samples": sum(verdict == "accept" for _, _, verdict in rows)}
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in judged.out.iterdir())


def test_a_file_that_is_not_the_one_of_the_log_is_refused(tmp_path: Path) -> None:
    good = [b'{"n":1}']
    assert set_of(tmp_path / "a", good).declaration().accepted == {"samples": 1}
    for number, facts in enumerate(({"set/draft-0": digest(b'{"n":1}\n')}, {})):
        judged = set_of(tmp_path / str(number), [b'{"n":2}'], vouched=facts)
        assert (judged.code, judged.error[:8], list(judged.out.iterdir())) == (2, "CSM-W007", [])


def test_a_file_that_many_judge_and_that_differs_in_its_end_is_refused_whole(tmp_path: Path) -> None:
    many = [b'{"n":%d}' % number for number in range(500_000)]
    whole = b"".join(line + b"\n" for line in many)
    assert len(whole) > SMALL
    assert set_of(tmp_path / "as it is", many, vouched={"set/draft-0": digest(whole)}).code == 0
    for name, changed in (
        ("one byte", [*many[:-1], b'{"n":499990}']),
        ("more", [*many, b'{"n":500000}']),
        ("less", many[:-1]),
    ):
        judged = set_of(tmp_path / name, changed, vouched={"set/draft-0": digest(whole)})
        assert (judged.code, judged.error[:8], list(judged.out.iterdir()), judged.events) == (2, "CSM-W007", [], [])

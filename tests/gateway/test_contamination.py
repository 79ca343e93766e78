"""Rows that hold a probe of an evaluation are found, whatever they look like, and honest ones are not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.customs.checks import contamination
from gateway.customs.checks.base import Candidate
from gateway.customs.checks.contamination import WINDOW, Contamination
from gateway.customs.scan.plane import squeeze
from gateway.customs.sieve import planes
from policies.canonical import digest
from policies.plan import ProbeFile
from policies.probes import LEAST, read_probes, tells
from tests.gateway.judged import chained, judge
from tests.gateway.kit import make_output, make_plan

LONG = "A train leaves Hamburg at 9:40 and arrives in Kiel 75 minutes later; how fast was it over these 97 kilometres?"
SHORT = "Which of the metals melts at 3,422 °C?"
RUSSIAN = "Какой металл плавится при температуре 3422 градуса по Цельсию и где его применяют?"
CHINESE = "哪一种金属在三千四百二十二摄氏度时熔化并且被用于白炽灯的灯丝"
PROBES = {"evals.jsonl:1": LONG, "evals.jsonl:2": SHORT, "evals.jsonl:3": RUSSIAN, "evals.jsonl:4": CHINESE}
CHECK = Contamination(PROBES)

HELD = {
    "as it is": ({"question": LONG}, 1),
    "in a text": ({"question": f"Tell me: {LONG} Thanks."}, 1),
    "a part of it": ({"question": LONG[20:90]}, 1),
    "in capitals": ({"question": LONG.upper()}, 1),
    "without spaces": ({"question": LONG.replace(" ", "")}, 1),
    "with others between": ({"question": LONG.replace(" ", " \u200b* ")}, 1),
    "in wide letters": ({"question": "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in LONG)}, 1),
    "with a look-alike": ({"question": LONG.replace("a", "а")}, 1),
    "over two fields": ({"question": LONG[:30], "answer": LONG[30:]}, 1),
    "in a list": ({"turns": [{"text": "no"}, {"text": LONG}]}, 1),
    "a short one": ({"question": "I ask: which of the metals melts at 3422 °c?"}, 2),
    "Russian": ({"question": RUSSIAN[10:]}, 3),
    "Chinese": ({"question": f"请问：{CHINESE}？"}, 4),
}


@pytest.mark.parametrize("name", HELD)
def test_a_row_that_holds_a_probe_is_found(name: str) -> None:
    record, line = HELD[name]
    honest: dict[str, Any] = {"question": "How far is it from Kiel to Hamburg?"}
    assert CHECK.rows([honest, honest, record, honest]) == {2: f"evals.jsonl:{line}"}
    (reason,) = CHECK(Candidate(record=record, size=1))
    assert (reason.code, reason.excerpt) == ("CSM-W022", f"evals.jsonl:{line}")


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"question": ""},
        {"question": squeeze(LONG)[: WINDOW - 1]},
        {"question": SHORT[:-6]},
        {"question": LONG[:40], "answer": "and then " + LONG[40:80]},
        {LONG: 1},
        {"question": "Which of the metals melts at 1,538 °C?"},
        {"n": 3422},
    ],
)
def test_an_honest_row_is_none(record: dict[str, Any]) -> None:
    assert CHECK.rows([record, record]) == {}
    assert CHECK.rows([{"question": LONG}]), "the control"


def test_a_probe_that_is_cut_between_two_rows_is_in_neither() -> None:
    assert CHECK.rows([{"question": LONG[:55]}, {"question": LONG[55:]}]) == {}


@given(
    text=st.text(
        st.characters(max_codepoint=0x24F, exclude_characters="ßŉǰ\xaa\xba\xb2\xb3\xb9\xbc\xbd\xbeĲĳĿŀǄǅǆǇǈǉǊǋǌǱǲǳİ"),
        min_size=1,
        max_size=300,
    ),
    start=st.integers(0, 200),
)
def test_any_window_of_any_probe_is_found_and_nothing_else_by_chance(text: str, start: int) -> None:
    probe = squeeze(text)
    found = Contamination({"p:1": text}).rows([{"a": "zz " + text[min(start, len(text) - 1) :]}])
    shared = squeeze("zz " + text[min(start, len(text) - 1) :])
    long = len(probe) >= WINDOW and any(probe[n : n + WINDOW] in shared for n in range(len(probe) - WINDOW + 1))
    brief = LEAST <= len(probe) < WINDOW and probe in shared
    assert bool(found) == (long or brief)


_few_letters = st.text("abc", min_size=LEAST, max_size=80)


@given(probes=st.lists(_few_letters, min_size=1, max_size=5), data=st.data())
def test_probes_of_any_lengths_are_found_together_as_each_is_alone(probes: list[str], data: st.DataObject) -> None:
    cuts = st.sampled_from(probes).flatmap(lambda text: st.integers(0, 30).map(lambda start: text[start:]))
    texts = data.draw(st.lists(st.tuples(_few_letters, cuts).map("".join), min_size=1, max_size=12))
    found = Contamination({str(n): probe for n, probe in enumerate(probes)}).rows([{"a": text} for text in texts])
    for row, text in enumerate(texts):
        windows = {
            n: {probe[at : at + WINDOW] for at in range(max(len(probe) - WINDOW, 0) + 1)}
            for n, probe in enumerate(probes)
        }
        held = {str(n) for n, some in windows.items() if any(window in text for window in some)}
        assert (found[row] in held) if row in found else not held


def test_thousands_of_probes_over_thousands_of_rows() -> None:
    words = random.Random(5)
    made = [" ".join(f"w{words.randrange(10**6)}" for _ in range(20)) for _ in range(3000)]
    check = Contamination({f"p:{n}": text for n, text in enumerate(made[:1500])})
    found = check.rows([{"a": text} for text in made])
    assert found == {n: f"p:{n}" for n in range(1500)}


def test_probe_files_are_records_or_lines() -> None:
    data = b'{"question": "one", "choices": ["a", {"b": "c"}], "n": 1}\n\n"two"\n'
    assert list(read_probes("p.jsonl", data)) == [(1, "one a c"), (3, "two")]
    assert list(read_probes("p.txt", "eins\nzwei ü\n".encode())) == [(1, "eins"), (2, "zwei ü")]
    for path, bad in (("p.jsonl", b'{"a": 1'), ("p.jsonl", b'{"a": 1, "a": 2}'), ("p.txt", b"\xff")):
        with pytest.raises(ValueError, match="line 1"):
            list(read_probes(path, bad))
    assert tells(SHORT)
    assert not tells("What is 2+2?")


ROWS = [{"prompt": "How far is it?"}, {"prompt": f"So: {LONG}"}, {"prompt": "Which metal?"}]


def judged(root: Path, content: bytes, promised: bytes) -> Any:
    probes = ProbeFile(path="evals.jsonl", digest=digest(promised))
    data, last = chained([("samples", row) for row in ROWS])
    folder = root / "in" / "probes"
    folder.mkdir(parents=True)
    (folder / probes.digest.removeprefix("sha256:")).write_bytes(content)
    return judge(root, make_plan(make_output(probes=[probes])), {"draft": data}, {"draft": last})


def test_customs_rejects_the_row_and_says_by_which_probe(tmp_path: Path) -> None:
    content = json.dumps({"question": LONG, "answer": "77.6 km/h"}).encode() + b"\n"
    result = judged(tmp_path, content, content)
    assert result.code == 0, result.error
    assert result.lines("samples.jsonl") == [ROWS[0], ROWS[2]]
    (kept,) = result.lines("quarantine.jsonl")
    assert kept["record"] == ROWS[1]
    verdicts = [line for line in result.lines("verdicts.jsonl") if line["verdict"] == "reject"]
    assert [(v["reasons"][0]["code"], v["reasons"][0]["excerpt"]) for v in verdicts] == [("CSM-W022", "evals.jsonl:1")]


def test_customs_without_the_probes_of_the_plan_writes_nothing(tmp_path: Path) -> None:
    result = judged(tmp_path, b'{"question": "something else"}\n', b"the probes of the plan")
    assert (result.code, "CSM-W019" in result.error) == (2, True)
    assert not (result.out / "declaration.json").exists()


def test_no_letter_is_left_out_of_the_table() -> None:
    beyond = range(contamination._BEYOND, planes.CHARACTERS)
    assert not any(chr(code).isalnum() for code in beyond)

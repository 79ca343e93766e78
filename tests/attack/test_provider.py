"""Attacks on the model's door from a real cell, with a provider that tells what arrived (rows 30 to 35).

Nothing that was refused arrives there. As a control, the same requests are made beside the cell, straight at the
provider: there they all arrive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from policies.vocabulary import Verdict
from sandbox.records.log import read_events
from tests.attack.storm_lab import KEY, LLM, Found, asked, beside, outside_as_told, workflow
from tests.lab import Lab, Result, until
from tests.outside_lab import OutsideLab

Told = list[dict[str, Any]]
OWN = "my-own"


@pytest.fixture(scope="module")
def outside() -> Iterator[OutsideLab]:
    with outside_as_told() as outside:
        yield outside


@pytest.fixture(scope="module")
def cheated(tmp_path_factory: pytest.TempPathFactory, outside: OutsideLab) -> tuple[Result, Found, Told, Found, Told]:
    """What the agent got, what arrived; and the same beside the cell."""
    lab = Lab(tmp_path_factory.mktemp("cheat"))
    before = len(outside.told)
    result = ran(lab, outside, {"do": "cheat"})
    arrived = outside.told[before:]
    effect = beside(outside, {"do": "cheat"})
    return result, found_by(result), arrived, effect, outside.told[before + len(arrived) :]


def ran(lab: Lab, outside: OutsideLab, wanted: Found, **limits: object) -> Result:
    """One run to its end."""
    result = lab.run(workflow(lab, outside, wanted, **limits))  # type: ignore[arg-type]
    assert result.exit_code == 0, result.stderr + (result.agent_log()[-2000:] if result.folder else "")
    assert lab.left_over() == []
    return result


def found_by(result: Result) -> Found:
    found: Found = json.loads(result.artifact("agent/found.json"))
    return found


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("30 another route", {"CSM-P020"}),
        ("30 another method", {"CSM-P020"}),
        ("30 another model", {"CSM-P022"}),
        ("32 an absolute target", {"CSM-P020", "CSM-P021"}),
        ("32 two slashes", {"CSM-P020", "CSM-P021"}),
        ("32 dots", {"CSM-P020", "CSM-P021"}),
    ],
)
def test_rows_30_and_32_what_is_denied_never_arrives(
    cheated: tuple[Result, Found, Told, Found, Told], name: str, codes: set[str]
) -> None:
    result, found, arrived, effect, _ = cheated
    status, code = found[name]
    assert status >= 400
    assert code in codes
    assert any(event.rule == code and event.verdict is Verdict.DENY for event in result.of("llm.decided"))
    assert {(line["method"], line["path"], line["host"]) for line in arrived} == {("POST", "/v1/chat/completions", LLM)}
    assert effect[name][0] == 200, "the probe proves nothing: it fails without the door as well"


def test_row_31_the_provider_sees_its_own_key_and_nothing_of_the_agents(
    cheated: tuple[Result, Found, Told, Found, Told],
) -> None:
    _, found, arrived, _, without = cheated
    assert found["allowed"][0] == found["31 own keys"][0] == 200
    assert arrived
    for line in arrived:
        assert line["key"] == f"Bearer {KEY}"
        assert OWN not in json.dumps(line)
    assert KEY not in json.dumps(without)
    assert sum(OWN in json.dumps(line) for line in without) == 2  # control: in headers, and in a query


def test_row_33_fifty_calls_at_once_at_a_ceiling_for_ten(tmp_path: Path, outside: OutsideLab) -> None:
    before = len(outside.told)
    result = ran(Lab(tmp_path), outside, {"do": "race", "count": 50}, calls=10)
    assert found_by(result) == {"200": 10, "403": 40}
    assert asked(outside.told[before:], "calm") == 10
    before = len(outside.told)
    assert beside(outside, {"do": "race", "count": 50}) == {"200": 50}
    assert asked(outside.told[before:], "calm") == 50


def test_row_34_who_hangs_up_in_the_middle_of_a_stream_is_charged(tmp_path: Path, outside: OutsideLab) -> None:
    before = len(outside.told)
    result = ran(Lab(tmp_path), outside, {"do": "leave"})
    found = found_by(result)
    assert found["first"] > 0
    assert asked(outside.told[before:], "dribble") == 1
    by_alias = {event.attrs["gen_ai.request.model"]: event.attrs for event in result.of("llm.settled")}
    # what the provider said of the whole one: 7 tokens in, 5 out, at 1 USD a million
    assert _cost(by_alias["calm"]) == 12_000
    # of the other it could say nothing any more: the input is charged, and what had come
    assert _cost(by_alias["dribble"]) > 1000
    assert result.of("llm.settled")


def _cost(attrs: Mapping[str, object]) -> int:
    cost = attrs["casemate.cost.usd_nanos"]
    assert isinstance(cost, int)
    return cost


FILL = """
with open("/state/full", "wb", buffering=0) as f:
    try:
        while True:
            f.write(b"x" * 65536)
    except OSError:
        pass
    try:
        while True:
            f.write(b"x")
    except OSError as error:
        print(error.errno)
"""


def denials(lab: Lab) -> int:
    """Denials at the door so far."""
    folder = lab.run_folder()
    assert folder is not None
    return sum(e.event.value == "llm.decided" and e.verdict is Verdict.DENY for e in read_events(folder))


def test_row_35_a_ledger_that_fails_denies(tmp_path: Path, outside: OutsideLab) -> None:
    """The test fills the disk of the ledger while the agent asks; then it makes room again."""
    lab = Lab(tmp_path)
    process = lab.start(workflow(lab, outside, {"do": "insist", "seconds": 60}))
    lab.await_event("llm.settled")
    llm = docker.from_env().containers.get(lab.container("llm"))
    code, said = llm.exec_run(["python3", "-c", FILL], user="10003:10000")
    assert (code, said) == (0, b"28\n")
    until(lambda: denials(lab) >= 1, 30, "the full disk was not noticed")
    before, noticed = asked(outside.told, "calm"), denials(lab)
    until(lambda: denials(lab) >= noticed + 3, 30, "no more denials")
    assert asked(outside.told, "calm") == before, "calls were made that nobody counted"
    llm.exec_run(["python3", "-c", "import os; os.unlink('/state/full')"], user="10003:10000")
    result = lab.finish(process)
    assert result.exit_code == 0, result.stderr + result.agent_log()[-2000:]
    found = [json.loads(line) for line in result.agent_log().splitlines() if line.startswith("[")][:-1]
    assert found[0] == [200, None]
    refused = [pair for pair in found if pair[0] != 200]
    assert len(refused) >= 3
    assert {code for _, code in refused} == {"CSM-P019"}
    assert found[-1] == [200, None], "control: with room it serves again"

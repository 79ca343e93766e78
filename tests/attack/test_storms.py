"""Storms from inside real cells (rows 36 and 37): bounded, and others are served meanwhile.

Two runs side by side: one makes the storm, the other works honestly at all three doors. As a control, the same storm is
made beside the cells, straight at an outside that refuses nothing: there it has its whole effect.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.attack.storm_lab import FREE, MIB, WEB, Found, Peaks, asked, beside, outside_as_told, workflow
from tests.lab import Lab, Result
from tests.outside_lab import OutsideLab

HONEST = 12
pytestmark = pytest.mark.alone
"""How long the others wait, and how much memory grows, says something when nothing else runs."""


@pytest.fixture(scope="module")
def outside() -> Iterator[OutsideLab]:
    with outside_as_told() as outside:
        yield outside


@pytest.fixture
def labs(tmp_path: Path) -> tuple[Lab, Lab]:
    """The one that attacks, and the other one."""
    for name in ("attacker", "other"):
        (tmp_path / name).mkdir()
    return Lab(tmp_path / "attacker"), Lab(tmp_path / "other")


@dataclass
class Storm:
    """What came of a storm and of the others' work in it; `peaks` are MB that trusted processes grew by meanwhile."""

    attacker: Result
    other: Result
    peaks: dict[str, float]
    told: list[dict[str, Any]]

    @property
    def found(self) -> Found:
        found: Found = json.loads(self.attacker.artifact("agent/found.json"))
        return found


def storm(labs: tuple[Lab, Lab], outside: OutsideLab, wanted: Found, wall: str = "80s") -> Storm:
    """Make a storm in one run, and let the other work as long as it lasts."""
    attacker, other = labs
    before = len(outside.told)
    source = workflow(attacker, outside, wanted, wall)
    checked = attacker.cli("check", str(source))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    process = attacker.start(source)
    attacker.await_event("write.proposed")
    with Peaks(attacker) as peaks:
        time.sleep(2)
        result = other.run(workflow(other, outside, {"do": "honest", "times": HONEST}))
        lasted = process.poll() is None
        ended = attacker.finish(process)
    told = outside.told[before:]
    assert result.exit_code == 0, result.stderr + result.agent_log()[-2000:]
    assert lasted, "the storm was over before the others had done their work"
    served = json.loads(result.artifact("agent/found.json"))
    for door, work in served.items():
        assert work["statuses"] == {"200": HONEST}, door
        assert work["median"] < 1, door
        assert work["longest"] < 5, door
    for lab in labs:
        assert lab.left_over() == []
    return Storm(ended, result, peaks.grown(), told)


def test_row_36_a_busy_provider_gets_few_attempts_and_others_are_served(
    labs: tuple[Lab, Lab], outside: OutsideLab
) -> None:
    it = storm(labs, outside, {"do": "busy", "seconds": 14})
    found = it.found
    calls = sum(found["statuses"].values())
    assert calls > 500, "that was no storm"
    assert set(found["statuses"]) <= {"429", "503"}
    # 16 at once before the breaker opens, their retries, and one that tries after each rest
    assert 0 < asked(it.told, "busy") <= 48
    assert {status for status, _ in found["calm"]} == {200}
    assert max(seconds for _, seconds in found["calm"]) < 5
    assert max(it.peaks.values()) < 48
    # control: without the door, every call arrives
    before = len(outside.told)
    effect = beside(outside, {"do": "busy", "seconds": 3})
    assert sum(effect["statuses"].values()) > 100
    assert asked(outside.told[before:], "busy") == effect["statuses"]["429"] == sum(effect["statuses"].values())


def test_row_37_an_upstream_of_a_byte_a_second_ends_with_the_stage(labs: tuple[Lab, Lab], outside: OutsideLab) -> None:
    it = storm(labs, outside, {"do": "dribble", "seconds": 100}, wall="20s")
    assert it.attacker.outcome == "timed_out"
    assert it.attacker.exit_code == 124
    lines = [line for line in it.attacker.agent_log().splitlines() if line.startswith("got ")]
    last = json.loads(lines[-1].removeprefix("got "))
    assert last["egress"] > 40, "nothing dribbled"
    assert last["llm"] > 1000, "nothing was streamed"
    assert asked(it.told, "dribble") == 20
    assert max(it.peaks.values()) < 32
    # every stream is accounted for when it ends: what had been produced is charged
    assert len(it.attacker.of("llm.settled")) == 20
    # control: what dribbles does not end by itself
    effect = beside(outside, {"do": "dribble", "seconds": 6})
    assert 20 * 3 <= effect["egress"] <= 20 * 8


def test_row_37_a_thousand_half_open_connections_at_every_door(labs: tuple[Lab, Lab], outside: OutsideLab) -> None:
    it = storm(labs, outside, {"do": "half_open", "count": 1000, "seconds": 18})
    assert it.attacker.exit_code == 0, it.attacker.agent_log()[-2000:]
    assert it.found["doors"].keys() == {"egress", "llm", "mcp"}
    for door, found in it.found["doors"].items():
        assert found["opened"] > 200, door  # it did knock
        # those in the house were shown out after ten seconds; who waits before it costs the trusted process nothing
        assert found["alive"] < 1000 - 200, door
    assert it.found["after"] == {"llm": 200, "egress": 200, "mcp": 200}
    assert max(it.peaks.values()) < 48
    # control: a server without limits keeps them all
    effect = beside(outside, {"do": "half_open", "count": 1000, "seconds": 12, "host": WEB, "ports": {"sink": 8080}})
    assert effect["doors"]["sink"]["alive"] == 1000


def test_row_37_a_large_body_and_a_large_head_at_every_door(labs: tuple[Lab, Lab], outside: OutsideLab) -> None:
    it = storm(labs, outside, {"do": "large", "body": 100 * MIB, "head": 16 * MIB})
    assert it.attacker.exit_code == 0, it.attacker.agent_log()[-2000:]
    found = it.found
    denied = {
        "body egress": "CSM-P012", "head egress": "CSM-P002", "body llm": "CSM-P024",
        "body mcp": "CSM-G002",
    }  # fmt: skip
    for name, code in denied.items():
        assert code in found[name]["answer"], (name, found[name])
    for name in ("head egress", "head llm", "head mcp"):
        assert found[name]["sent"] < 8 * MIB, name
        assert " 200 " not in found[name]["answer"].split("\r\n")[0], name
    arrived = {line["host"]: line["body"] for line in it.told if line.get("path") == "/up"}
    assert arrived[WEB] <= 10 * MIB
    # control: the rule without a quota lets the same body through, all of it, and no more than a piece is in memory
    assert arrived[FREE] == found["body egress, no quota"]["sent"] == 100 * MIB
    assert " 200 " in found["body egress, no quota"]["answer"]
    assert max(it.peaks.values()) < 32
    # control: without a door there is somebody who takes a head of any size
    effect = beside(outside, {"do": "pump_head", "size": 16 * MIB})
    assert effect["sent"] == 16 * MIB

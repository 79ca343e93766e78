"""The event log: whatever is changed afterwards is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.errors import CasemateError
from policies.events import ComponentEvent, now
from policies.vocabulary import Component, EventName
from sandbox.records.log import RunLog, parse_component_event, read_events, verify
from tests.plans import SHA

RUN = "20260101-000000-abcdef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log = RunLog(tmp_path, RUN, SHA)
    for index in range(20):
        log.own(EventName.STAGE_STARTED, stage=f"s{index}")
    log.close()
    return tmp_path


def change(folder: Path, edit: object) -> None:
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(edit(lines)))  # type: ignore[operator]


def test_an_untouched_log_verifies(folder: Path) -> None:
    assert verify(folder) == 20
    assert [event.seq for event in read_events(folder)] == list(range(20))


EDITS = {
    "flip": lambda lines: [*lines[:5], lines[5].replace(b'"s5"', b'"s6"'), *lines[6:]],
    "drop": lambda lines: [*lines[:5], *lines[6:]],
    "drop first": lambda lines: lines[1:],
    "reorder": lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]],
    "repeat": lambda lines: [*lines[:5], lines[4], *lines[5:]],
    "truncate": lambda lines: lines[:-1],
    "cut in a line": lambda lines: [*lines[:-1], lines[-1][:-10]],
    "cut the newline": lambda lines: [*lines[:-1], lines[-1].rstrip(b"\n")],
    "append": lambda lines: [*lines, lines[-1]],
    "spaces": lambda lines: [lines[0].replace(b'":', b'": ', 1), *lines[1:]],
    "junk": lambda lines: [*lines[:3], b"\x00\xff\n", *lines[3:]],
    "empty": lambda _: [],
    "new key": lambda lines: [lines[0].replace(b'"actor"', b'"aactor":1,"actor"'), *lines[1:]],
}


@pytest.mark.parametrize("name", EDITS)
def test_a_change_is_found(folder: Path, name: str) -> None:
    change(folder, EDITS[name])
    with pytest.raises(CasemateError, match="CSM-R011"):
        verify(folder)


def test_a_missing_head_is_found(folder: Path) -> None:
    (folder / "events.head").unlink()
    with pytest.raises(CasemateError, match="head"):
        verify(folder)


def component_event(n: int) -> ComponentEvent:
    return ComponentEvent(
        n=n,
        time=now(),
        actor=Component.LLM,
        event=EventName.LLM_DECIDED,
        stage=None,
        verdict=None,
        rule=None,
        reason=None,
        attrs={},
    )


def test_a_gap_in_a_components_numbers_ends_the_run(tmp_path: Path) -> None:
    log = RunLog(tmp_path, RUN, SHA)
    log.append(component_event(0))
    for missing in (2, 0):
        with pytest.raises(CasemateError, match="CSM-R011"):
            log.append(component_event(missing))
    log.append(component_event(1))


@pytest.mark.parametrize("line", [b"", b"hello", b"{}", b'{"n":0,"n":1}', b'{"n":"0"}'])
def test_a_line_that_is_no_event_ends_the_run(line: bytes) -> None:
    with pytest.raises(CasemateError, match="CSM-R011"):
        parse_component_event(line, Component.LLM)


def test_a_component_cannot_speak_as_another() -> None:
    from policies.canonical import canonical
    from sandbox.records.store import as_json

    line = canonical(as_json(component_event(0)))
    assert parse_component_event(line, Component.LLM).n == 0
    with pytest.raises(CasemateError, match="spoke as"):
        parse_component_event(line, Component.GATEWAY)


def test_a_log_goes_on_in_one_chain(folder: Path) -> None:
    log = RunLog(folder, RUN, SHA, goes_on=True)
    log.own(EventName.RUN_RESUMED)
    log.close()
    assert verify(folder) == 21
    assert [event.n for event in read_events(folder)] == list(range(21))


def test_a_line_that_was_cut_short_is_no_event(folder: Path) -> None:
    change(folder, lambda lines: [*lines, lines[-1][:-10]])
    log = RunLog(folder, RUN, SHA, goes_on=True)
    log.own(EventName.RUN_RESUMED)
    log.close()
    assert verify(folder) == 21


@pytest.mark.parametrize("name", sorted(EDITS.keys() - {"append", "cut in a line", "cut the newline"}))
def test_a_log_that_was_changed_does_not_go_on(folder: Path, name: str) -> None:
    change(folder, EDITS[name])
    with pytest.raises(CasemateError, match="CSM-R011"):
        RunLog(folder, RUN, SHA, goes_on=True)

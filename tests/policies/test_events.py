"""An event is written whole and in order, or its writer is broken for ever."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.canonical import canonical
from policies.events import Attribute, EventLogError, EventWriter, clean
from policies.vocabulary import ATTRIBUTES, Component, EventName, Verdict


def writer(lines: list[bytes]) -> EventWriter:
    return EventWriter(Component.LLM, lines.append)


def test_events_are_numbered_without_a_gap() -> None:
    lines: list[bytes] = []
    write = writer(lines)
    for _ in range(3):
        write(EventName.LLM_DECIDED, stage="one", verdict=Verdict.DENY, rule="CSM-P022", reason="no")
    assert [json.loads(line)["n"] for line in lines] == [0, 1, 2]
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)


@given(st.text(max_size=400))
def test_text_from_outside_never_breaks_a_line(text: str) -> None:
    lines: list[bytes] = []
    writer(lines)(EventName.LLM_DECIDED, reason=text, attrs={"url.path": text})
    assert len(lines) == 1
    assert lines[0].count(b"\n") == 1
    shown = json.loads(lines[0])["attrs"]["url.path"]
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u200b\ufeff" for c in shown)


TEXT = st.text(max_size=60) | st.text('\\"/\x7f\u2028é\U0001f600<>&', max_size=20)


@given(
    attrs=st.dictionaries(
        st.sampled_from(sorted(ATTRIBUTES)), TEXT | st.booleans() | st.none() | st.integers(-(2**53), 2**53)
    ),
    reason=TEXT,
)
def test_an_event_is_canonical_json(attrs: dict[str, Attribute], reason: str) -> None:
    lines: list[bytes] = []
    attrs = {k: v for k, v in attrs.items() if not isinstance(v, int) or abs(v) < 2**53}
    writer(lines)(EventName.LLM_DECIDED, stage="one", verdict=Verdict.DENY, rule="CSM-P022", reason=reason, attrs=attrs)
    assert lines[0] == canonical(json.loads(lines[0])) + b"\n"


def test_an_unknown_attribute_breaks_the_writer() -> None:
    lines: list[bytes] = []
    write = writer(lines)
    with pytest.raises(EventLogError):
        write(EventName.LLM_DECIDED, attrs={"whatever": 1})
    with pytest.raises(EventLogError):
        write(EventName.LLM_DECIDED)
    assert lines == []


def test_a_log_that_cannot_be_written_breaks_the_writer_for_good() -> None:
    failures = [OSError("disk full")]

    def write(_: bytes) -> None:
        if failures:
            raise failures.pop()

    events = EventWriter(Component.LLM, write)
    for _ in range(2):  # the second time the disk has space again, but a line is missing
        with pytest.raises(EventLogError):
            events(EventName.LLM_DECIDED)


def test_clean_makes_escapes_visible() -> None:
    assert clean("a\x1b[31mb") == "a\\u{1b}[31mb"
    assert clean("\u202eevil") == "\\u{202e}evil"
    assert clean("honest Кириллица") == "honest Кириллица"

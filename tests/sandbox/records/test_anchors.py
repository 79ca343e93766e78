"""Anchors and candidates: what people committed, and what the journal has learned since."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from policies.errors import CasemateError
from policies.plan import Bound, Distribution, Plan
from policies.writes import Declaration
from sandbox.cli.main import app
from sandbox.records.anchors import NAME, described, read_anchors, told, write_anchor
from sandbox.records.store import Store
from tests.plans import plan

VALUES = Distribution(n=100, mean=5.0, sd=1.0, nulls=0.0, centiles=[float(part) / 10 for part in range(101)])
HIGHER = msgspec.structs.replace(VALUES, mean=5.4)


def bounded(anchor: Distribution | None = VALUES) -> Plan:
    made = plan()
    bounds = {"score": Bound(min=None, max=None, sigma=5, anchor=anchor)}
    return msgspec.structs.replace(made, outputs=[msgspec.structs.replace(made.outputs[0], bounds=bounds)])


def test_an_anchor_is_written_and_read_back(tmp_path: Path) -> None:
    assert read_anchors(tmp_path) == {}
    write_anchor(tmp_path, "rows", {"score": VALUES})
    write_anchor(tmp_path, "other", {"score": HIGHER})
    assert read_anchors(tmp_path) == {"rows": {"score": VALUES}, "other": {"score": HIGHER}}


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": {"score": {"n": 1}}}', '{"rows": 1, "rows": 2}'])
def test_a_file_that_cannot_be_read_has_a_code(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(CasemateError, match="CSM-C061"):
        read_anchors(tmp_path)


def test_the_journal_learns_one_set_behind_and_tells_customs(tmp_path: Path) -> None:
    store, made = Store(tmp_path), bounded()
    assert store.candidates.of(made.name) == {}
    store.candidates.learn(made, {"rows": {"score": HIGHER}})
    first = store.candidates.of(made.name)["rows"]["score"]
    assert (first.mean, first.waiting) == (5.0, HIGHER)
    store.candidates.learn(made, {"rows": {"score": VALUES}})
    second = store.candidates.of(made.name)["rows"]["score"]
    assert 5.0 < second.mean <= 5.04
    facts = told(store.candidates.of(made.name))
    assert list(facts) == ["candidate/rows"]
    assert any("since then" in line for line in described(made, store.candidates.of(made.name)))
    store.candidates.forget(made.name, "rows")
    assert store.candidates.of(made.name) == {}


def test_without_an_anchor_nothing_is_learned(tmp_path: Path) -> None:
    store, made = Store(tmp_path), bounded(anchor=None)
    store.candidates.learn(made, {"rows": {"score": VALUES}})
    assert store.candidates.of(made.name) == {}
    assert list(described(made, {})) == ["rows.score: no anchor; what is proposed is held"]


def test_a_declaration_carries_the_values() -> None:
    zero = "sha256:" + "0" * 64
    declared = Declaration(plan=zero, accepted={}, rejected={}, written=[], values={"rows": {"score": VALUES}})
    assert msgspec.json.decode(msgspec.json.encode(declared), type=Declaration) == declared


def test_the_verbs_say_what_they_do() -> None:
    for words in (["history", "show", "--help"], ["history", "anchor", "--help"]):
        assert CliRunner().invoke(app, words).exit_code == 0

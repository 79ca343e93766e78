"""Names of cells: a shard's belongs to one stage, and nobody meets a cell that no stage has."""

from __future__ import annotations

import pytest

from policies.cells import FACT, cells_of, in_order, met, parted, shard_name
from policies.errors import CasemateError
from policies.writes import place_of

STAGES = {"draft": None, "work": 3}


def test_a_stage_has_one_cell_or_one_for_each_shard() -> None:
    assert cells_of("draft", None) == ["draft"]
    assert cells_of("work", 2) == ["work.0", "work.1"]
    assert [parted(cell) for cell in ("draft", shard_name("work", 12))] == [("draft", None), ("work", 12)]


def test_shards_are_in_the_order_of_their_numbers() -> None:
    assert in_order(["work.10", "work.9", "draft", "work.1"]) == ["draft", "work.1", "work.9", "work.10"]


def test_a_process_meets_the_cells_that_it_is_told_of_or_those_of_whole_stages() -> None:
    assert met({FACT: "work.2 draft work.0"}, STAGES, "llm") == {"draft": ["draft"], "work": ["work.2", "work.0"]}
    assert met({}, STAGES, "llm") == {"draft": ["draft"], "work": []}


@pytest.mark.parametrize(
    "cell",
    ["other", "work", "work.3", "draft.0", "work.01", "work.-1", "work.1.db", "../draft", ".0", "work.", "draft.db"],
)
def test_a_cell_that_no_stage_has_is_refused(cell: str) -> None:
    with pytest.raises(CasemateError, match="CSM-R010"):
        met({FACT: cell}, STAGES, "llm")


def test_the_id_of_a_proposal_says_whose_it_is() -> None:
    assert place_of("work.12-3") == ("work.12", 3)
    assert place_of("some-stage-3") == ("some-stage", 3)
    assert [place_of(text) for text in ("work.-3", "work.1-", "work.01-3", "work.1.2-3", 3)] == [None] * 5

"""A secret that is spread over rows is found wherever chunks begin, and by the rows that it stands in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.customs.scan.values import needles
from gateway.customs.spread import RecordColumns, Spreads

SECRETS = {"narrow": "Zq7-canary/Kp9+vault", "wide": "Ключ-жёлтый/Lösung+9"}


def spread_over(secret: str, chunks: Sequence[Sequence[Mapping[str, object]]]) -> set[tuple[int, ...]]:
    spreads, first, found = Spreads(needles({"s": secret})), 0, set()
    for chunk in chunks:
        edges = spreads.edges(RecordColumns(dict(enumerate(chunk)), wide=spreads.wide))
        found |= {spread.rows for spread in spreads.across(edges, first)}
        first += len(chunk)
    return found


@pytest.mark.parametrize("name", SECRETS)
@given(data=st.data())
def test_it_is_found_wherever_chunks_begin(name: str, data: st.DataObject) -> None:
    secret = SECRETS[name]
    assert Spreads(needles({"s": secret})).wide == (name == "wide")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(secret) - 1), min_size=1, max_size=6)))
    pieces = [secret[start:end] for start, end in zip([0, *cuts], [*cuts, len(secret)], strict=True)]
    before, after = data.draw(st.lists(st.sampled_from(["and", "да", "", "x7"]), max_size=4)), ["so", "on"]
    column = [*before, *pieces, *after]
    rows = [{"a": text, "b": "honest"} for text in column]
    ends = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=5)))
    chunks = [rows[start:end] for start, end in zip([0, *ends], [*ends, len(rows)], strict=True)]
    wanted = {len(before) + place for place, piece in enumerate(pieces) if any(map(str.isalnum, piece))}
    found = spread_over(secret, chunks)
    assert {row for rows in found for row in rows} == wanted if len(wanted) > 1 else not found


@pytest.mark.parametrize("name", SECRETS)
def test_it_is_found_in_values_at_any_depth(name: str) -> None:
    secret = SECRETS[name]
    rows = [
        {"messages": [{"role": "user", "content": part}], "tags": [part[::-1]]} for part in (secret[:9], secret[9:])
    ]
    honest: dict[str, object] = {"messages": [{"role": "user"}], "tags": {}}
    for chunks in ([[*rows, honest]], [[honest, rows[0]], [honest], [rows[1]]]):
        place = [row for chunk in chunks for row in chunk].index
        assert spread_over(secret, chunks) == {(place(rows[0]), place(rows[1]))}
    other = [{"messages": [{"role": secret[:9], "content": secret[9:]}]}, {"messages": [{"content": secret[:9]}]}]
    assert spread_over(secret, [other]) == set()

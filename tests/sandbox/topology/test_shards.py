"""An input taken apart: every item is in one shard, in its order, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import CasemateError
from policies.plan import Shards
from sandbox.topology.shards import count_items, count_shards, part_of

LINES = b'{"n": 1}\n\n{"n": 2}\r\n{"n": 3}'
TABLE = b'name,text\none,"a, b"\n\ntwo,"a line\n\nand another"\nthree,\n'


def parts(content: bytes, path: str, size: int) -> list[bytes]:
    count = count_shards(count_items(content, path), size)
    shards = Shards(over="seeds", size=size, parallel=1, count=count)
    return [part_of(content, path, shards, number) for number in range(count)]


def test_lines_that_are_not_empty_are_items() -> None:
    assert parts(LINES, "seeds.jsonl", 2) == [b'{"n": 1}\n{"n": 2}\r\n', b'{"n": 3}\n']
    assert parts(b" \n\n", "seeds.txt", 2) == []


def test_a_record_of_a_table_may_have_many_lines_and_each_shard_has_the_header() -> None:
    assert parts(TABLE, "seeds.csv", 1) == [
        b'name,text\none,"a, b"\n',
        b'name,text\ntwo,"a line\n\nand another"\n',
        b"name,text\nthree,\n",
    ]
    assert count_items(b"name,text\n", "seeds.csv") == 0
    assert count_items(b"", "seeds.csv") == 0


@given(st.lists(st.from_regex(rb"[^\r\n]*[^\s][^\r\n]*", fullmatch=True)), st.integers(1, 9))
def test_all_items_are_there_once_and_in_order(lines: list[bytes], size: int) -> None:
    made = parts(b"\n".join(lines), "seeds.jsonl", size)
    assert b"".join(made) == b"".join(line + b"\n" for line in lines)
    assert all(part.count(b"\n") == size for part in made[:-1])


def test_an_input_that_is_not_what_was_compiled_is_refused() -> None:
    shards = Shards(over="seeds", size=2, parallel=1, count=3)
    with pytest.raises(CasemateError, match="CSM-R013"):
        part_of(LINES, "seeds.jsonl", shards, 0)

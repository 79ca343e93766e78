"""Shards: an input taken apart into items, of which each shard of a stage gets some, in their order. Pure.

An item is a line that is not empty; of a CSV file it is a record, and every shard gets the header too.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.errors import CasemateError
from policies.plan import Shards
from policies.vocabulary import ExitCode

CSV = ".csv"
SUFFIXES = (".jsonl", ".txt", CSV)
"""Names of files of items end so."""


def count_items(content: bytes, path: str) -> int:
    """Return how many items the content of a file has."""
    return len(_apart(content, path)[1])


def count_shards(items: int, size: int) -> int:
    """Return how many shards of `size` items there are."""
    return -(-items // size)


def planned(over: str, size: int, parallel: int, items: int | None) -> Shards:
    """Return the shards of a stage over an input of so many items."""
    return Shards(over=over, size=size, parallel=parallel, count=count_shards(items or 0, size))


def part_of(content: bytes, path: str, shards: Shards, number: int) -> bytes:
    """Return what of an input shard `number` gets; raise CSM-R013 where there are not as many as were compiled."""
    head, items = _apart(content, path)
    if count_shards(len(items), shards.size) != shards.count:
        message = f'"{path}" is not {shards.count} shards of {shards.size}'
        raise CasemateError("CSM-R013", message, hint="compile again", exit_code=ExitCode.REFUSED)
    first = number * shards.size
    return b"".join(line + b"\n" for line in (*head, *items[first : first + shards.size]))


def _apart(content: bytes, path: str) -> tuple[list[bytes], list[bytes]]:
    """Return what every shard gets, and the items."""
    lines = content.split(b"\n")
    if not path.endswith(CSV):
        return [], [line for line in lines if line.strip()]
    header, *records = [*_records(lines)] or [b""]
    return [header], records


def _records(lines: list[bytes]) -> Iterator[bytes]:
    """Yield the records of a CSV file: as long as a quote is open, the record goes on in the next line."""
    record: list[bytes] = []
    is_open = False
    for line in lines:
        if is_open or line.strip():
            record.append(line)
        is_open ^= line.count(b'"') % 2 == 1
        if record and not is_open:
            yield b"\n".join(record)
            record = []
    if record:
        yield b"\n".join(record)

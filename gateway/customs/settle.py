"""What is wrong with rows only in the light of others: too many, twice, spread over several, or without their referent.

The keys of unique fields go to a file, and are compared part by part, so that ten million take no more memory than one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from gateway.customs.checks.secrets import reason
from gateway.customs.examine import KEY_BYTES, Examined
from gateway.customs.history import SetValues
from gateway.customs.intake import Chunk
from gateway.customs.scan.values import Needle
from gateway.customs.spool import write_at
from gateway.customs.spread import Spreads
from policies.canonical import pointer
from policies.plan import Output
from policies.writes import Reason

QUOTA = "quota/"
_PART_ROWS = 1 << 17
"""Keys that are compared at once, as they are spread evenly."""
_MOST_BITS = 8
"""For more rows than that many parts would take, the parts grow."""


class Settlement:
    """The hindsight of one output. Chunks are added in order; then `reasons` says what is wrong with which row."""

    def __init__(
        self, output: Output, needles: Sequence[Needle], mark_key: bytes, folder: Path, facts: Mapping[str, str]
    ) -> None:
        """`facts` are those of the run: rows that the quota of the day leaves, and what applied writes were like."""
        left = min(output.per_run, int(facts.get(f"{QUOTA}{output.name}", output.per_run)))
        self.values = SetValues(output, facts)
        self._whole: list[Reason] = []
        self._output, self._spreads, self._mark_key, self._left = output, Spreads(needles), mark_key, left
        self._folder = folder
        self._keys = tempfile.TemporaryFile(dir=folder) if output.unique else None  # noqa: SIM115 - lives as long as this
        self._late: dict[int, Reason] = {}
        self._twice: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._refers: dict[int, list[str]] = {}
        self._bytes, self._full = 0, 0
        self.rows = 0

    def keep(self, first: int, keys: bytes) -> None:
        """Keep the keys of rows from the `first` on. Whoever examined them does, in whatever order."""
        if self._keys is not None:
            write_at(self._keys.fileno(), first * KEY_BYTES, keys)

    def add(self, chunk: Chunk, examined: Examined) -> int:
        """Take in the next chunk of the output; return its first row, from which on its keys are to be kept."""
        first = self.rows
        for spread in self._spreads.across(examined.edges, self.rows):
            where = f"run-secret:{spread.name} over {len(spread.rows)} rows"
            self._late.update(dict.fromkeys(spread.rows, reason(self._mark_key, where, spread.matched, "")))
        self.values.add(examined.numbers, examined.count)
        self._refers |= {self.rows + row: names for row, names in examined.refers.items() if names}
        self._fill(chunk, examined)
        self.rows += examined.count
        return first

    def _fill(self, chunk: Chunk, examined: Examined) -> None:
        """Count rows until the bytes of the output are used up."""
        if self._bytes + examined.size <= self._output.max_bytes:
            self._bytes += examined.size
            self._full += examined.count
            return
        for line in filter(None, bytes(chunk.read()).split(b"\n")):
            self._bytes += len(line) + 1
            if self._bytes > self._output.max_bytes:
                return
            self._full += 1

    def close(self) -> None:
        """Compare the keys, and the values with their history, when all chunks are there and their keys kept."""
        if self._keys is not None:
            self._twice = _repeated(self._keys, self.rows, self._folder)
            self._keys.close()
        for name, why in self.values.objections():
            self._whole.append(Reason(check="history", code="CSM-W014", pointer=pointer([name]), excerpt=why))

    def resolve(self, written: set[str], names: Mapping[int, str]) -> bool:
        """Reject rows that refer to anything but a proposal that is `written`; tell whether there were any.

        A proposal that is rejected so is taken out of `written`. `names`: ids of the output's proposals, by row.
        """
        found = False
        for row, wanted in self._refers.items():
            if row not in self._late and not written.issuperset(wanted):
                named = ", ".join(wanted)[:200]
                self._late[row] = Reason(check="refers", code="CSM-W015", pointer="", excerpt=named)
                written.discard(names.get(row, ""))
                found = True
        return found

    @property
    def refers(self) -> bool:
        """Tell whether any row refers to a proposal."""
        return bool(self._refers)

    def reasons(self, row: int) -> Iterator[Reason]:
        """Yield what only the others show about a row."""
        if row >= self._left:
            yield Reason(check="quota", code="CSM-W002", pointer="", excerpt=f"over {self._left} rows")
        if row >= self._full:
            yield Reason(check="quota", code="CSM-W002", pointer="", excerpt=f"over {self._output.max_bytes} bytes")
        if row in self._late:
            yield self._late[row]
        place = int(np.searchsorted(self._twice, row))
        if place < self._twice.size and self._twice[place] == row:
            names = ", ".join(self._output.unique)
            yield Reason(check="unique", code="CSM-W004", pointer="", excerpt=f"same {names} as an earlier row")
        yield from self._whole

    def between(self, first: int, count: int) -> set[int]:
        """Return the rows among `count` from `first` on that have such reasons."""
        if self._whole:
            return set(range(first, first + count))
        rows = {row for row in self._late if first <= row < first + count}
        rows |= set(range(max(first, min(self._left, self._full)), first + count))
        low, high = np.searchsorted(self._twice, [first, first + count])
        return rows | set(self._twice[low:high].tolist())

    @property
    def waits(self) -> bool:
        """Tell whether all rows wait for a person."""
        most = self._output.approve_over
        return self._output.approval == "always" or (most is not None and self.rows > most)

    @property
    def clean(self) -> bool:
        """Tell whether nothing is wrong, and nobody is waited for."""
        return not (self.any or self._whole or self.waits)

    @property
    def any(self) -> bool:
        """Tell whether any row has such a reason of its own."""
        return bool(self._late or self._twice.size or self.rows > min(self._left, self._full))


def _repeated(keys: IO[bytes], rows: int, folder: Path) -> npt.NDArray[np.int64]:
    """Return the rows whose key an earlier row has, in order. A key of zeros is none."""
    bits = min((rows // _PART_ROWS).bit_length(), _MOST_BITS)
    with ExitStack() as stack:
        parts = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(1 << bits)]
        keys.seek(0)
        for first in range(0, rows, _PART_ROWS):
            _deal(np.frombuffer(keys.read(_PART_ROWS * KEY_BYTES), dtype=np.uint64).reshape(-1, 2), first, parts, bits)
        found = [_again(part) for part in parts]
    return np.sort(np.concatenate(found))


def _deal(block: npt.NDArray[np.uint64], first: int, parts: Sequence[IO[bytes]], bits: int) -> None:
    """Append keys, and the numbers of their rows, to the files of the parts that they belong to."""
    numbered = np.column_stack((block, np.arange(first, first + len(block), dtype=np.uint64)))
    numbered = numbered[(block != 0).any(axis=1)]
    owners = (numbered[:, 0] & np.uint64((1 << bits) - 1)).astype(np.uint16)
    numbered = numbered[np.argsort(owners, kind="stable")]
    ends = np.cumsum(np.bincount(owners, minlength=len(parts)))
    for part, mine in zip(parts, np.split(numbered, ends[:-1]), strict=True):
        part.write(mine.tobytes())


def _again(part: IO[bytes]) -> npt.NDArray[np.int64]:
    """Return the rows of a part whose key an earlier one has."""
    part.seek(0)
    keys = np.frombuffer(part.read(), dtype=np.uint64).reshape(-1, 3)
    ranks = np.sort(keys[:, 0])
    keys = keys[np.isin(keys[:, 0], ranks[1:][ranks[1:] == ranks[:-1]])]  # few, so that few are put in order
    keys = keys[np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0]))]
    same = (keys[1:, :2] == keys[:-1, :2]).all(axis=1)
    rows: npt.NDArray[np.int64] = keys[1:, 2][same].astype(np.int64)
    return rows

"""What a decision would change in a sink, line by line, from files of any size in bounded memory."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from policies.events import clean
from policies.plan import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The lines that show it: `-` goes, `+` comes, `?` waits. They can be read more than once.

    `before`: what is in the sink's place now, `accepted`: what passed beside the rows that wait (None where there is
    none); `count`: how many rows passed, where they are shown as a number.
    """

    output: Output
    before: Path | None
    accepted: Path | None
    held: Path
    count: int

    def __iter__(self) -> Iterator[str]:
        """Yield the lines, with every character that could hide made visible."""
        place = self.output.path or self.output.target.get("repository") or self.output.sink
        yield f"{self.output.name}: {place}"
        before, accepted = self.before, self.accepted
        if self.output.format == "parquet":
            yield f"  {'replaces the file that is there' if before else 'no file is there'}; {self.count} rows pass"
            before = accepted = None
        coming = {"+": accepted, "?": self.held}
        if before is not None:
            with closing(_Bag()) as bag:
                for path in coming.values():
                    bag.put(_lines(path))
                yield from (f"- {_visible(line)}" for line in _lines(before) if not bag.take(line))
        for mark, path in coming.items():
            for row in _lines(path):
                yield from (f"{mark} {_visible(line)}" for line in _read(self.output, row))


class _Bag:
    """Lines, each as often as it was put in: their digests, in a file that nobody else sees."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("CREATE TABLE bag (line BLOB PRIMARY KEY, n INTEGER) WITHOUT ROWID")
        self.close = self._database.close

    def put(self, lines: Iterable[bytes]) -> None:
        """Put lines in."""
        sql = "INSERT INTO bag VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1"
        self._database.execute("BEGIN")
        self._database.executemany(sql, ((_key(line),) for line in lines))
        self._database.execute("COMMIT")

    def take(self, line: bytes) -> bool:
        """Take a line out; tell whether it was there."""
        return self._database.execute("UPDATE bag SET n = n - 1 WHERE line = ? AND n > 0", (_key(line),)).rowcount > 0


def _key(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()


def _lines(path: Path | None) -> Iterator[bytes]:
    if path is not None:
        with path.open("rb") as file:
            yield from (line.rstrip(b"\r\n") for line in file)


def _read(output: Output, row: bytes) -> list[bytes]:
    """Return a row as people read it: a proposal for a repository line by line, each with the name of its field."""
    if output.git is None:
        return [row]
    fields: dict[str, str] = json.loads(row)
    names = [name for name in ("title", "body", "patch") if name in fields]
    return [f"{name}: {line}".encode() for name in names for line in fields[name].split("\n")]


def _visible(line: bytes) -> str:
    text = line.decode(errors="replace")
    return clean(text, 10 * len(text) + 1)  # nothing is cut off

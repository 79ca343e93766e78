"""Notes: what became of each key of an imported file. No key is without one, and none has two.

The ledger closes the books: what no rule has spoken of is an unknown restriction, because a key that is not understood
may have been somebody's protection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from policies.events import clean
from sandbox.language.findings import Path
from sandbox.language.source import Document


class Kind(StrEnum):
    """The classes of a note; each key is in exactly one."""

    MAPPED = "mapped"
    APPROXIMATED = "approximated"
    STRICTER = "stricter"
    NONE = "no equivalent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What became of one key.

    `whole`: it speaks for everything below the key too. `implied`: the key is not written, but has this default.
    `restriction`: the key limits somebody; without an equivalent, a person has to accept its loss.
    """

    key: str
    path: Path
    file: str
    line: int
    column: int
    kind: Kind
    text: str
    restriction: bool = False
    whole: bool = False
    implied: bool = False

    @property
    def blocking(self) -> bool:
        """Tell whether the import stands only if a person accepts this."""
        return self.restriction and self.kind is Kind.NONE


@dataclass(frozen=True, slots=True)
class Imported:
    """The files of the new workflow by path, and the notes in the order of the source."""

    files: dict[str, bytes]
    notes: list[Note]

    def unaccepted(self, accepted: Collection[str]) -> list[Note]:
        """Return the lost restrictions whose keys nobody has accepted; with any of them, `import` exits with 3."""
        return [note for note in self.notes if note.blocking and note.key not in accepted]


def name_of(path: Path) -> str:
    """Return a path as users write it: `safe-outputs.create-issue.labels[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{clean(part, 80)}"
    return text.removeprefix(".")


@dataclass(slots=True)
class Ledger:
    """The notes of one file as they are written."""

    document: Document
    prefix: str = ""
    notes: dict[Path, Note] = field(default_factory=dict)

    def add(
        self,
        path: Path,
        kind: Kind,
        text: str,
        *,
        restriction: bool = False,
        whole: bool = True,
        implied: bool = False,
        key: str | None = None,
    ) -> None:
        """Note what became of `path`; the first note of a path stands."""
        if path in self.notes:
            return
        place = self.document.key(path)
        self.notes[path] = Note(
            key=self.prefix + (key or name_of(path)),
            path=path,
            file=self.document.file,
            line=place.line,
            column=place.column,
            kind=kind,
            text=text,
            restriction=restriction,
            whole=whole,
            implied=implied,
        )

    def mapped(self, path: Path, text: str, *, whole: bool = True) -> None:
        """Note an exact equivalent."""
        self.add(path, Kind.MAPPED, text, whole=whole)

    def approximated(self, path: Path, text: str) -> None:
        """Note an equivalent that differs; the text says how."""
        self.add(path, Kind.APPROXIMATED, text)

    def stricter(self, path: Path, text: str) -> None:
        """Note that the new workflow allows less."""
        self.add(path, Kind.STRICTER, text)

    def lost(self, path: Path, text: str) -> None:
        """Note a convenience that is gone; the text says what to do."""
        self.add(path, Kind.NONE, text)

    def blocked(self, path: Path, text: str) -> None:
        """Note a restriction that nothing here enforces; the text says what a person must do."""
        self.add(path, Kind.NONE, text, restriction=True)

    def implied(self, path: Path, kind: Kind, text: str) -> None:
        """Note a default of the original that is not written in it."""
        self.add(path, kind, text, implied=True)

    def close(self) -> list[Note]:
        """Give a note to every key that has none, and return all in the order of the file."""
        for path in key_paths(self.document.data):
            if path in self.notes or any(self._covers(path[:length]) for length in range(1, len(path))):
                continue
            below = any(other[: len(path)] == path and not note.implied for other, note in self.notes.items())
            if below:
                self.mapped(path, "read key by key, below", whole=False)
            else:
                self.blocked(path, "not known to the importer, so taken for a restriction: see what it limits")
        return sorted(self.notes.values(), key=lambda note: (note.line, note.column, note.key))

    def _covers(self, path: Path) -> bool:
        note = self.notes.get(path)
        return note is not None and note.whole and not note.implied


def key_paths(data: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every key of a mapping, at any depth, the outer ones last."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from key_paths(value, (*path, key))
            yield (*path, key)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from key_paths(value, (*path, index))

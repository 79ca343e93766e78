"""Archives in which files travel into containers."""

from __future__ import annotations

import io
import tarfile

from sandbox.archives import Entry, tar_of


def test_entries_have_their_owners_and_folders_come_before_what_is_in_them() -> None:
    made = tar_of({"in/a.jsonl": b"{}", "in": Entry(None, 0o750, 7, 8), "secret/token": Entry(b"value", 0o400, 9, 9)})
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        found = [(one.name, one.isdir(), one.mode, one.uid, one.gid, one.size) for one in archive]
    assert found == [
        ("in", True, 0o750, 7, 8, 0),
        ("in/a.jsonl", False, 0o444, 0, 0, 2),
        ("secret/token", False, 0o400, 9, 9, 5),
    ]


def test_the_same_files_are_the_same_archive() -> None:
    assert tar_of({"a": b"1", "b": b"2"}) == tar_of({"b": b"2", "a": b"1"})


def test_an_entry_does_not_show_what_it_holds() -> None:
    assert "value" not in repr(Entry(b"value"))

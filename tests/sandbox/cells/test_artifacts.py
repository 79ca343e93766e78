"""Artifacts: a tar from a cell is hostile, and only plain files pass."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import CasemateError
from sandbox.archives import Chunks
from sandbox.cells.artifacts import MAX_FILES, unpack

PREFIX = "workspace/artifacts"


def tar(*entries: tuple[str, dict[str, object], bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, fields, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(data: bytes, prefix: str, limit: int) -> dict[str, bytes]:
    with tarfile.open(fileobj=Chunks([data]), mode="r|") as archive:
        return unpack(archive, prefix, limit)


def test_plain_files_pass_with_their_paths() -> None:
    archive = tar(
        ("workspace", {"type": tarfile.DIRTYPE}, b""),
        ("workspace/private.txt", {}, b"stays"),
        (f"{PREFIX}", {"type": tarfile.DIRTYPE}, b""),
        (f"{PREFIX}/a.jsonl", {}, b"1"),
        (f"{PREFIX}/deep/er/b.txt", {}, b"22"),
    )
    assert unpacked(archive, PREFIX, 100) == {"a.jsonl": b"1", "deep/er/b.txt": b"22"}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("link", {"type": tarfile.LNKTYPE, "linkname": f"{PREFIX}/a"}),
        ("dev", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ("dev", {"type": tarfile.BLKTYPE}),
        ("fifo", {"type": tarfile.FIFOTYPE}),
        ("suid", {"mode": 0o4755}),
        ("sgid", {"mode": 0o2755}),
        ("../../etc/passwd", {}),
        ("a/../../b", {}),
        ("a\\b", {}),
        ("\u202etxt.exe", {}),
        ("a\nb", {}),
        ("a\x1b[31m", {}),
        ("x" * 250, {}),
        ("/".join("abcdefghijkl"), {}),
    ],
)
def test_anything_else_is_refused_by_name(name: str, fields: dict[str, object]) -> None:
    honest = tar((f"{PREFIX}/ok", {}, b"1"))
    assert unpacked(honest, PREFIX, 100)  # the control: without the bad entry it passes
    with pytest.raises(CasemateError, match="CSM-R008"):
        unpacked(tar((f"{PREFIX}/ok", {}, b"1"), (f"{PREFIX}/{name}", fields, b"")), PREFIX, 100)


def test_too_much_is_refused() -> None:
    with pytest.raises(CasemateError, match="above 10 bytes"):
        unpacked(tar((f"{PREFIX}/a", {}, b"x" * 6), (f"{PREFIX}/b", {}, b"x" * 6)), PREFIX, 10)
    many = tar(*((f"{PREFIX}/{i}", {}, b"") for i in range(MAX_FILES + 1)))
    with pytest.raises(CasemateError, match="files"):
        unpacked(many, PREFIX, 10)


@given(st.binary(max_size=2048))
def test_junk_is_an_error_not_a_crash(junk: bytes) -> None:
    try:
        files = unpacked(junk, PREFIX, 1000)
    except (CasemateError, tarfile.TarError):
        return
    assert files == {}

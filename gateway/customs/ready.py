"""What every customs needs and takes long to make. It lies beside the code where its image is (see `prepare`)."""

from __future__ import annotations

from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path

FOLDER = Path(__file__).with_name("prepared")


def ready(name: str, make: Callable[[], bytes]) -> bytes | mmap:
    """Return what is there under a name, of which only what is used takes memory; or else make it."""
    try:
        with (FOLDER / name).open("rb") as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    except FileNotFoundError:
        return make()

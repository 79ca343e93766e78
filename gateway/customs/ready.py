"""What every customs needs and takes long to make. It lies beside the code where its image is (see `prepare`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).with_name("prepared")


def ready(name: str, make: Callable[[], bytes]) -> bytes:
    """Return what is there under a name, or else make it."""
    try:
        return (FOLDER / name).read_bytes()
    except FileNotFoundError:
        return make()

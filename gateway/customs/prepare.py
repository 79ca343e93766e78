"""`python -m gateway.customs.prepare`: makes what every customs needs, once, where its image is made."""

from __future__ import annotations

from itertools import chain, combinations
from pathlib import Path

from gateway.customs.checks.contamination import LETTERS, letter_of
from gateway.customs.ready import FOLDER
from gateway.customs.sheet.sheet import MARKS, marks
from gateway.customs.sieve.known import Known
from gateway.customs.sieve.planes import ASCII, ascii_of
from gateway.customs.sieve.sieve import Sieve
from policies.secret_rules import secret_rules

SCANS = ("links", "pii", "unicode")
"""What an output may ask for, beside secrets."""


def main(folder: Path = FOLDER) -> None:
    """Make the tables of characters, and the patterns of whatever an output may ask for."""
    folder.mkdir()
    (folder / ASCII).write_bytes(ascii_of().tobytes())
    (folder / LETTERS).write_bytes(letter_of().tobytes())
    (folder / MARKS).write_bytes(marks().tobytes())
    for some in chain.from_iterable(combinations(SCANS, count) for count in range(len(SCANS) + 1)):
        for patterns in filter(None, Sieve(some, secret_rules(), Known(()), ()).patterns):
            (folder / patterns.name).write_bytes(patterns.kept())


if __name__ == "__main__":
    main()

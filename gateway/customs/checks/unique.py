"""unique: no two accepted rows agree in all of the named fields; the first wins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from gateway.customs.checks.base import Candidate
from policies.canonical import canonical
from policies.plan import Output
from policies.writes import Reason


class Unique:
    """Rejects a row whose key was seen on a row that nothing else objected to (CSM-W004).

    A rejected row does not take its key with it: else a bad row could suppress a good one. Memory is bounded by the
    quota: 16 bytes of hash a row. A missing field is a value of its own.
    """

    name = "unique"

    def __init__(self, output: Output) -> None:
        self._fields = output.unique
        self._seen: set[bytes] = set()

    def __call__(self, candidate: Candidate) -> Iterable[Reason]:
        if not self._fields or not candidate.clean or candidate.record is None:
            return
        key = [[candidate.record[field]] if field in candidate.record else [] for field in self._fields]
        mark = hashlib.blake2b(canonical(key), digest_size=16).digest()
        if mark in self._seen:
            names = ", ".join(self._fields)
            yield Reason(check=self.name, code="CSM-W004", pointer="", excerpt=f"same {names} as an earlier row")
        self._seen.add(mark)

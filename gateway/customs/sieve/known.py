"""The values of a run in the planes of a chunk: whole, over texts, in pieces, in whatever guise is made beforehand."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.customs.scan.plane import squeeze
from gateway.customs.scan.values import Needle, pieces
from gateway.customs.sieve import planes
from gateway.customs.sieve.parts import Parts
from gateway.customs.sieve.patterns import Patterns, literals
from gateway.customs.sieve.planes import Plane, Planes

_TEXT = planes.TEXT.encode()


class Known:
    """Looks for the values that some needles are of."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        self._squeezed = Patterns({"": literals(part for needle in needles for part in needle.squeezed)})
        odd = [part for needle in needles for word in needle.exact for part in (word, word[::-1])]
        whole = [rf"(?:^|[^A-Za-z0-9]){re.escape(n.word)}[^A-Za-z0-9]" for n in needles if n.word]
        self._exact = Patterns({"": [*literals(odd), *whole]})
        self._parts = Parts([plain for needle in needles for plain in needle.plain])
        self._wide = [n for n in needles if not all(part.isascii() for part in (*n.squeezed, *n.plain))]
        """Values with other letters than ASCII, which a folded plane has lost."""
        self.short = bool(self._exact)
        """Whether any is shorter than eight letters and digits."""

    def over(self, values: Planes, whole: Planes) -> set[int]:
        """Return the rows of texts in which a value stands. `values`: the planes without keys, `whole`: with them."""
        found = self._parts.rows(values) | self._wide_in(values.text)
        if whole is not values:
            found |= self._wide_in(whole.text)
        if self._squeezed:
            found |= _rows(self._squeezed, values.tight)
        if self._exact:
            found |= _rows(self._exact, whole.text) | _rows(self._exact, bytes(values.text).replace(_TEXT, b""))
        return found

    def within(self, plane: Planes) -> set[int]:
        """Return the rows of a plane in which a value stands, as it is."""
        found = _rows(self._exact, plane.text) if self._exact else set()
        if self._squeezed:
            found |= _rows(self._squeezed, planes.squeezed(plane.folded))
        return found | self._wide_in(plane.text)

    def pieces(self, plane: Planes) -> set[int]:
        """Return the rows that hold pieces of a value."""
        return self._parts.rows(plane)

    def _wide_in(self, plane: Plane) -> set[int]:
        """Return the rows in which one stands that is not: texts are compared as checks compare them."""
        if not self._wide or (text := bytes(plane)).isascii():
            return set()
        rows = text.decode().split(planes.ROW)
        return {number for number, row in enumerate(rows) if not row.isascii() and self._stands(row)}

    def _stands(self, row: str) -> bool:
        squeezed = [squeeze(text) for text in row.split(planes.TEXT)]
        whole = "".join(squeezed)
        return any(any(part in whole for part in n.squeezed) or pieces(n, squeezed) for n in self._wide)


def _rows(patterns: Patterns, plane: Plane) -> set[int]:
    return set(patterns.rows(plane)[""])

"""Which rows of a chunk no check would object to, judged by their texts alone, many at a time.

A row that the sieve lets through is not looked at again, so it must stop whatever a check would stop: the tests hold
the two against each other. One that it stops wrongly costs time and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.customs.checks import links, pii, unicode
from gateway.customs.scan.layers import ExhaustedError, Layers
from gateway.customs.scan.values import Needle
from gateway.customs.sieve import planes
from gateway.customs.sieve.parts import Parts
from gateway.customs.sieve.patterns import Patterns, literals
from policies.secret_rules import SecretRules

_RUN: Final = r"(?:^|[^A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{24}"
_ENCODED: Final = (
    r"%[0-9A-Fa-f]{2}",
    r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[0-7]{3})",
    r"&(?:#[0-9xX]|[A-Za-z]{2})",
    r"(?:[0-9a-fA-F]{2}[ :,-]{1,2}(?:0x|\\x)?){7}[0-9a-fA-F]{2}",
    r"0x[0-9a-fA-F]{2}",
)
_CONTROLS: Final = r"[\x01-\x08\x0b\x0c\x0e-\x1d\x1f\x7f]"
_ESCAPED: Final = b"\\u00"
_ROW: Final = planes.ROW.encode()
_TEXT: Final = planes.TEXT.encode()


class Sieve:
    """The sieve of one output. `names`: the names of all fields of its records, or None where they are the agent's;
    `flat`: no field is a list or a record."""

    def __init__(
        self,
        scans: Sequence[str],
        rules: SecretRules,
        needles: Sequence[Needle],
        names: Sequence[str] | None,
        *,
        flat: bool = False,
    ) -> None:
        self._texts = planes.flat_values_of if flat else planes.values_of
        words = [word for rule in rules.rules for word in rule.names]
        self._keys = names is None
        self._pairs = names is None or any(word in name.lower() for word in words for name in names)
        self._unicode = "unicode" in scans
        tokens = [rule.pattern for rule in rules.rules]
        parts: dict[str, Sequence[str]] = {"pii": pii.SIEVE, "links": links.SIEVE}
        parts["unicode"] = (_CONTROLS,)
        asked = {name: patterns for name, patterns in parts.items() if name in scans}
        self._whole = Patterns({"tokens": tokens, "encoded": _ENCODED, **asked})
        self._glued = Patterns({"tokens": tokens, "run": [_RUN]})
        self._characters = Patterns({"unicode": unicode.SIEVE})
        self._needles = Patterns({"needles": literals(part for needle in needles for part in needle.squeezed)})
        odd = [part for needle in needles for word in needle.exact for part in (word, word[::-1])]
        whole = [rf"(?:^|[^A-Za-z0-9]){re.escape(n.word)}[^A-Za-z0-9]" for n in needles if n.word]
        self._exact = Patterns({"exact": [*literals(odd), *whole]})
        self._parts = Parts([plain for needle in needles for plain in needle.plain])

    def suspects(self, records: Mapping[int, Mapping[str, object]], forms: Sequence[bytes]) -> tuple[set[int], bytes]:
        """Return the numbers of the rows that must be checked, of `records` by their number in the chunk.

        And the squeezed plane of their values, `TEXT` between them.
        """
        numbers = list(records)
        values = [self._texts(record) for record in records.values()]
        pairs = [planes.pairs_of(records[n]) for n in numbers] if self._pairs else values
        beside = planes.joined(values)
        whole = planes.joined(pairs) if self._pairs else beside
        apart = planes.folded(beside)
        folded = planes.folded(whole) if self._pairs else apart
        first = self._whole.rows(folded)
        found = set[int]().union(*(rows for name, rows in first.items() if name != "encoded"))
        glued = apart.replace(_TEXT, b"")
        second = self._glued.rows(glued)
        tight = planes.squeezed(planes.unhidden(apart), keep=_ROW + _TEXT)
        found |= second["tokens"] | self._hidden(folded, whole) | self._parts.rows(tight)
        found |= self._needles.rows(tight.replace(_TEXT, b""))["needles"] if self._needles else set()
        found |= self._odd(whole) | self._odd(beside.replace(planes.TEXT, "")) if self._exact else set()
        wrapped = first["encoded"] | second["run"]
        if self._keys:
            found |= self._anything(planes.joined([planes.keys_of(records[n]) for n in numbers]))
            found |= self._anything(whole) | self._parts.rows(planes.squeezed(folded, keep=_ROW + _TEXT))
            wrapped |= self._glued.rows(folded)["run"]
        if self._unicode and not whole.isascii():
            found |= self._characters.rows(whole.encode("utf-8", "replace"))["unicode"]
        found |= self._wrapped(sorted(wrapped), pairs, values)
        suspects = {numbers[row] for row in found}
        if self._unicode and _ESCAPED in b"".join(forms):  # marks of rows and texts do not show in a plane
            suspects |= {n for n in numbers if _ESCAPED in forms[n]}
        return suspects, tight

    def _hidden(self, folded: bytes, whole: str) -> set[int]:
        found = planes.rows_with(folded, planes.MANY)
        if planes.HIDDEN in folded:
            plain = planes.unhidden(folded)
            found |= self._whole.rows(plain)["tokens"] | self._values(plain, whole)
        return found

    def _values(self, folded: bytes, plane: str) -> set[int]:
        """Return the rows in which a value of the run stands."""
        found = self._odd(plane) if self._exact else set()
        return found | (self._needles.rows(planes.squeezed(folded))["needles"] if self._needles else set())

    def _odd(self, plane: str) -> set[int]:
        """Return the rows with a value that is looked for as it is: a short one, or one of punctuation."""
        return set(self._exact.rows(plane.encode("utf-8", "replace"))["exact"])

    def _anything(self, plane: str) -> set[int]:
        """Return the rows in which a token or a value stands, as it is."""
        folded = planes.folded(plane)
        return self._whole.rows(folded)["tokens"] | self._hidden(folded, plane) | self._values(folded, plane)

    def _wrapped(self, candidates: Sequence[int], pairs: Sequence[str], values: Sequence[str]) -> set[int]:
        """Return the rows in which something is found that was encoded, or that unwraps for too long."""
        found: set[int] = set()
        rows: list[int] = []
        decoded: list[str] = []
        for row in candidates:
            layers = Layers()
            try:
                for text in (*pairs[row].split(planes.TEXT), values[row].replace(planes.TEXT, "")):
                    pieces = [piece for piece, _ in layers.of(text)]
                    rows += [row] * len(pieces)
                    decoded += pieces
            except ExhaustedError:
                found.add(row)
        return found | ({rows[piece] for piece in self._anything(planes.joined(decoded))} if decoded else set())

"""Which rows of a chunk no check would object to, judged by their texts alone, many at a time.

A row that the sieve lets through is not looked at again, so it must stop whatever a check would stop: the tests hold
the two against each other. One that it stops wrongly costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.customs.checks import links, pii, unicode
from gateway.customs.scan.layers import ExhaustedError, Layers
from gateway.customs.sieve import planes
from gateway.customs.sieve.decode import Rows
from gateway.customs.sieve.known import Known
from gateway.customs.sieve.patterns import Patterns
from gateway.customs.sieve.planes import Plane, Planes
from policies.secret_rules import SecretRules

_RUN: Final = r"[A-Za-z0-9+/_-]{24}"
_HEX: Final = r"(?:(?:0x|\\x)?[0-9a-fA-F]{2}[ :,-]{0,2}){7}(?:0x|\\x)?[0-9a-fA-F]{2}"
"""Bytes written as numbers, in groups of whatever size."""
_HEX_LEAD: Final = r"[0-9a-fA-FxX\\ :,-]{17}"
_BYTE, _MORE = "(?:[2-7][0-9a-f]|0[9ad])", "[89ab][0-9a-f]"
_OTHER: Final = f"(?:[cd][0-9a-f]{_MORE}|e[0-9a-f](?:{_MORE}){{2}}|f[0-4](?:{_MORE}){{3}})"
_TEXT_IN_HEX: Final = (
    f"{_BYTE}{{8}}",
    f"{_BYTE}{{4}}{_OTHER}",
    f"{_OTHER}{_BYTE}{{4}}",
    f"(?:{_BYTE}{{0,7}}{_OTHER}){{2}}",
    f"(?:{_BYTE}00){{4}}",
    "1f8b08|78(?:01|5e|9c|da)",
)
"""What is left of them in a squeezed plane, if they are text of eight characters (UTF-8, UTF-16), or packed."""
_MARK: Final = r"\x00*"
_ENCODED: Final = (
    rf"%{_MARK}[0-9A-Fa-f]{_MARK}[0-9A-Fa-f]",
    rf"\\{_MARK}(?:u{_MARK}[0-9a-fA-F]|x{_MARK}[0-9a-fA-F]|[0-7]{_MARK}[0-7]{_MARK}[0-7])",
    rf"&{_MARK}(?:#{_MARK}[0-9xX]|[A-Za-z]{_MARK}[A-Za-z])",
    rf"0{_MARK}x{_MARK}[0-9a-fA-F]{_MARK}[0-9a-fA-F]",
)
"""What begins to be encoded in one text and ends in another is encoded all the same."""
_CONTROLS: Final = r"[\x01-\x08\x0b\x0c\x0e-\x1d\x1f\x7f]"
_ESCAPED: Final = b"\\u00"


@dataclass(frozen=True, slots=True)
class Sifted:
    """The numbers of the rows that must be checked, and the plane of the values of all."""

    suspects: set[int]
    plane: str


class Sieve:
    """The sieve of one output. `names`: the names of all fields of its records, or None where they are the agent's;
    `flat`: every field is a text or a number."""

    def __init__(
        self,
        scans: Sequence[str],
        rules: SecretRules,
        known: Known,
        names: Sequence[str] | None,
        *,
        flat: bool = False,
    ) -> None:
        self._flat = flat
        words = [word for rule in rules.rules for word in rule.names]
        self._keys = names is None
        self._pairs = names is None or any(word in name.lower() for word in words for name in names)
        self._unicode = "unicode" in scans
        self._patterns_of(scans, [rule.pattern for rule in rules.rules])
        self._characters = Patterns({"unicode": unicode.SIEVE})
        self._personal, self._hex = Patterns({"pii": pii.SIEVE}, rare=True), Patterns({"hex": [_HEX]}, rare=True)
        self._hex_leads = Patterns({"hex": [_HEX_LEAD]})
        self._hex_texts = Patterns({"hex": _TEXT_IN_HEX}, rare=True)
        self._known = known

    def _patterns_of(self, scans: Sequence[str], tokens: Sequence[str]) -> None:
        """Put patterns together so that they cost the least: those with a literal at their beginning, and the others.

        A token within one text stands in glued texts, too, but for the ends of words.
        """
        led = {"pii": pii.LEADS, "links": links.SIEVE, "unicode": (_CONTROLS,)}
        free = {"pii": pii.LEADS_OF_DIGITS, "links": links.STARTS}
        asked, others = ({name: some[name] for name in scans if name in some} for some in (led, free))
        over_texts = [pattern for pattern in tokens if r"\x00" in pattern]
        self._whole = Patterns({"tokens": over_texts, "encoded": _ENCODED, **asked})
        self._free = Patterns(others)
        self._glued = Patterns({"tokens": [pattern.replace(r"\b", "") for pattern in tokens], "run": [_RUN]})
        self._tokens = Patterns({"tokens": tokens}, rare=True)

    @property
    def patterns(self) -> Sequence[Patterns]:
        """All patterns but those of the values of a run."""
        return (
            self._tokens,
            self._whole,
            self._free,
            self._glued,
            self._characters,
            self._personal,
            self._hex,
            self._hex_leads,
            self._hex_texts,
        )

    @property
    def closed(self) -> bool:
        """Tell whether the values of records are all that has to be looked at: `look` is enough then."""
        return not self._pairs

    def look(self, values: Planes, records: Mapping[int, Mapping[str, object]]) -> set[int]:
        """Return which rows must be checked. `values`: the planes of the values of all `records`, counted from 0."""
        found, wrapped = self._texts(values, values)
        return found | self._wrapped({row: records[row] for row in sorted(wrapped)})

    def sift(self, records: Mapping[int, Mapping[str, object]], rows: Rows) -> Sifted:
        """Look through some records, by their number in the chunk `rows`."""
        numbers, every = list(records), list(records.values())
        plane = planes.plane_of(every, flat=self._flat)
        values = planes.planes_of(plane)
        whole = (
            planes.planes_of(planes.joined([planes.pairs_of(record) for record in every])) if self._pairs else values
        )
        found, wrapped = self._texts(values, whole)
        if self._keys:
            keys = planes.planes_of(planes.joined([planes.keys_of(record) for record in every]))
            found |= self._anything(keys) | self._anything(whole) | self._known.pieces(whole)
            wrapped |= self._glued.rows(whole.folded)["run"] | self._hexes(whole.folded, whole.tight)
        found |= self._wrapped({row: every[row] for row in sorted(wrapped)})
        suspects = {numbers[row] for row in found}
        if self._unicode and _ESCAPED in rows.block:  # marks of rows and texts do not show in a plane
            suspects |= {n for n, form in enumerate(rows.forms) if n in records and _ESCAPED in form}
        return Sifted(suspects, plane)

    def _texts(self, values: Planes, whole: Planes) -> tuple[set[int], set[int]]:
        """Return the rows that must be checked, and those in which something could be encoded.

        `whole` are the planes of values, and of keys where those matter.
        """
        first, free = self._whole.rows(whole.folded), self._free.rows(whole.folded)
        found = first["tokens"] | first["links"] | first["unicode"] | free["links"]
        found |= self._personal.among(whole.folded, first["pii"] | free["pii"])
        glued = self._glued.rows(values.glued)
        if values.odd and (hidden := planes.rows_with(values.glued, planes.HIDDEN)):
            found |= self._glued.among(planes.unhidden(values.glued), hidden)
        found |= glued["tokens"] | self._hidden(whole) | self._known.over(values, whole)
        if self._unicode and whole.deceives:
            found |= self._characters.rows(whole.text)["unicode"]
        encoded = first["encoded"] if whole is values else first["encoded"] | self._whole.rows(values.folded)["encoded"]
        return found, encoded | glued["run"] | self._hexes(values.glued, values.tight)

    def _hexes(self, folded: Plane, tight: Plane) -> set[int]:
        """Return the rows in which bytes are written as numbers that could be text, or short enough to be a value."""
        leads: Collection[int] = self._hex_leads.rows(folded)["hex"]
        if not self._known.short:
            leads = self._hex_texts.among(tight, leads)
        return self._hex.among(folded, leads)

    def _hidden(self, whole: Planes) -> set[int]:
        """Return the rows with a character that stands for several, or a token around one that is not seen."""
        if not whole.odd:
            return set()
        hidden = planes.rows_with(whole.folded, planes.HIDDEN)
        tokens = self._tokens.among(planes.unhidden(whole.folded), hidden) if hidden else set()
        return tokens | planes.rows_with(whole.folded, planes.MANY)

    def _anything(self, plane: Planes) -> set[int]:
        """Return the rows in which a token or a value stands, as it is."""
        return self._tokens.rows(plane.folded)["tokens"] | self._hidden(plane) | self._known.within(plane)

    def _wrapped(self, candidates: Mapping[int, Mapping[str, object]]) -> set[int]:
        """Return the rows in which something is found that was encoded, or that unwraps for too long."""
        found: set[int] = set()
        rows: list[int] = []
        decoded: list[str] = []
        for row, record in candidates.items():
            layers, values = Layers(), planes.values_of(record)
            pairs = planes.pairs_of(record) if self._pairs else values
            try:
                for text in (*pairs.split(planes.TEXT), values.replace(planes.TEXT, "")):
                    pieces = [piece for piece, _ in layers.of(text)]
                    rows += [row] * len(pieces)
                    decoded += pieces
            except ExhaustedError:
                found.add(row)
        return found | (
            {rows[piece] for piece in self._anything(planes.planes_of(planes.joined(decoded)))} if decoded else set()
        )

"""All findings in one record, each with its places. Pure; the compiled rules and needles come in."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from gateway.customs.scan.layers import ExhaustedError, Layers
from gateway.customs.scan.plane import Text, folded, squeeze, texts
from gateway.customs.scan.rules import RuleSet
from gateway.customs.scan.values import Needle, found_in, pieces

SEPARATOR = "\x00"
BUDGET_RULE = "decode-budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A secret: the rule, the texts that it stands in, and what matched. `matched` must not leave the process."""

    rule: str
    places: tuple[Text, ...] = field(repr=False)
    matched: str = field(repr=False)


class Scanner:
    """Looks for providers' patterns and for the values of the run's own secrets."""

    def __init__(self, rules: RuleSet, needles: Sequence[Needle]) -> None:
        self._rules, self._needles = rules, needles

    @property
    def needles(self) -> Sequence[Needle]:
        """What betrays the run's own secrets."""
        return self._needles

    def findings(self, record: object) -> list[Finding]:
        """Return every finding, at most one for each rule and set of places; empty means clean."""
        plane = list(texts(record))
        found: dict[tuple[str, tuple[Text, ...]], Finding] = {}
        for finding in (*self._values(plane), *self._patterns(plane), *self._wrapped(plane)):
            found.setdefault((finding.rule, finding.places), finding)
        return list(found.values())

    def _values(self, plane: list[Text]) -> Iterator[Finding]:
        """The run's secrets, in one text, over the borders of neighbours, and in scattered pieces."""
        if not self._needles:
            return
        squeezed = [squeeze(text.text) for text in plane]
        views = [range(len(plane)), *([i for i, text in enumerate(plane) if text.key is key] for key in (False, True))]
        for needle in self._needles:
            alone = False
            for text, tight in zip(plane, squeezed, strict=True):
                if matched := found_in(needle, text.text, tight):
                    alone = True
                    yield _finding(f"run-secret:{needle.name}", [text], matched)
            if alone:
                continue
            for view in views:
                yield from _across(needle, [plane[i] for i in view], [squeezed[i] for i in view])
            if used := pieces(needle, squeezed):
                yield _finding(
                    f"run-secret:{needle.name}", [plane[i] for i in used], "".join(squeezed[i] for i in used)
                )

    def _patterns(self, plane: list[Text]) -> Iterator[Finding]:
        """Providers' patterns: text by text (a key beside its value), then with the borders of values taken away."""
        yield from self._hits(plane, SEPARATOR, lambda text: text)
        if not all(text.text.isascii() for text in plane):
            yield from self._hits(plane, SEPARATOR, folded)
        values = [text for text in plane if not text.key]
        if len(values) > 1:
            yield from self._hits(values, "", folded)

    def _hits(self, plane: Sequence[Text], separator: str, view: Callable[[str], str]) -> Iterator[Finding]:
        parts = [view(text.text) for text in plane]
        whole = separator.join(parts)
        ends: list[int] = []
        for hit in self._rules.hits(whole):
            ends = ends or list(accumulate(len(part) + len(separator) for part in parts))
            first, last = bisect.bisect_right(ends, hit.start), bisect.bisect_left(ends, hit.end)
            places = list(plane[first : last + 1])
            yield _finding(hit.rule, places, whole[hit.start : hit.end])

    def _wrapped(self, plane: list[Text]) -> Iterator[Finding]:
        """Both, in everything that is encoded in a text, or in all values taken together."""
        layers = Layers()
        values = [text for text in plane if not text.key and text.text]
        groups = [[text] for text in plane]
        if len(values) > 1:
            groups.append(values)
        alone: set[str] = set()
        for group in groups:
            whole = group[0].text if len(group) == 1 else "".join(text.text for text in group)
            try:
                for decoded, readable in layers.of(whole):
                    for finding in self._in_layer(decoded, readable, group):
                        # What stands in one text needs no second finding that blames all of them.
                        if len(group) == 1 or finding.rule not in alone:
                            alone.add(finding.rule)
                            yield finding
            except ExhaustedError:
                yield _finding(BUDGET_RULE, group, whole)
                return

    def _in_layer(self, decoded: str, readable: bool, group: list[Text]) -> Iterator[Finding]:
        tight = squeeze(decoded)
        for needle in self._needles:
            if matched := found_in(needle, decoded, tight):
                yield _finding(f"run-secret:{needle.name}", group, matched)
        if readable:
            for hit in self._rules.hits(folded(decoded)):
                yield _finding(hit.rule, group, decoded[hit.start : hit.end])


def _across(needle: Needle, plane: Sequence[Text], squeezed: Sequence[str]) -> Iterator[Finding]:
    whole = "".join(squeezed)
    if matched := found_in(needle, SEPARATOR.join(text.text for text in plane), whole):
        start = max(whole.find(matched), 0)
        ends = list(accumulate(map(len, squeezed)))
        first, last = bisect.bisect_right(ends, start), bisect.bisect_left(ends, start + len(matched))
        yield _finding(f"run-secret:{needle.name}", plane[first : last + 1], matched)


def _finding(rule: str, places: Sequence[Text], matched: str) -> Finding:
    return Finding(rule=rule, places=tuple(places), matched=matched)

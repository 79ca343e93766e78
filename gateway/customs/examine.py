"""One chunk of one output: what the checks have against its rows, and the rows as they would be applied.

Most rows are judged many at a time: read, held against the schema and the bounds, and sieved. Those that any of this
stops go through the checks one by one, which alone give reasons.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.customs.checks.base import Candidate, Check
from gateway.customs.checks.bounds import Bounds
from gateway.customs.checks.contamination import Contamination, letters_of
from gateway.customs.checks.links import Links
from gateway.customs.checks.patch import Over, added, patch_checks, plain, words
from gateway.customs.checks.pii import Pii, redacted
from gateway.customs.checks.secrets import Secrets
from gateway.customs.checks.shape import MAX_NODES, Shape
from gateway.customs.checks.source import Source
from gateway.customs.checks.unicode import Unicode
from gateway.customs.columns import Columns
from gateway.customs.history import Column, columns_of, measures_of
from gateway.customs.judge import REDACTED, fatal, objections, rejecting
from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import Scanner
from gateway.customs.sheet.form import form_of
from gateway.customs.sheet.lines import hashes
from gateway.customs.sheet.sheet import Reader, Sheet
from gateway.customs.sieve import decode
from gateway.customs.sieve.known import Known
from gateway.customs.sieve.sieve import Sieve
from gateway.customs.spread import Edges, RecordColumns, Spreads
from gateway.schema import Schema
from policies.canonical import canonical
from policies.plan import Output
from policies.secret_rules import secret_rules
from policies.writes import Reason, references

KEY_BYTES = 16
_SEEDS = memoryview(np.frombuffer(secrets.token_bytes(KEY_BYTES), dtype=np.uint64))
_PLAIN = frozenset({str, int, bool, type(None)})
"""Types whose values have one way of being written."""
_lines = msgspec.json.Encoder(order="deterministic").encode_lines


@dataclass(slots=True)
class Examined:
    """What became of a chunk of `count` rows, of `size` bytes as they were proposed.

    `rows`: canonical rows as lines, empty where a line could not be read. `keys`: for each row `KEY_BYTES` that are
    equal for equal values of the unique fields; zero where the row is objected to. `refers`: the proposals that rows
    name. `rejects`: some row is rejected, and not only held. `numbers`: the values of fields that have a history, of
    rows that nothing was found against.
    """

    count: int
    size: int = 0
    rows: bytes | memoryview = b""
    reasons: dict[int, list[Reason]] = field(default_factory=dict)
    keys: bytes = b""
    refers: dict[int, list[str]] = field(default_factory=dict)
    open: bool = False
    rejects: bool = False
    edges: Edges | None = None
    numbers: dict[str, Column] = field(default_factory=dict)


class Examiner:
    """Examines the chunks of one output."""

    def __init__(self, output: Output, scanner: Scanner, mark_key: bytes, probes: Mapping[str, str]) -> None:
        self.output, self._scanner = output, scanner
        self._schema = Schema(output.schema, f"output {output.name}")
        measures = measures_of(output)
        self._historic = {name: measures[name] for name, bound in output.bounds.items() if bound.sigma is not None}
        self._columns = Columns(output.schema) if output.format == "parquet" else None
        self._bounds = Bounds(output)
        self._many = None if self._columns else _many(output)
        self._names = frozenset(output.schema.get("properties", {}))
        self._closed = output.schema.get("additionalProperties") is False and "patternProperties" not in output.schema
        self._refers = references(output.schema)
        self._singly = output.git is not None or output.sink == "mlflow"
        names, self._flat = _closed_names(output.schema), _is_flat(output.schema)
        self._sieve = Sieve(output.scan, secret_rules(), Known(scanner.needles), names, flat=self._flat)
        self._spread = Spreads(scanner.needles)
        self._contamination = Contamination(probes, flat=self._flat) if probes else None
        self._reader = self._reader_of(output)
        self._checks = list(checks_for(output, scanner, mark_key))
        if self._contamination is not None:
            self._checks.append(self._contamination)

    def _reader_of(self, output: Output) -> Reader | None:
        """Return who reads all rows of a chunk at once; None where that is not for rows of this output."""
        if self._singly or self._refers or not self._sieve.closed:
            return None
        form = form_of(output.schema, self._bounds.schemas())
        if form is None or not all(map(form.identifies, output.unique)):
            return None
        return Reader(form)

    def examine(self, block: bytes | memoryview, room: memoryview | None = None) -> Examined:
        """Judge the rows of a chunk, which are lines. Empty ones are no rows. `room`: where rows to apply may be."""
        sheet = self._reader.read(block, room) if self._reader is not None else None
        if sheet is not None:
            return self._read_at_once(sheet, block)
        rows = b"\n".join(filter(None, bytes(block).split(b"\n")))
        return self._read_singly(rows) if rows else Examined(0)

    def _read_at_once(self, sheet: Sheet, block: bytes | memoryview) -> Examined:
        """Judge rows that fit the schema and the bounds, and have not become objects."""
        count = len(sheet.records)
        suspects = self._sieve.look(sheet.planes, sheet.records)
        if self._contamination is not None:
            suspects |= self._contamination.found(sheet.letters).keys()
        result = Examined(count, len(block) + (block[-1:] != b"\n"), sheet.block)
        self._each(sorted(suspects), sheet, block, result)
        wrong = [number for number, reasons in result.reasons.items() if fatal(reasons)]
        result.rejects = any(rejecting(self.output, reasons) for reasons in result.reasons.values())
        if self.output.unique:
            keys = keys_of(sheet.lines_of(self.output.unique), count)
            keys[wrong] = 0
            result.keys = keys.tobytes()
        result.numbers = {name: sheet.measured(name, measure, wrong) for name, measure in self._historic.items()}
        wide = self._spread.wide
        result.edges = self._spread.edges(RecordColumns(sheet.records, wide=True) if wide else sheet)
        return result

    def _read_singly(self, block: bytes) -> Examined:
        """Judge rows of any kind, each a record."""
        rows = decode.read(block)
        count = len(rows.records)
        # The sieve knows texts, neither patches nor places: such rows are looked at one by one.
        good = {} if self._singly else self._good(rows)
        suspects = set(range(count)) - good.keys() if len(good) < count else set[int]()
        sifted = self._sieve.sift(good, rows)
        suspects |= sifted.suspects
        if self._contamination is not None:
            every = [record or {} for record in rows.records]
            whole = len(good) == count
            known = self._contamination.found(letters_of(sifted.plane)) if whole else self._contamination.rows(every)
            suspects |= known.keys()
        result = Examined(count, len(block) + 1, rows.block)
        self._each(sorted(suspects), rows, block, result)
        readable = {n: record for n, record in enumerate(rows.records) if record is not None}
        wrong = [number for number, reasons in result.reasons.items() if fatal(reasons)]
        clean = {n: r for n, r in readable.items() if n not in wrong} if wrong else readable
        result.rejects = any(rejecting(self.output, reasons) for reasons in result.reasons.values())
        result.open = not self._closed and any(record.keys() - self._names for record in clean.values())
        result.keys = self._keys(clean, count)
        if self._refers:
            result.refers = {n: _named(record, self._refers) for n, record in clean.items()}
        result.numbers = columns_of(clean.values(), self._historic)
        seen = readable if self.output.git is None else {n: plain(record) for n, record in readable.items()}
        result.edges = self._spread.edges(RecordColumns(seen, wide=self._spread.wide))
        return result

    def _each(
        self, numbers: Sequence[int], rows: decode.Rows | Sheet, block: bytes | memoryview, result: Examined
    ) -> None:
        """Look at some rows one by one; what is taken out of them changes the lines of the result."""
        if not numbers:
            return
        lines, forms, changes = bytes(block).split(b"\n"), rows.forms, False
        for number in numbers:
            changes |= self._one(number, rows.records[number], lines[number], forms, result)
        if changes:
            result.rows = b"\n".join(forms) + b"\n"

    def _good(self, rows: decode.Rows) -> dict[int, dict[str, Any]]:
        """Return the records that fit the schema and are within their bounds: all at once, or else one by one."""
        records = {n: record for n, record in enumerate(rows.records) if record is not None}
        if rows.longest <= MAX_NODES and self._all_fit(list(records.values())):
            return records
        forms = rows.forms
        return {n: record for n, record in records.items() if self._fits(record, forms[n])}

    def _all_fit(self, records: Sequence[dict[str, Any]]) -> bool:
        try:
            return self._many is not None and self._many.fits(records)
        except Exception:  # noqa: BLE001 - then each is looked at by itself
            return False

    def _fits(self, record: dict[str, Any], form: bytes) -> bool:
        """Tell whether a record fits the schema and is within its bounds. Whatever fails is looked at one by one."""
        if len(form) > MAX_NODES:
            return False
        try:
            if any(self._bounds.broken(record)):
                return False
            return self._schema.fits(record) and not (self._columns and any(self._columns.misfits(record)))
        except Exception:  # noqa: BLE001 - whatever it is, the checks will say
            return False

    def _one(
        self, number: int, record: dict[str, Any] | None, line: bytes, forms: list[bytes], result: Examined
    ) -> bool:
        """Look at one row; tell whether something was taken out of its form."""
        reasons = objections(Candidate(record=record, size=len(line)), self._checks)
        if not reasons:
            return False
        action = self.output.findings.get("pii")
        if record is not None and action == "redact" and all(reason.check == Pii.name for reason in reasons):
            changed = _redacted(record)
            reasons = objections(Candidate(record=changed, size=len(line)), self._checks)
            if not reasons:
                forms[number] = decode.canonical_row(changed)
                result.reasons[number] = [Reason(check=Pii.name, code="CSM-W013", pointer="", excerpt=REDACTED)]
                return True
        result.reasons[number] = reasons
        return False

    def _keys(self, clean: Mapping[int, Mapping[str, Any]], count: int) -> bytes:
        fields = self.output.unique
        if not fields:
            return b""
        keys = np.zeros((count, KEY_BYTES // 8), dtype=np.uint64)
        keys[list(clean)] = keys_of(keys_as_written(list(clean.values()), fields), len(clean))
        return keys.tobytes()


def keys_of(forms: bytes, count: int) -> npt.NDArray[np.uint64]:
    """Return what stands for the values of unique fields of each record: two numbers that are equal for equal values.

    They are hashes, whose key is drawn when customs starts; its workers are forks, and have it too. `forms`: a line for
    each record, as `keys_as_written` has it.
    """
    keys = np.zeros((count, KEY_BYTES // 8), dtype=np.uint64)
    hashes(forms, len(forms), _SEEDS, keys)
    return keys


def keys_as_written(records: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> bytes:
    """Return lines of the values of unique fields, whatever way a number was written; and what fields are absent."""
    of = itemgetter(*fields)
    try:
        values = list(map(of, records))
    except KeyError:
        there = [{name: record[name] for name in fields if name in record} for record in records]
        return _listed(canonical(of(few)) if len(few) == len(fields) else b"-" + canonical(few) for few in there)
    plain = set(map(type, values if len(fields) == 1 else chain.from_iterable(values))) <= _PLAIN
    return _lines(values) if plain else _listed(map(canonical, values))


def _listed(forms: Iterable[bytes]) -> bytes:
    return b"".join(form + b"\n" for form in forms)


def _named(record: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    """Return the proposals that a record refers to. Null refers to none; what is no text is the name of none."""
    return [str(record[name]) for name in fields if record.get(name) is not None]


def _many(output: Output) -> Schema | None:
    """Return the schema of many records of an output within their bounds; None where it refers to parts of itself."""
    if b'"$' in canonical(output.schema).replace(b'"$schema"', b""):
        return None
    items = {"allOf": [output.schema, {"properties": Bounds(output).schemas()}]}
    return Schema({"type": "array", "items": items}, f"output {output.name}")


def checks_for(output: Output, scanner: Scanner, mark_key: bytes) -> Iterator[Check]:
    """Yield the checks of one row of an output, in order."""
    yield Shape(output)
    yield Bounds(output)
    if output.sink == "mlflow":
        yield Source(output)
    if output.git is not None:
        yield from patch_checks(output.git)
        yield from (Over(check, plain) for check in _text_checks(output, scanner, mark_key))
        if "links" in output.scan:
            yield Over(Links(output), words)
            yield Over(Links(output, code=True), added)
        return
    yield from _text_checks(output, scanner, mark_key)
    if "links" in output.scan:
        yield Links(output)


def _text_checks(output: Output, scanner: Scanner, mark_key: bytes) -> Iterator[Check]:
    yield Secrets(scanner, mark_key)
    if "pii" in output.scan:
        yield Pii()
    if "unicode" in output.scan:
        yield Unicode()


def examiner(
    output: Output, needles: Sequence[Any], mark_key: bytes, probes: Mapping[str, str] | None = None
) -> Examiner:
    """Return the examiner of an output. `probes`: texts that no row may hold, by where they stand."""
    return Examiner(output, Scanner(load(), needles), mark_key, probes or {})


def _closed_names(schema: Mapping[str, Any]) -> Sequence[str] | None:
    """Return the names of all fields at all depths, or None where a schema leaves names open."""
    names: list[str] = []
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, Mapping):
            return None
        kinds = _kinds(part, {"object"})
        if "object" in kinds:
            if part.get("additionalProperties") is not False or part.get("patternProperties"):
                return None
            names += part.get("properties", {})
            waiting += part.get("properties", {}).values()
        if "array" in kinds:
            waiting.append(part.get("items"))
            waiting += part.get("prefixItems", [])
    return names


def _is_flat(schema: Mapping[str, Any]) -> bool:
    """Tell whether every record is a list of texts and numbers. True, false and null are no texts, and part none."""
    plain = {"string", "number", "integer"}
    closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    fields = schema.get("properties", {}).values()
    return closed and all(isinstance(field, Mapping) and _kinds(field, {"object"}) <= plain for field in fields)


def _kinds(schema: Mapping[str, Any], default: set[str]) -> set[str]:
    """Return the types that a schema names."""
    kinds = schema.get("type")
    return {kinds} if isinstance(kinds, str) else set(kinds or default)


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redacted(value)
        case dict():
            return {redacted(key): _redacted(item) for key, item in value.items()}
        case list():
            return [_redacted(item) for item in value]
        case _:
            return value

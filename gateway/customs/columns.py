"""Which columns a table has, from the output's JSON schema. Pure; knows nothing of the file format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from policies.canonical import canonical

Kind = Literal["string", "int64", "float64", "bool", "json", "list<string>", "list<int64>", "list<float64>"]

_KINDS: dict[frozenset[str], Kind] = {
    frozenset({"string"}): "string",
    frozenset({"integer"}): "int64",
    frozenset({"number"}): "float64",
    frozenset({"integer", "number"}): "float64",
    frozenset({"boolean"}): "bool",
}
_LISTS: dict[Kind, Kind] = {"string": "list<string>", "int64": "list<int64>", "float64": "list<float64>"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A nullable column; `json` holds canonical JSON text."""

    name: str
    kind: Kind


class Columns:
    """The columns of one output, sorted by name; what the schema does not name goes, as JSON text, into `extra`."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        properties = schema.get("properties", {})
        self.columns = [Column(name=name, kind=_kind(properties[name])) for name in sorted(properties)]
        self._names = frozenset(properties)
        self.extra = "_extra"
        while self.extra in self._names:
            self.extra = "_" + self.extra

    def misfits(self, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield the names of columns that cannot hold the record's value (an integer over 64 bits, a mixed list)."""
        for column in self.columns:
            if not _fits(record.get(column.name), column.kind):
                yield column.name

    def unnamed(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of the record that has no column."""
        return {name: value for name, value in record.items() if name not in self._names}

    def cells(self, record: Mapping[str, Any]) -> list[Any]:
        """Return the record's cells in order of the columns."""
        return [_cell(record, column) for column in self.columns]


def _kind(schema: object) -> Kind:
    if not isinstance(schema, Mapping):
        return "json"
    kind = _KINDS.get(_types(schema), "json")
    if _types(schema) == {"array"} and "prefixItems" not in schema:
        return _LISTS.get(_kind(schema.get("items")), "json")
    return kind


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    given = schema.get("type", [])
    return frozenset([given] if isinstance(given, str) else given) - {"null"}


def _fits(value: object, kind: Kind) -> bool:
    if value is None or kind == "json":
        return True
    match kind:
        case "string":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "int64":
            return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        case "float64":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            inner: Kind = "string" if kind == "list<string>" else "int64" if kind == "list<int64>" else "float64"
            return isinstance(value, list) and all(item is not None and _fits(item, inner) for item in value)


def _cell(record: Mapping[str, Any], column: Column) -> object:
    if column.name not in record:
        return None
    value = record[column.name]
    match column.kind:
        case "json":
            return canonical(value).decode()
        case "float64" if value is not None:
            return float(value)
        case "list<float64>" if value is not None:
            return [float(item) for item in value]
        case _:
            return value

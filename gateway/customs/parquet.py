"""Rows as a Parquet file. The only file that talks to pyarrow; loaded where such a file is written, for it is large."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.customs.columns import Columns, Kind
from policies.canonical import canonical
from policies.plan import Output

ROW_GROUP = 4096
"""Rows of a Parquet row group; fixed, so that the same rows give the same bytes."""

_TYPES: dict[Kind, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "json": pa.string(),
    "list<string>": pa.list_(pa.string()),
    "list<int64>": pa.list_(pa.int64()),
    "list<float64>": pa.list_(pa.float64()),
}


class Parquet:
    """Writes the rows of one output; with `extra`, a column more for fields that the schema does not name."""

    columns: list[dict[str, str]]

    def __init__(self, file: BinaryIO, output: Output, extra: bool) -> None:
        self._file, self._columns, self._with_extra = file, Columns(output.schema), extra
        fields = [pa.field(column.name, _TYPES[column.kind]) for column in self._columns.columns]
        if extra:
            fields.append(pa.field(self._columns.extra, pa.string()))
        self._schema = pa.schema(fields)
        self.columns = [{"name": field.name, "type": str(field.type)} for field in fields]
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd", store_schema=False)
        self._rows: list[list[Any]] = []

    def add(self, rows: bytes) -> None:
        """Append rows, as canonical lines."""
        for form in rows.split(b"\n")[:-1]:
            record = orjson.loads(form)
            cells = self._columns.cells(record)
            if self._with_extra:
                unnamed = self._columns.unnamed(record)
                cells.append(canonical(unnamed).decode() if unnamed else None)
            self._rows.append(cells)
            if len(self._rows) == ROW_GROUP:
                self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [() for _ in self._schema]
        arrays = [pa.array(cells, field.type) for cells, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=ROW_GROUP)
        self._rows = []

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

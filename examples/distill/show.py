"""Shows what the demo made."""

from pathlib import Path

import duckdb

folder = Path(__file__).resolve().parent / "out"
for name in ("samples.parquet",):
    table = duckdb.sql(f"select topic, words, review from '{folder / name}'")
    print(f"\n{name}: {len(table)} rows\n{table.limit(12)}")

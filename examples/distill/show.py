"""Shows what the demo made."""

from pathlib import Path

import duckdb

samples = Path(__file__).resolve().parent / "out" / "samples.parquet"
table = duckdb.read_parquet(str(samples)).project("topic, words, review")
print(f"\n{samples.name}: {len(table)} rows\n{table.limit(12)}")

#!/usr/bin/env bash
# polars 2.1.0 (PyPI): a column of Int128 or UInt128 in Parquet is FIXED_LEN_BYTE_ARRAY(16) without any
# annotation, the lowest byte first. What it is stands in the embedded Arrow schema alone, as an integer of
# 128 bits, which Arrow does not have.
#
# Seen: pyarrow 26.0.1 opens such a file no more, not even for its other columns (so neither pandas nor
# datasets do): "Integers with more than 64 bits not implemented". DuckDB 2.0.1 gives 16 bytes. A reader that
# takes 16 bare bytes for a UUID gives ids that no one wrote, without a word. Before writing, cast to
# Decimal(38, 0) or to String.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0 pyarrow==26.0.1 duckdb==2.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import duckdb
import polars as pl
import pyarrow.parquet as pq

number = 2**100 + 5
for kind in [pl.Int128, pl.UInt128]:
    ids = pl.Series("id", [number], dtype=kind)
    pl.DataFrame([ids, pl.Series("text", ["a"])]).write_parquet("wide.parquet")
    schema = "select type, type_length, logical_type from parquet_schema('wide.parquet') where name = 'id'"
    ((stored,),) = duckdb.sql("select id from 'wide.parquet'").fetchall()
    try:
        pq.read_table("wide.parquet", columns=["text"])
        refused = None
    except NotImplementedError as error:
        refused = str(error)
    (column,) = duckdb.sql(schema).fetchall()
    print(f"{kind}: {column}; DuckDB reads {stored!r}; pyarrow: {refused}")
    assert column == ("FIXED_LEN_BYTE_ARRAY", "16", None), column
    assert stored == number.to_bytes(16, "little"), stored
    assert refused == "Integers with more than 64 bits not implemented", refused
    assert pl.read_parquet("wide.parquet")["id"].to_list() == [number]
PYTHON

#!/usr/bin/env python3
"""Reads back what Parquet's writers write: a matrix of six writers, their codecs, encodings and types.

Usage: writers.py DOCUMENTS HYPERRAG MODEL [FILTER]

Each case writes the same few documents in one way, and says which documents a reader must find, or that the
file has to be refused. DOCUMENTS (crates/corpus/examples/documents.rs) prints those that are found; of a file
that it refuses, HYPERRAG says the sentence that a user sees, which has to name a remedy. Prints one line a
case: read, refused, or wrong. Exits with 1 if a case is wrong, or refused without need or without a remedy.
"""

import datetime
import decimal
import json
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
import warnings
from pathlib import Path

import datasets
import duckdb
import fastparquet
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption

warnings.filterwarnings("ignore")
datasets.disable_progress_bars()

IDS = ["d1", "d2", "ü3", "d4", "d5", "d6"]
TITLES = ["Bees in winter", "", "Grüße aus 蜂", None, 'Tab\tand "quotes"', "Last"]
TEXTS = [
    "A cluster of bees shivers to keep its queen warm.",
    "Two lines\nof one text, \\ and a tab\t.",
    "蜜蜂过冬 🐝 e\u0301 é",
    None,
    "",
    "A long text is repeated. " * 4000,
]
WHOLE = list(zip(IDS, [title or "" for title in TITLES], [text or "" for text in TEXTS]))
# Words of which a sentence has to have one, to be a remedy.
REMEDY = re.compile(r"--(id|title|text)-column|\bwrite (it|the|them)|check the file|cast them")
CASES = []


def case(writer, name, write, expected=WHOLE, columns=("", "", "")):
    """Adds a case. `write` gets a path that ends in .parquet; `expected` is None for what must be refused."""
    CASES.append((writer, name, write, expected, columns))


def with_ids(ids):
    return [(str(new), title, text) for new, (_, title, text) in zip(ids, WHOLE)]


def with_titles(titles):
    return [(old, title, text) for title, (old, _, text) in zip(titles, WHOLE)]


def with_texts(texts):
    return [(old, title, text) for text, (old, title, _) in zip(texts, WHOLE)]


NUMBERS = [1, 2, 30, 4, 50, 6]
UUIDS = [uuid.UUID(int=0x123E4567E89B12D3A456426614174000 + n) for n in range(6)]
LISTS = [["one", "two"], [], ["three", None, "four"], None, [""], ["five"]]
JOINED = ["one\ntwo", "", "three\nfour", "", "", "five"]
DATES = [datetime.datetime(2026, 1, day + 1, 12, 30, 15, 123456) for day in range(6)]
UNTITLED = with_titles([""] * 6)
TEXTLESS = with_texts([""] * 6)


def base(**columns):
    return {"id": IDS, "title": TITLES, "text": TEXTS} | columns


def pyarrow_cases():
    def write(table=None, **settings):
        table = table if table is not None else pa.table(base())
        return lambda path: pq.write_table(table, path, **settings)

    def add(name, expected=WHOLE, columns=("", "", ""), table=None, **settings):
        case("pyarrow", name, write(table, **settings), expected, columns)

    for codec in ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]:
        for version in ["1.0", "2.0"]:
            for dictionary in [True, False]:
                name = f"{codec}, pages {version}{', dictionary' if dictionary else ''}"
                add(name, compression=codec, data_page_version=version, use_dictionary=dictionary)
    for encoding in ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"]:
        for version in ["1.0", "2.0"]:
            plain = {name: encoding for name in base()}
            add(f"{encoding}, pages {version}", use_dictionary=False, column_encoding=plain, data_page_version=version)
    numbered = pa.table(base(id=NUMBERS))
    for encoding in ["DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"]:
        add(
            f"ids {encoding}", with_ids(NUMBERS), table=numbered, use_dictionary=False, column_encoding={"id": encoding}
        )
    for kind in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]:
        add(f"ids {kind}", with_ids(NUMBERS), table=pa.table(base(id=pa.array(NUMBERS, getattr(pa, kind)()))))
    huge = [2**64 - 1 - n for n in range(6)]
    add("ids up to 2^64", with_ids(huge), table=pa.table(base(id=pa.array(huge, pa.uint64()))))
    for kind in ["float32", "float64"]:
        table = pa.table(base(id=pa.array(NUMBERS, getattr(pa, kind)())))
        add(f"ids {kind}", with_ids(NUMBERS), table=table)
        add(
            f"ids {kind} BYTE_STREAM_SPLIT",
            with_ids(NUMBERS),
            table=table,
            use_dictionary=False,
            use_byte_stream_split=["id"],
        )
    add("ids float16", None, table=pa.table(base(id=pa.array(NUMBERS, pa.float16()))))
    add("ids float with fractions", None, table=pa.table(base(id=[1.5, 2, 3, 4, 5, 6])))
    add("ids float beyond 2^53", None, table=pa.table(base(id=[1e16, 2, 3, 4, 5, 6])))
    for kind in [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]:
        schema = pa.schema([(name, kind) for name in base()])
        strings = pa.Table.from_pydict(base(), pa.schema([(name, pa.string()) for name in base()]))
        columns = [strings[name].cast(kind) for name in base()]
        add(f"all {kind}", table=pa.Table.from_arrays(columns, schema=schema))
        add(f"all {kind}, no Arrow schema", table=pa.Table.from_arrays(columns, schema=schema), store_schema=False)
    add("text not UTF-8", None, table=pa.table(base(text=pa.array([b"a", b"\xff", b"", b"", b"", b""]))))
    raw = [value.bytes for value in UUIDS]
    add("ids uuid", with_ids(UUIDS), table=pa.table(base(id=pa.array(raw, pa.uuid()))))
    add("ids binary(16)", with_ids(UUIDS), table=pa.table(base(id=pa.array(raw, pa.binary(16)))))
    short = [n.to_bytes(16, "little") for n in NUMBERS]
    add("ids binary(16) of integers", None, table=pa.table(base(id=pa.array(short, pa.binary(16)))))
    padded = [f"d{n}".encode().ljust(8, b"\0") for n in NUMBERS]
    words = with_ids([f"d{n}" for n in NUMBERS])
    add("ids binary(8), padded", words, table=pa.table(base(id=pa.array(padded, pa.binary(8)))))
    digits = [f"{n:016x}" for n in NUMBERS]
    add(
        "ids binary(16) of letters",
        with_ids(digits),
        table=pa.table(base(id=pa.array([d.encode() for d in digits], pa.binary(16)))),
    )
    add(
        "ids binary(2)",
        with_ids(["d1", "d2", "d3", "d4", "d5", "d6"]),
        table=pa.table(base(id=pa.array([b"d1", b"d2", b"d3", b"d4", b"d5", b"d6"], pa.binary(2)))),
    )
    add(
        "ids binary(16), BYTE_STREAM_SPLIT",
        with_ids(UUIDS),
        table=pa.table(base(id=pa.array(raw, pa.binary(16)))),
        use_dictionary=False,
        use_byte_stream_split=["id"],
    )
    for kind in [pa.decimal32(9), pa.decimal64(18), pa.decimal128(4), pa.decimal128(38), pa.decimal256(76)]:
        exact = [decimal.Decimal(n) for n in NUMBERS]
        for as_integer in [True, False]:
            add(
                f"ids {kind}, as integer {as_integer}",
                with_ids(NUMBERS),
                table=pa.table(base(id=pa.array(exact, kind))),
                store_decimal_as_integer=as_integer,
            )
    add(
        "ids decimal128(10, 2)",
        with_ids(NUMBERS),
        table=pa.table(base(id=pa.array([decimal.Decimal(n) for n in NUMBERS], pa.decimal128(10, 2)))),
    )
    add(
        "ids decimal128(10, 2) with fractions",
        None,
        table=pa.table(base(id=pa.array([decimal.Decimal("1.25")] * 6, pa.decimal128(10, 2)))),
    )
    add("dictionaries", table=pa.table({name: pa.array(values).dictionary_encode() for name, values in base().items()}))
    add("titles null", UNTITLED, table=pa.table(base(title=pa.nulls(6))))
    add("titles null, named", UNTITLED, ("", "title", ""), table=pa.table(base(title=pa.nulls(6))))
    add("texts null", TEXTLESS, table=pa.table(base(text=pa.nulls(6))))
    add("ids null", None, table=pa.table(base(id=pa.nulls(6))))
    add("one id null", None, table=pa.table(base(id=["a", None, "c", "d", "e", "f"])))
    add("titles null strings", UNTITLED, table=pa.table(base(title=pa.nulls(6, pa.string()))))
    for kind in [pa.int32(), pa.bool_(), pa.timestamp("us"), pa.float64()]:
        add(f"titles null {kind}", UNTITLED, table=pa.table(base(title=pa.nulls(6, kind))))
    add("titles int64", with_titles([str(n) for n in NUMBERS]), table=pa.table(base(title=NUMBERS)))
    add("titles boolean", None, table=pa.table(base(title=[True, False] * 3)))
    add("texts int64", None, table=pa.table(base(text=NUMBERS)))
    add("ids timestamp", None, table=pa.table(base(id=DATES)))
    for kind in [
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.string_view()),
        pa.list_(pa.binary()),
    ]:
        for version in ["1.0", "2.0"]:
            for compliant in [True, False]:
                add(
                    f"texts {kind}, named, pages {version}, compliant {compliant}",
                    with_texts(JOINED),
                    ("", "", "text"),
                    table=pa.table(base(text=pa.array(LISTS, pa.list_(pa.string())).cast(kind))),
                    data_page_version=version,
                    use_compliant_nested_type=compliant,
                )
    add("texts list, not named", None, table=pa.table(base(text=LISTS)))
    lists = pa.table(base(text=LISTS))
    add(
        "texts list, DELTA_BYTE_ARRAY",
        with_texts(JOINED),
        ("", "", "text"),
        table=lists,
        use_dictionary=False,
        column_encoding={"id": "PLAIN", "title": "PLAIN", "text.list.element": "DELTA_BYTE_ARRAY"},
    )
    fixed = pa.array([["a", "b"]] * 6, pa.list_(pa.string(), 2))
    add("texts list of 2, named", with_texts(["a\nb"] * 6), ("", "", "text"), table=pa.table(base(text=fixed)))
    documents = [None if text is None else {"title": title, "text": text} for title, text in zip(TITLES, TEXTS)]
    structs = pa.table({"id": IDS, "doc": documents, "doc.text": TITLES})
    add(
        "struct, dotted",
        [(i, "" if text is None else title, text or "") for (i, title, _), text in zip(WHOLE, TEXTS)],
        ("", "doc.title", "doc.text"),
        table=structs.drop(["doc.text"]),
    )
    add("own name with a dot", [(i, "", title) for i, title, _ in WHOLE], ("", "", "doc.text"), table=structs)
    add("struct, not dotted", None, ("", "", "doc"), table=structs)
    beside = pa.table(
        base(
            nothing=pa.nulls(6),
            when=pa.array(DATES, pa.timestamp("ns")),
            zoned=pa.array(DATES, pa.timestamp("us", "Europe/Zurich")),
            took=pa.array([datetime.timedelta(1)] * 6),
            day=pa.array([DATES[0].date()] * 6),
            time=pa.array([DATES[0].time()] * 6),
            half=pa.array([0.5] * 6, pa.float16()),
            map=pa.array([[("a", 1)]] * 6, pa.map_(pa.string(), pa.int32())),
            lists=pa.array([[[1], []]] * 6),
            structs=pa.array([[{"a": 1}]] * 6),
            true=[True] * 6,
            bytes=[b"\xff"] * 6,
            uuid=pa.array(raw, pa.uuid()),
            decimal=[decimal.Decimal("1.5")] * 6,
            vectors=pa.array([[0.1, 0.2]] * 6, pa.list_(pa.float32(), 2)),
        )
    )
    add("odd types beside", table=beside)
    add(
        "odd types beside, lists named",
        with_texts(JOINED),
        ("", "", "text"),
        table=beside.set_column(2, "text", pa.array(LISTS)),
    )
    add("odd types beside, version 1.0", table=beside, version="1.0")
    add("INT96 beside", table=beside, use_deprecated_int96_timestamps=True)
    add("row groups of 1", row_group_size=1)
    add("row groups of 1, lists named", with_texts(JOINED), ("", "", "text"), table=lists, row_group_size=1)
    add("small pages", data_page_size=1, write_batch_size=1)
    add("page index, checksums", write_page_index=True, write_page_checksum=True)
    add("no statistics", write_statistics=False)
    add("chunks by content", use_content_defined_chunking=True)
    add("no rows", [], table=pa.table(base()).slice(0, 0))
    add("no rows, null columns", [], table=pa.table({name: pa.nulls(0) for name in base()}))
    add("no rows, other types", [], table=pa.table({name: pa.array([], pa.bool_()) for name in base()}))
    keys = pq.encryption.EncryptionConfiguration(footer_key="key", uniform_encryption=True)

    def encrypted(path):
        class Keys(pq.encryption.KmsClient):
            def wrap_key(self, key, _):
                return key

        factory = pq.encryption.CryptoFactory(lambda _: Keys())
        properties = factory.file_encryption_properties(pq.encryption.KmsConnectionConfig(), keys)
        pq.write_table(pa.table(base()), path, encryption_properties=properties)

    case("pyarrow", "encrypted", encrypted, None)
    add("heading", WHOLE, table=pa.table({"docno": IDS, "heading": TITLES, "passage": TEXTS}))


def pandas_cases():
    def add(name, frame, expected=WHOLE, columns=("", "", ""), **settings):
        case("pandas", name, lambda path: frame.to_parquet(path, engine="pyarrow", **settings), expected, columns)

    frame = pd.DataFrame(base())
    for codec in [None, "snappy", "gzip", "brotli", "zstd", "lz4"]:
        add(f"{codec}", frame, compression=codec)
    add("objects", frame.astype(object))
    for kind in ["string", "string[python]", "string[pyarrow]", "category"]:
        add(f"all {kind}", frame.astype(kind))
    add("titles None", frame.assign(title=None), UNTITLED)
    add("titles NaN", frame.assign(title=np.nan), UNTITLED)
    add("titles NA", frame.assign(title=pd.NA), UNTITLED)
    add("texts NaN", frame.assign(text=np.nan), TEXTLESS)
    add("ids None", frame.assign(id=None), None)
    for kind in ["int64", "uint8", "Int64", "UInt16", "float64", "int64[pyarrow]"]:
        add(f"ids {kind}", frame.assign(id=pd.array(NUMBERS, kind)), with_ids(NUMBERS))
    add("ids with a gap", frame.assign(id=[1, None, 3, 4, 5, 6]), None)
    add("ids as bytes", frame.assign(id=[name.encode() for name in IDS]))
    add("ids Decimal", frame.assign(id=[decimal.Decimal(n) for n in NUMBERS]), with_ids(NUMBERS))
    add("ids UUID", frame.assign(id=UUIDS), with_ids(UUIDS))
    add("ids as index", frame.set_index("id"))
    add("an index without a name", frame.set_index(pd.Index(list("uvwxyz"))))
    add("an index with gaps", frame[frame.id != "d2"], [d for d in WHOLE if d[0] != "d2"])
    add("an index of two levels", frame.set_index(["id", "title"]))
    add("no index", frame, index=False)
    add("a forced index", frame, index=True)
    add("texts lists, named", frame.assign(text=LISTS), with_texts(JOINED), ("", "", "text"))
    structs = frame.assign(doc=[{"body": text} for text in TEXTS]).drop(columns="text")
    add("texts in structs", structs, WHOLE, ("", "", "doc.body"))
    add(
        "dates, periods, complex beside",
        frame.assign(
            when=DATES,
            took=pd.Timedelta(1, "s"),
            period=pd.period_range("2026-01", periods=6, freq="M"),
            interval=pd.interval_range(0, 6),
        ),
    )
    add("row groups of 1", frame, row_group_size=1)
    add("pages 2.0", frame, data_page_version="2.0")
    add("no rows", frame.head(0), [])
    add("no rows, objects", frame.astype(object).head(0), [])
    case(
        "pandas",
        "partitions",
        lambda path: frame.assign(year=[1, 1, 1, 2, 2, 2]).to_parquet(path, partition_cols=["year"]),
        WHOLE,
    )


def polars_cases():
    def add(name, frame, expected=WHOLE, columns=("", "", ""), **settings):
        case("polars", name, lambda path: frame.write_parquet(path, **settings), expected, columns)

    frame = pl.DataFrame(base())
    column = lambda name, values, kind: frame.with_columns(pl.Series(name, values, dtype=kind))
    for codec in ["uncompressed", "snappy", "gzip", "brotli", "zstd", "lz4"]:
        add(codec, frame, compression=codec)
    add("with pyarrow", frame, use_pyarrow=True)
    case("polars", "streamed", lambda path: frame.lazy().sink_parquet(path))
    add("categorical", frame.cast(pl.Categorical))
    add("enum", column("title", TITLES, pl.Enum([title for title in TITLES if title is not None])))
    add("bytes", frame.cast(pl.Binary))
    add("titles null", column("title", [None] * 6, pl.Null), UNTITLED)
    add("texts null", column("text", [None] * 6, pl.Null), TEXTLESS)
    add("ids null", column("id", [None] * 6, pl.Null), None)
    for kind in [
        pl.Int8,
        pl.Int16,
        pl.Int32,
        pl.Int64,
        pl.Int128,
        pl.UInt8,
        pl.UInt16,
        pl.UInt32,
        pl.UInt64,
        pl.UInt128,
        pl.Float32,
        pl.Float64,
    ]:
        add(f"ids {kind}", column("id", NUMBERS, kind), with_ids(NUMBERS))
    large = [2**100 + n for n in range(6)]
    add("ids Int128 of 2^100", column("id", large, pl.Int128), with_ids(large))
    add("ids Int128, negative", column("id", [-1, 2, 3, 4, 5, 6], pl.Int128), None)
    add("titles Int128", column("title", NUMBERS, pl.Int128), with_titles([str(n) for n in NUMBERS]))
    for precision in [4, 18, 38]:
        exact = [decimal.Decimal(n) for n in NUMBERS]
        add(f"ids Decimal({precision}, 0)", column("id", exact, pl.Decimal(precision, 0)), with_ids(NUMBERS))
    add("texts lists, named", column("text", LISTS, pl.List(pl.String)), with_texts(JOINED), ("", "", "text"))
    add(
        "texts arrays, named",
        column("text", [["a", "b"]] * 6, pl.Array(pl.String, 2)),
        with_texts(["a\nb"] * 6),
        ("", "", "text"),
    )
    add(
        "texts in structs",
        frame.select("id", "title", pl.struct(body="text").alias("doc")),
        WHOLE,
        ("", "", "doc.body"),
    )
    add(
        "odd types beside",
        frame.with_columns(
            when=pl.Series(DATES),
            took=pl.Series([datetime.timedelta(1)] * 6),
            big=pl.Series(NUMBERS, dtype=pl.Int128),
            time=pl.Series([DATES[0].time()] * 6),
            lists=pl.Series([[[1]]] * 6),
            half=pl.Series([0.5] * 6, dtype=pl.Float32),
        ),
    )
    add(
        "Int128 beside lists, named",
        column("text", LISTS, pl.List(pl.String)).with_columns(big=pl.Series(NUMBERS, dtype=pl.Int128)),
        with_texts(JOINED),
        ("", "", "text"),
    )
    add("row groups of 1", frame, row_group_size=1)
    add("small pages", frame, data_page_size=1)
    add("no statistics", frame, statistics=False)
    add("all statistics", frame, statistics="full")
    add("no rows", frame.head(0), [])
    add(
        "no rows, null columns",
        pl.DataFrame({name: [] for name in base()}, schema={name: pl.Null for name in base()}),
        [],
    )
    case(
        "polars",
        "partitions",
        lambda path: frame.with_columns(year=pl.Series([1, 1, 1, 2, 2, 2])).write_parquet(
            path, partition_by="year", mkdir=True
        ),
    )


def duckdb_cases():
    frame = pa.table(base())

    def add(name, select="select * from frame", expected=WHOLE, columns=("", "", ""), settings=""):
        def write(path):
            connection = duckdb.connect()
            connection.register("frame", frame)
            connection.register("numbered", pa.table(base(id=NUMBERS)))
            connection.register("lists", pa.table(base(text=LISTS)))
            connection.register("uuids", pa.table(base(id=[str(value) for value in UUIDS])))
            connection.execute(f"copy ({select}) to '{path}' (format parquet{settings})")

        case("duckdb", name, write, expected, columns)

    for codec in ["uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4", "lz4_raw"]:
        for version in ["V1", "V2"]:
            add(f"{codec}, {version}", settings=f", compression {codec}, parquet_version {version}")
    for kind in [
        "tinyint",
        "smallint",
        "integer",
        "bigint",
        "utinyint",
        "usmallint",
        "uinteger",
        "ubigint",
        "hugeint",
        "uhugeint",
        "bignum",
        "double",
        "float",
        "decimal(4, 0)",
        "decimal(9, 0)",
        "decimal(18, 0)",
        "decimal(38, 0)",
        "decimal(18, 3)",
    ]:
        for version in ["V1", "V2"]:
            add(
                f"ids {kind}, {version}",
                f"select * replace (id::{kind} as id) from numbered",
                with_ids(NUMBERS),
                settings=f", parquet_version {version}",
            )
    add(
        "ids by sum()",
        "select sum(id) over (order by id rows between current row and current row) as id, title, text from numbered",
        sorted(with_ids(NUMBERS), key=lambda d: int(d[0])),
    )
    add("ids HUGEINT beyond 2^53", "select * replace (id::hugeint + 9007199254740993 as id) from numbered", None)
    add("ids UUID", "select * replace (id::uuid as id) from uuids", with_ids(UUIDS))
    add("titles untyped null", "select * replace (null as title) from frame", UNTITLED)
    add("titles null integer", "select * replace (null::integer as title) from frame", UNTITLED)
    add("texts untyped null", "select * replace (null as text) from frame", TEXTLESS)
    add("ids untyped null", "select * replace (null as id) from frame", None)
    add(
        "all BLOB",
        "select encode(id) as id, encode(title) as title, encode(text) as text from frame",
    )
    add(
        "titles ENUM",
        "select * replace (title::enum('Bees in winter', '', 'Grüße aus 蜂', 'Tab\tand \"quotes\"', 'Last')"
        " as title) from frame",
    )
    add("texts JSON", "select * replace ('{\"a\": 1}'::json as text) from frame", with_texts(['{"a": 1}'] * 6))
    add("texts lists, named", "select * from lists", with_texts(JOINED), ("", "", "text"))
    add("texts lists, not named", "select * from lists", None)
    add(
        "texts arrays, named",
        "select * replace (['a', 'b']::varchar[2] as text) from frame",
        with_texts(["a\nb"] * 6),
        ("", "", "text"),
    )
    add("texts in structs", "select id, title, {'body': text, 'n': 1} as doc from frame", WHOLE, ("", "", "doc.body"))
    add(
        "odd types beside",
        "select *, map {'a': 1} as m, interval 1 day as i, '101'::bit as b, time '12:00' as t, date '2026-01-01' as d,"
        " timestamp_ns '2026-01-01 00:00:00' as ns, timestamptz '2026-01-01 00:00:00+01' as tz, [[1]] as l,"
        " 1::hugeint as h, uuid() as u, null as n, true as bool, 'x'::blob as bytes from frame",
    )
    add(
        "odd types beside lists, named",
        "select *, map {'a': 1} as m, interval 1 day as i, [[1]] as l, uuid() as u, null as n from lists",
        with_texts(JOINED),
        ("", "", "text"),
    )
    add("row groups of 1", settings=", row_group_size 1")
    add("no dictionary", settings=", dictionary_size_limit 1")
    add("no rows", "select * from frame where false", [])
    add("no rows, untyped", "select null as id, null as title, null as text where false", [])
    add("field ids", settings=", field_ids {id: 7, title: 8, text: 9}")
    add("partitions", "select *, 1 as year from frame", settings=", partition_by (year)")


def fastparquet_cases():
    def add(name, frame, expected=WHOLE, columns=("", "", ""), **settings):
        case("fastparquet", name, lambda path: fastparquet.write(path, frame, **settings), expected, columns)

    frame = pd.DataFrame(base()).astype(object)
    for codec in ["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4", "LZ4_RAW"]:
        add(codec, frame, compression=codec)
    add("new strings", pd.DataFrame(base()))
    add("categories", frame.astype("category"))
    add("titles None", frame.assign(title=None), UNTITLED)
    add("titles NaN", frame.assign(title=np.nan), UNTITLED)
    full = [(old, "", text or "-") for old, _, text in WHOLE]
    unmarked = frame.assign(title=np.nan, text=[text for _, _, text in full])
    add("titles NaN, no nulls", unmarked, full, has_nulls=False)
    add("texts None", frame.assign(text=None), TEXTLESS)
    add("ids None", frame.assign(id=None), None)
    for kind in ["int8", "int64", "uint32", "Int64", "float64"]:
        add(f"ids {kind}", frame.assign(id=pd.array(NUMBERS, kind)), with_ids(NUMBERS))
    add("ids Decimal", frame.assign(id=[decimal.Decimal(n) for n in NUMBERS]), with_ids(NUMBERS))
    add("ids as bytes", frame.assign(id=[name.encode() for name in IDS]))
    add("ids as index", frame.set_index("id"))
    add("an index without a name", frame.set_index(pd.Index(list("uvwxyz"))))
    add("object_encoding utf8", frame, object_encoding="utf8")
    encodings = {"id": "utf8", "title": "utf8", "text": "utf8", "extra": "json"}
    add("JSON beside", frame.assign(extra=[{"a": 1}] * 6), object_encoding=encodings)
    add("dates beside", frame.assign(when=DATES, took=pd.Timedelta(1, "s")))
    add("INT96 beside", frame.assign(when=DATES), times="int96")
    add("row groups of 1", frame, row_group_offsets=1)
    add("no statistics", frame, stats=False)
    add("no rows", frame.head(0), [])
    add("no rows, utf8", frame.head(0), [], object_encoding="utf8")
    case(
        "fastparquet",
        "hive",
        lambda path: fastparquet.write(
            path, frame.assign(year=[1, 1, 1, 2, 2, 2]), file_scheme="hive", partition_on=["year"]
        ),
    )
    case(
        "fastparquet",
        "a folder",
        lambda path: fastparquet.write(path, frame, file_scheme="hive", row_group_offsets=[0, 3]),
    )


def datasets_cases():
    from datasets import Array2D, ClassLabel, Dataset, Features, LargeList, List, Value

    def add(name, columns_of, expected=WHOLE, columns=("", "", ""), features=None, **settings):
        def write(path):
            Dataset.from_dict(columns_of, features=features and Features(features)).to_parquet(path, **settings)

        case("datasets", name, write, expected, columns)

    text = {name: Value("string") for name in base()}
    add("strings", base())
    for kind in ["large_string", "string_view", "binary", "large_binary"]:
        values = {
            name: [v.encode() if v is not None and "binary" in kind else v for v in column]
            for name, column in base().items()
        }
        add(kind, values, features={name: Value(kind) for name in base()})
    add("titles None", base(title=[None] * 6), UNTITLED)
    add("titles of type null", base(title=[None] * 6), UNTITLED, features=text | {"title": Value("null")})
    for kind in ["int8", "int64", "uint64", "float64"]:
        add(f"ids {kind}", base(id=NUMBERS), with_ids(NUMBERS), features=text | {"id": Value(kind)})
    add(
        "ids decimal128(38, 0)",
        base(id=[decimal.Decimal(n) for n in NUMBERS]),
        with_ids(NUMBERS),
        features=text | {"id": Value("decimal128(38, 0)")},
    )
    add(
        "texts lists, named",
        base(text=LISTS),
        with_texts(JOINED),
        ("", "", "text"),
        features=text | {"text": List(Value("string"))},
    )
    add(
        "texts large lists, named",
        base(text=LISTS),
        with_texts(JOINED),
        ("", "", "text"),
        features=text | {"text": LargeList(Value("string"))},
    )
    add(
        "texts in structs",
        {"id": IDS, "doc": [{"title": a, "text": b} for a, b in zip(TITLES, TEXTS)]},
        WHOLE,
        ("", "doc.title", "doc.text"),
    )
    add(
        "classes and arrays beside",
        base(label=[0] * 6, image=[[[1, 2], [3, 4]]] * 6, pairs=[[{"a": "x"}]] * 6),
        features=text
        | {"label": ClassLabel(names=["x"]), "image": Array2D((2, 2), "int32"), "pairs": List({"a": Value("string")})},
    )
    add("row groups of 1", base(), batch_size=1)
    add("no rows", {name: [] for name in base()}, [])
    add("no rows, typed", {name: [] for name in base()}, [], features=text)


def found(documents, path, columns):
    """Returns the documents that are read, sorted if they are in several files, or None."""
    many = path.is_dir()
    command = [documents, f"{path}/**/*.parquet" if many else str(path), *columns]
    run = subprocess.run(command, capture_output=True, timeout=120)
    if run.returncode != 0:
        return None
    read = [tuple(json.loads(line)) for line in run.stdout.decode().split("\n") if line]
    return sorted(read) if many else read


def sentence(hyperrag, model, path, columns):
    """Returns what the program says of a file that it refuses."""
    flags = ["--id-column", "--title-column", "--text-column"]
    flags = [word for flag, name in zip(flags, columns) if name for word in (flag, name)]
    command = [
        hyperrag,
        "build",
        str(path),
        "--store",
        f"{path}.store",
        "--model",
        model,
        "--dry-run",
        "--json",
        *flags,
    ]
    run = subprocess.run(command, capture_output=True, timeout=120)
    lines = run.stderr.decode().strip().split("\n")
    return run.returncode, lines[-1].replace(str(path), path.name)


def judged(write, expected, columns, tools, path):
    """Returns the verdict about a case, whether it is as it must be, and what is to be said of it."""
    documents, hyperrag, model = tools
    try:
        write(str(path))
    except Exception as error:  # A writer may be unable to write a type.
        return "not written", True, f"{type(error).__name__}: {error}".split("\n")[0][:120]
    read = found(documents, path, columns)
    if read is not None:
        if expected is not None and read == (sorted(expected) if path.is_dir() else expected):
            return "read", True, ""
        differing = next(
            (pair for pair in zip(read, expected or []) if pair[0] != pair[1]), (len(read), expected and len(expected))
        )
        return "wrong", False, f"{differing}"[:300]
    status, said = sentence(hyperrag, model, path, columns)
    good = expected is None and status != 0 and REMEDY.search(said) is not None
    return "refused", good, said


def main():
    tools, wanted = sys.argv[1:4], sys.argv[4:]
    pyarrow_cases()
    pandas_cases()
    polars_cases()
    duckdb_cases()
    fastparquet_cases()
    datasets_cases()
    counts, bad = {}, 0
    folder = Path(tempfile.mkdtemp(prefix="writers-"))
    try:
        for number, (writer, name, write, expected, columns) in enumerate(CASES):
            if wanted and wanted[0] not in f"{writer} {name}":
                continue
            verdict, good, said = judged(write, expected, columns, tools, folder / f"{number}.parquet")
            counts[writer, verdict] = counts.get((writer, verdict), 0) + 1
            bad += not good
            mark = "" if good else "  <-- BAD"
            print(f"{writer:12} {name:58} {verdict:12}{mark} {said}".rstrip(), flush=True)
    finally:
        shutil.rmtree(folder)
    verdicts = ["read", "refused", "not written", "wrong"]
    print("\n" + "".join(f"{word:>14}" for word in ["", *verdicts]))
    for writer in dict.fromkeys(writer for writer, _ in counts):
        row = [str(counts.get((writer, verdict), 0)) for verdict in verdicts]
        print("".join(f"{word:>14}" for word in [writer, *row]))
    print(f"\n{bad} cases are not as they must be")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())

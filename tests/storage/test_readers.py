"""The tables in other people's hands: pandas, polars, DuckDB, deltalake; and how the files are encoded."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from storage import LABELS, Store, StoreError, TableSpec

LIVE = {"a": "2", "b": "1", "c": "1"}


@pytest.fixture
def replaced(store: Store, spec: TableSpec, features, wanted):
    """A table after a replacement, with an orphan in its folder."""
    table = store.table(spec)
    first = {"a": "1", "b": "1", "c": "1"}
    table.register([table.stage(features(first, missing=["c"]), run_id="r", name="one")], wanted=wanted(first))
    table.register([table.stage(features({"a": "2"}), run_id="r", name="two")], wanted=wanted({"a": "2"}))
    table.stage(features({"a": "1", "b": "1", "d": "1"}), run_id="r", name="orphan")
    assert table.orphans() == ["orphan.parquet"]
    assert len(list(Path(table.path).glob("*.parquet"))) == 4
    return table


def test_deltalake_and_pandas(replaced) -> None:
    import pandas

    table = DeltaTable(replaced.path)
    uris: Any = table.file_uris()  # pandas' types know of one path only
    for frame in (table.to_pandas(), pandas.read_parquet(uris)):
        assert dict(zip(frame.clip_id, frame.input_hash, strict=True)) == LIVE
        assert len(frame) == 3
        row = frame.set_index("clip_id").loc["b"]
        assert len(row["values"]) == row["n_frames"] * 3
    assert table.to_pyarrow_table().num_rows == 3


def test_polars(replaced) -> None:
    import polars

    frame = polars.scan_delta(replaced.path).collect()
    assert dict(frame.select("clip_id", "input_hash").rows()) == LIVE
    assert frame.height == 3
    skipped = polars.scan_delta(replaced.path).filter(polars.col("clip_id") == "a").collect()
    assert skipped["input_hash"].to_list() == ["2"]


def test_duckdb(replaced) -> None:
    import duckdb

    rows = duckdb.from_arrow(DeltaTable(replaced.path).to_pyarrow_dataset())
    assert rows.select("clip_id, input_hash").order("clip_id").fetchall() == sorted(LIVE.items())
    assert rows.filter("clip_id = 'b'").aggregate("count(*)").fetchall() == [(1,)]


def test_the_folder_by_itself_holds_more_than_the_live_rows(replaced) -> None:
    assert sum(pq.read_metadata(path).num_rows for path in Path(replaced.path).glob("*.parquet")) > 3
    assert sum(pq.read_metadata(path).num_rows for path in replaced.file_uris()) == 3


def test_time_travel(replaced, features) -> None:
    before = DeltaTable(replaced.path, version=0).to_pandas()
    assert dict(zip(before.clip_id, before.input_hash, strict=True)) == {"a": "1", "b": "1", "c": "1"}


def test_every_file_is_zstd_without_dictionary_and_splits_floats(replaced, store: Store, labels) -> None:
    store.table(LABELS).merge(labels({("a", "x"): 1.0}))
    paths = [*Path(replaced.path).glob("*.parquet"), *store.table(LABELS).file_uris()]
    assert len(paths) == 5
    for path in paths:
        metadata = pq.read_metadata(path)
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                column = metadata.row_group(group).column(index)
                assert column.compression == "ZSTD"
                assert not column.has_dictionary_page
                assert not any("DICTIONARY" in encoding for encoding in column.encodings)
                floating = column.physical_type in ("FLOAT", "DOUBLE")
                assert ("BYTE_STREAM_SPLIT" in column.encodings) == floating, column.path_in_schema
                keyish = column.path_in_schema in ("clip_id", "corpus_id", "name")
                assert column.is_stats_set == keyish


def test_statistics_in_the_log_skip_files(replaced) -> None:
    actions = pa.table(DeltaTable(replaced.path).get_add_actions(flatten=True)).to_pylist()
    ranges = {row["path"]: (row["min.clip_id"], row["max.clip_id"], row["num_records"]) for row in actions}
    assert ranges.pop("two.parquet") == ("a", "a", 1)
    assert list(ranges.values()) == [("b", "c", 2)]
    dataset = DeltaTable(replaced.path).to_pyarrow_dataset()
    assert [part.path for part in dataset.get_fragments(pc.field("clip_id") == "a")] == ["two.parquet"]


def test_filters_on_any_column_find_what_plain_python_finds(store: Store, labels) -> None:
    """A column without statistics, or without a value in some file, once made readers drop its rows."""
    import duckdb
    import polars

    table = store.table(LABELS)
    rows = labels({(f"c{i}", "x"): (None if i % 3 == 0 else float(i)) for i in range(12)})
    table.merge(rows.slice(0, 6))
    nameless = rows.slice(6).drop_columns("corpus_id").append_column("corpus_id", pa.nulls(6, pa.string()))
    table.merge(nameless)
    dataset = DeltaTable(table.path).to_pyarrow_dataset()
    cases = {
        "value >= 8": (pc.field("value") >= 8, 3),
        "value is null": (pc.field("value").is_null(), 4),
        "source_id is null": (pc.field("source_id").is_null(), 12),
        "corpus_id is null": (pc.field("corpus_id").is_null(), 6),
        "corpus_id = 'corpus'": (pc.field("corpus_id") == "corpus", 6),
        "clip_id = 'c4' and value > 1": ((pc.field("clip_id") == "c4") & (pc.field("value") > 1), 1),
    }
    for sql, (expression, expected) in cases.items():
        assert table.read(filter=expression).num_rows == expected, sql
        assert dataset.to_table(filter=expression).num_rows == expected, sql
        assert duckdb.from_arrow(dataset).filter(sql).aggregate("count(*)").fetchall() == [(expected,)], sql
        assert polars.scan_delta(table.path).filter(polars.sql_expr(sql)).collect().height == expected, sql


def test_a_damaged_file_is_one_line_wherever_it_is_read(replaced, store: Store) -> None:
    snapshot = store.snapshots.take()
    name = replaced.spec.name
    for path in map(Path, replaced.file_uris()):
        path.write_bytes(b"damaged" * (path.stat().st_size // 7))
    reads = {
        "read": replaced.read,
        "batches": lambda: list(replaced.batches()),
        "snapshot": lambda: snapshot.read(name),
        "snapshot's batches": lambda: list(snapshot.batches(name)),
        "files": lambda: snapshot.read_files(name, snapshot.files(name), replaced.spec.schema),
    }
    for read in reads.values():
        with pytest.raises(StoreError, match=f"the table {name} cannot be read: .*`miar verify`") as caught:
            read()
        assert "\n" not in str(caught.value)

"""Upsert and delete by key, in one commit."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from storage import CLIPS, FAILURES, FEATURE_SETS, LABELS, RUNS, SCORES, MergeResult, Store, StoreError
from storage.plans import SMALL_FILES


def values(table) -> dict[tuple[str, str], float | None]:
    return {(row["clip_id"], row["name"]): row["value"] for row in table.read().to_pylist()}


def keys(*pairs: tuple[str, str]) -> pa.Table:
    return pa.table({"clip_id": [clip for clip, _ in pairs], "name": [name for _, name in pairs]})


def test_a_table_without_commits_is_empty(store: Store) -> None:
    table = store.table(LABELS)
    assert not table.exists()
    assert table.version() is None
    assert table.count() == 0
    assert table.file_uris() == []
    assert table.read().schema == LABELS.schema
    assert table.read(["value"], pc.field("clip_id") == "x").num_rows == 0
    assert list(table.batches()) == []
    assert table.orphans() == []


def test_merge_adds_replaces_deletes_and_leaves_alone_in_one_commit(store: Store, labels) -> None:
    table = store.table(LABELS)
    first = {("a", "x"): 1.0, ("a", "y"): None, ("b", "x"): math.nan}
    assert table.merge(labels(first)) == MergeResult(rows_added=3)
    second = {("a", "x"): 2.0, ("a", "y"): None, ("c", "x"): 3.0}
    result = table.merge(labels(second), delete_keys=keys(("b", "x"), ("nobody", "x")))
    assert result == MergeResult(rows_added=1, rows_replaced=1, rows_deleted=1, rows_unchanged=1)
    assert table.version() == 1
    assert values(table) == second
    assert table.count() == 3


def test_a_merge_that_changes_nothing_writes_nothing(store: Store, labels) -> None:
    table = store.table(LABELS)
    rows = labels({("a", "x"): math.nan, ("b", "x"): None, ("c", "x"): 0.5})
    table.merge(rows)
    before = sorted(path.name for path in Path(table.path).rglob("*"))
    assert table.merge(rows, delete_keys=keys(("nobody", "x"))) == MergeResult(rows_unchanged=3)
    assert store.table(LABELS).merge(rows.slice(1, 1)) == MergeResult(rows_unchanged=1)
    assert table.merge(rows.slice(0, 0)) == MergeResult()
    assert sorted(path.name for path in Path(table.path).rglob("*")) == before
    assert list((Path(store.uri) / "_staging").iterdir()) == []


def test_deleting_from_nothing_makes_no_table(store: Store, labels) -> None:
    table = store.table(LABELS)
    assert table.merge(labels({}), delete_keys=keys(("a", "x"))) == MergeResult()
    assert not table.exists()


def test_deleting_everything_leaves_an_empty_table(store: Store, labels) -> None:
    table = store.table(LABELS)
    table.merge(labels({("a", "x"): 1.0}))
    assert table.merge(labels({}), delete_keys=keys(("a", "x"))).rows_deleted == 1
    assert table.exists()
    assert table.count() == 0
    assert table.read().num_rows == 0
    table.merge(labels({("b", "x"): 1.0}))
    assert values(table) == {("b", "x"): 1.0}


@pytest.mark.parametrize(
    ("rows", "delete", "problem"),
    [
        ({"clip_id": ["a", "a"], "name": ["x", "x"]}, None, "keys stand more than once"),
        ({"clip_id": ["a", None], "name": ["x", "x"]}, None, "1 rows have no clip_id"),
        ({"clip_id": ["a"], "name": ["x"]}, keys(("a", "x")), "both written and deleted"),
        ({"clip_id": ["a"], "name": ["x"]}, pa.table({"clip_id": ["b"]}), "lack name"),
        ({"clip_id": ["a"], "name": ["x"], "extra": [1]}, None, "unknown column extra"),
        ({"clip_id": ["a"]}, None, "no column name"),
        ({"clip_id": ["a"], "name": ["x"], "value": ["high"]}, None, "do not fit the table labels"),
    ],
)
def test_merge_refuses_rows_that_do_not_fit(store: Store, rows, delete, problem: str) -> None:
    filler = {name: [None] * len(rows["clip_id"]) for name in LABELS.schema.names if name not in LABELS.key}
    table = store.table(LABELS)
    with pytest.raises(StoreError) as error:
        table.merge(pa.table({**filler, **rows}), delete_keys=delete)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    assert not table.exists()


def test_columns_in_another_order_and_of_castable_types_fit(store: Store) -> None:
    rows = pa.table({"value": pa.array([1], pa.int64()), "name": ["x"], "clip_id": ["a"]})
    for name in ("corpus_id", "source_id", "category"):
        rows = rows.append_column(name, pa.nulls(1))
    table = store.table(LABELS)
    table.merge(rows)
    assert table.read().to_pylist()[0]["value"] == 1.0


@pytest.mark.parametrize("spec", [CLIPS, LABELS, FEATURE_SETS, SCORES, RUNS, FAILURES], ids=lambda spec: spec.name)
def test_every_fixed_table_takes_a_row_and_gives_it_back(store: Store, spec) -> None:
    nothing = pa.Table.from_pylist([dict.fromkeys(spec.schema.names)], schema=spec.schema)
    row = nothing
    for key in spec.key:
        row = row.set_column(row.schema.get_field_index(key), key, pa.array(["it's \x00 a:key"], pa.string()))
    table = store.table(spec)
    assert table.merge(row).rows_added == 1
    assert table.merge(row).rows_unchanged == 1
    assert table.read().equals(row)
    assert table.read().schema.equals(spec.schema)
    assert table.merge(row.slice(0, 0), delete_keys=row.select(spec.key)).rows_deleted == 1


def test_a_read_takes_columns_and_a_filter(store: Store, labels) -> None:
    table = store.table(LABELS)
    table.merge(labels({(f"c{i}", "x"): float(i) for i in range(20)}))
    found = table.read(["value", "clip_id"], pc.field("value") >= 18)
    assert found.schema.names == ["value", "clip_id"]
    assert sorted(found["clip_id"].to_pylist()) == ["c18", "c19"]
    batches = list(table.batches(["value"], pc.field("value") < 10, batch_size=4))
    assert sum(batch.num_rows for batch in batches) == 10
    assert max(batch.num_rows for batch in batches) <= 4


def test_small_files_are_folded_and_old_versions_stay_readable(store: Store, labels) -> None:
    from deltalake import DeltaTable

    table = store.table(LABELS)
    for index in range(SMALL_FILES + 2):
        table.merge(labels({(f"c{index}", "x"): float(index)}))
    assert len(table.file_uris()) < SMALL_FILES
    assert table.count() == SMALL_FILES + 2
    assert len(values(table)) == SMALL_FILES + 2
    assert DeltaTable(table.path, version=5).to_pyarrow_table().num_rows == 6


def test_checkpoints_are_written_and_the_log_is_kept_whole(store: Store, labels) -> None:
    table = store.table(LABELS)
    for index in range(21):
        table.merge(labels({("a", "x"): float(index)}))
    logs = sorted(path.name for path in (Path(table.path) / "_delta_log").iterdir())
    assert f"{19:020}.checkpoint.parquet" in logs
    assert [f"{version:020}.json" for version in range(21)] == [name for name in logs if name.endswith(".json")]
    first = json.loads((Path(table.path) / "_delta_log" / f"{0:020}.json").read_text().splitlines()[2])
    assert first["metaData"]["configuration"]["delta.enableExpiredLogCleanup"] == "false"
    assert values(table) == {("a", "x"): 20.0}


def test_large_merges_are_split_and_a_change_rewrites_one_file_only(store: Store, labels, monkeypatch) -> None:
    monkeypatch.setattr("storage.shards.FILE_ROWS", 100)
    monkeypatch.setattr("storage.shards.SLICE_ROWS", 50)
    table = store.table(LABELS)
    table.merge(labels({(f"{i:04}", "x"): float(i) for i in range(1000)}))
    before = set(table.file_uris())
    assert len(before) == 10
    table.merge(labels({("0250", "x"): -1.0}))
    after = set(table.file_uris())
    assert len(before - after) == 1
    assert table.count() == 1000
    assert values(table)[("0250", "x")] == -1.0
    assert sum(pq.read_metadata(uri).num_rows for uri in after) == 1000


def test_another_schema_under_the_same_name_is_refused(store: Store, labels) -> None:
    from storage import TableSpec

    store.table(LABELS).merge(labels({("a", "x"): 1.0}))
    other = TableSpec("labels", pa.schema([("clip_id", pa.string())]), ("clip_id",))
    with pytest.raises(StoreError, match="written with other columns"):
        store.table(other).read()


@pytest.mark.parametrize("name", ["../labels", "/labels", "a b", "features//x", "", "ü"])
def test_names_that_leave_the_store_are_refused(name: str) -> None:
    from storage import TableSpec

    with pytest.raises(StoreError, match="cannot be a name"):
        TableSpec(name, LABELS.schema, LABELS.key)


def test_feature_columns_that_stand_twice_are_refused() -> None:
    from storage import feature_table

    with pytest.raises(StoreError, match="rename the columns values"):
        feature_table("features/x/y", n_columns=1, summary_columns=["values"], quality_columns=[])

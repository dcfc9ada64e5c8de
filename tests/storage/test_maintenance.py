"""Small files are merged, and what nothing needs is removed; nothing else is."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from storage import LABELS, Store, StoreError, TableSpec, compaction, receipts

LONG_AGO = time.time() - 30 * 86400
HASHES = {f"clip-{i:02}": "1" for i in range(12)}


@pytest.fixture
def filled(catalogued, spec: TableSpec, features, wanted) -> Store:
    """Twelve small shards of one clip each."""
    store = catalogued(HASHES)
    table = store.table(spec)
    for clip, input_hash in HASHES.items():
        shard = table.stage(features({clip: input_hash}), run_id="r", name=clip)
        table.register([shard], wanted=wanted({clip: input_hash}))
    return store


def make_old(folder: Path) -> None:
    """As if nothing in the folder had been touched for a month."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (LONG_AGO, LONG_AGO))


def removed_long_ago(store: Store, spec: TableSpec) -> None:
    """As if every removal in the table's log were a month old."""
    for entry in (Path(store.table(spec).path) / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        for action in actions:
            if "remove" in action:
                action["remove"]["deletionTimestamp"] = int(LONG_AGO * 1000)
        entry.write_text("\n".join(map(json.dumps, actions)))


def shards(store: Store, spec: TableSpec) -> set[str]:
    return {path.name for path in Path(store.table(spec).path).glob("*.parquet")}


def test_small_files_become_one_in_the_same_encoding(filled: Store, spec: TableSpec) -> None:
    table = filled.table(spec)
    before = table.read().sort_by("clip_id")
    dry = filled.maintain(dry_run=True)
    assert vars(dry.tables[-1]) == {"table": spec.name, "files": 12, "merged": 12, "checkpoint": True}
    assert [(care.table, care.merged) for care in dry.tables[:-1]] == [("clips", 0), ("feature_sets", 0)]
    assert (table.version(), len(table.file_uris())) == (11, 12)
    done = filled.maintain()
    assert done.tables == dry.tables
    (file,) = table.file_uris()
    assert table.read().sort_by("clip_id").equals(before)
    assert table.orphans() == []
    metadata = pq.read_metadata(file)
    column = next(i for i in range(99) if metadata.schema.column(i).path.startswith("values"))
    chunk = metadata.row_group(0).column(column)
    assert "BYTE_STREAM_SPLIT" in chunk.encodings
    assert chunk.compression == "ZSTD"
    actions = [
        json.loads(line) for line in (Path(table.path) / "_delta_log" / f"{12:020}.json").read_text().splitlines()
    ]
    assert all(not action[kind]["dataChange"] for action in actions for kind in ("add", "remove") if kind in action)
    assert filled.verify().clean
    assert filled.maintain().tables[-1].merged == 0
    assert table.version() == 12


def test_a_merged_shard_offered_again_doubles_nothing(filled: Store, spec: TableSpec, features, wanted) -> None:
    filled.maintain()
    for table in (filled.table(spec), Store.open(filled.uri).table(spec)):
        shard = table.stage(features({"clip-00": "1"}), run_id="late", name="clip-00")
        assert table.register([shard], wanted=wanted(HASHES)).files_ignored == 1
        assert table.count() == table.read().num_rows == 12


def test_files_of_one_corpus_stay_together(store: Store, labels) -> None:
    table = store.table(LABELS)
    for i in range(8):
        rows = labels({(f"clip-{i}", "x"): float(i)})
        index = rows.schema.get_field_index("corpus_id")
        table.merge(rows.set_column(index, "corpus_id", pa.array([f"corpus-{i % 2}"])))
    assert store.maintain().tables[0].merged == 8
    corpora = {frozenset(pq.read_table(uri)["corpus_id"].to_pylist()) for uri in table.file_uris()}
    assert corpora == {frozenset({"corpus-0"}), frozenset({"corpus-1"})}


def test_merging_ends_where_files_are_full(filled: Store, spec: TableSpec, monkeypatch) -> None:
    monkeypatch.setattr(compaction, "FILE_ROWS", 5)
    table = filled.table(spec)
    assert filled.maintain().tables[-1].merged == 12
    assert sorted(pq.read_metadata(uri).num_rows for uri in table.file_uris()) == [2, 5, 5]
    assert filled.maintain().tables[-1].merged == 0
    assert table.count() == 12


def test_replaced_files_go_after_the_retention_unless_a_snapshot_pins_them(
    filled: Store, spec: TableSpec, features, wanted
) -> None:
    snapshot = filled.snapshots.take("paper")
    pinned = {name: snapshot.read(name) for name in snapshot.tables()}
    table = filled.table(spec)
    shard = table.stage(features({"clip-00": "2"}), run_id="r", name="second")
    table.register([shard], wanted=wanted({"clip-00": "2"}))
    table.register([table.stage(features({"clip-00": "3"}), run_id="r", name="third")], wanted=wanted({"clip-00": "3"}))
    filled.maintain()
    make_old(Path(filled.uri))
    assert {f"{clip}.parquet" for clip in HASHES} | {"second.parquet"} <= shards(filled, spec), "they left just now"
    removed_long_ago(filled, spec)
    assert {file.path for file in filled.maintain(dry_run=True).removed} >= {f"{spec.name}/second.parquet"}
    done = filled.maintain()
    assert {file.why for file in done.removed if file.path.endswith(".parquet") and "_log" not in file.path} == {
        "replaced"
    }
    assert shards(filled, spec) >= {f"{clip}.parquet" for clip in HASHES}
    assert "second.parquet" not in shards(filled, spec)
    again = filled.snapshots.open("paper")
    again.verify()
    assert {name: again.read(name) for name in again.tables()} == pinned
    assert filled.verify().clean
    assert filled.snapshots.remove("paper").names == ()
    filled.maintain()
    assert shards(filled, spec) == {Path(uri).name for uri in table.file_uris()}
    assert table.count() == 12
    assert filled.verify().clean


def test_orphans_go_after_the_retention_unless_a_job_has_them_in_hand(
    filled: Store, spec: TableSpec, features, wanted
) -> None:
    table = filled.table(spec)
    for name in ("dead", "alive"):
        table.stage(features({name: "1"}), run_id=name, name=name)
    for path in Path(table.path).glob("*.parquet"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    receipt = Path(filled.uri) / receipts.FOLDER / spec.name / "dead.parquet.json"
    os.utime(receipt, (LONG_AGO, LONG_AGO))
    removed = filled.maintain(retention_days=0.0).removed
    assert {(file.why, Path(file.path).name) for file in removed if file.why != "replaced"} == {
        ("orphan", "dead.parquet"),
        ("receipt", "dead.parquet.json"),
    }
    assert table.orphans() == ["alive.parquet"]
    assert table.register(["alive.parquet"], wanted=wanted({"alive": "1"})).rows_added == 1


def test_a_replaced_shard_that_a_job_takes_up_again_stays(filled: Store, spec: TableSpec, features, wanted) -> None:
    table = filled.table(spec)
    shard = table.stage(features({"clip-00": "2"}), run_id="r", name="other")
    table.register([shard], wanted=wanted({"clip-00": "2"}))
    removed_long_ago(filled, spec)
    make_old(Path(filled.uri))
    shard = table.stage(features({"clip-00": "1"}), run_id="now", name="clip-00")
    assert not [file for file in filled.maintain().removed if file.path.endswith(shard)]
    assert table.register([shard], wanted=wanted({"clip-00": "1"})).rows_replaced == 1
    assert table.count() == 12


def test_what_a_running_job_writes_stays_however_short_the_retention(filled: Store) -> None:
    root = Path(filled.uri)
    for run, age in (("alive", time.time()), ("dead", LONG_AGO)):
        job = root / "_staging" / run / "shards" / "one.json"
        job.parent.mkdir(parents=True)
        job.write_text("{}")
        (root / "_snapshots").mkdir(exist_ok=True)
        draft = root / "_snapshots" / f"{run}.json.0.tmp"
        draft.write_text("{")
        for path in (job, draft):
            os.utime(path, (age, age))
    filled.maintain(retention_days=0.0)
    assert {path.name for path in (root / "_staging").iterdir()} == {"alive", "r"}, "r left an empty folder"
    assert [path.name for path in (root / "_snapshots").iterdir()] == ["alive.json.0.tmp"]


def test_old_checkpoints_go_and_any_version_can_still_be_read(store: Store, labels) -> None:
    table = store.table(LABELS)
    for i in range(45):
        table.merge(labels({("a", "x"): float(i)}))
    log = Path(table.path) / "_delta_log"
    store.maintain()
    assert len(list(log.glob("*.checkpoint.parquet"))) == 3
    make_old(Path(store.uri))
    store.maintain()
    assert [path.name for path in log.glob("*.checkpoint.parquet")] == [f"{44:020}.checkpoint.parquet"]
    assert len(list(log.glob("*.json"))) == 45
    assert DeltaTable(table.path, version=30).version() == 30
    assert DeltaTable(table.path, version=44).to_pandas().value.tolist() == [44.0]


def test_nothing_is_removed_while_a_snapshot_cannot_be_read(filled: Store, spec: TableSpec) -> None:
    filled.snapshots.take("paper")
    filled.maintain()
    removed_long_ago(filled, spec)
    (record,) = (Path(filled.uri) / "_snapshots").glob("*.json")
    record.write_text("{")
    before = shards(filled, spec)
    with pytest.raises(StoreError, match="cannot be read; restore or remove it"):
        filled.maintain()
    assert shards(filled, spec) == before


def test_a_damaged_table_is_named_and_the_others_are_cared_for(filled: Store, spec: TableSpec, labels) -> None:
    for i in range(3):
        filled.table(LABELS).merge(labels({("a", str(i)): 1.0}))
    Path(filled.table(spec).file_uris()[0]).write_bytes(b"")
    done = filled.maintain()
    assert [care.table for care in done.tables] == ["clips", "labels", "feature_sets"]
    (problem,) = done.problems
    assert problem.startswith(f"{spec.name} was left as it is")
    assert "miar verify" in problem


def test_one_maintenance_at_a_time(filled: Store) -> None:
    with filled.lock("maintenance"), pytest.raises(StoreError, match="another maintenance is running"):
        filled.maintain()
    for wrong in ({"retention_days": -1.0}, {"target_bytes": 0}):
        with pytest.raises(StoreError, match="cannot be negative"):
            filled.maintain(**wrong)

"""Shards: staged by workers, judged by their rows, made live exactly once."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import LABELS, RegisterResult, Store, StoreError, TableSpec
from storage.arrow import pc
from storage.shards import write_shard


def live(table) -> dict[str, str]:
    rows = table.read(["clip_id", "input_hash"])
    found = dict(zip(rows["clip_id"].to_pylist(), rows["input_hash"].to_pylist(), strict=True))
    assert len(found) == rows.num_rows == table.count()
    return found


@pytest.fixture
def table(store: Store, spec: TableSpec):
    return store.table(spec)


def test_staged_rows_are_not_live_until_registered(table, store: Store, features, wanted) -> None:
    rows = features({"a": "1", "b": "1"}, missing=["b"])
    shard = table.stage(rows, run_id="run-1", name="shard")
    assert shard == "shard.parquet"
    assert not table.exists()
    assert store.feature_tables() == []
    assert table.orphans() == [shard]
    assert table.register([shard], wanted=wanted({"a": "1", "b": "1"})) == RegisterResult(2, 0, 1, 0)
    assert table.file_uris() == [f"{table.path}/{shard}"]
    assert table.orphans() == []
    assert store.feature_tables() == [table.spec.name]
    assert table.read().sort_by("clip_id").equals(rows)


def test_registering_again_changes_nothing(table, features, wanted) -> None:
    shard = table.stage(features({"a": "1"}), run_id="run-1", name="shard")
    table.register([shard], wanted=wanted({"a": "1"}))
    assert table.register([shard, shard], wanted=wanted({"a": "1"})) == RegisterResult(0, 0, 0, 1)
    assert table.register([], wanted=wanted({"a": "1"})) == RegisterResult()
    assert table.version() == 0


def test_a_second_shard_with_the_same_rows_is_ignored(table, features, wanted) -> None:
    first = table.stage(features({"a": "1"}), run_id="run-1", name="first")
    second = table.stage(features({"a": "1"}, run_id="run-2"), run_id="run-2", name="second")
    assert table.register([first, second], wanted=wanted({"a": "1"})) == RegisterResult(1, 0, 1, 1)
    assert table.register([second], wanted=wanted({"a": "1"})) == RegisterResult(0, 0, 0, 1)
    assert live(table) == {"a": "1"}


def test_overlapping_shards_give_every_row_once(table, features, wanted) -> None:
    names = [
        table.stage(features({"a": "1", "b": "1"}), run_id="r", name="ab"),
        table.stage(features({"b": "1", "c": "1"}), run_id="r", name="bc"),
    ]
    result = table.register(names, wanted=wanted({"a": "1", "b": "1", "c": "1"}))
    assert result == RegisterResult(rows_added=3, rows_replaced=0, files_added=2, files_ignored=0)
    assert live(table) == {"a": "1", "b": "1", "c": "1"}


def test_stale_rows_are_replaced_and_their_neighbours_kept(table, features, wanted) -> None:
    old = features({"a": "1", "b": "1", "c": "1"})
    table.register([table.stage(old, run_id="r", name="old")], wanted=wanted({"a": "1", "b": "1", "c": "1"}))
    new = table.stage(features({"b": "2"}), run_id="r", name="new")
    assert table.register([new], wanted=wanted({"b": "2"})) == RegisterResult(0, 1, 1, 0)
    assert live(table) == {"a": "1", "b": "2", "c": "1"}
    kept = table.read(filter=pc.field("clip_id") != "b").sort_by("clip_id")
    assert kept.equals(old.filter(pc.not_equal(old["clip_id"], "b")))
    assert table.version() == 1
    assert (Path(table.path) / "old.parquet").exists()


def test_a_shard_may_leave_and_come_back_as_often_as_its_inputs_do(table, features, wanted) -> None:
    """Through one handle, which remembers keys: it must forget those of a shard that has left again."""
    for round_ in range(6):
        hashes = {"a": str(round_ % 2), "b": str(round_ % 2)}
        shard = table.stage(features(hashes), run_id="r", name=f"shard-{round_ % 2}")
        assert table.register([shard], wanted=wanted(hashes)).files_added == 1
        assert live(table) == hashes
    assert table.version() == 5


def test_a_shard_that_its_writer_checked_is_not_decoded_again(table, features, wanted, monkeypatch) -> None:
    import storage.plans as plans

    decoded: list[str] = []
    monkeypatch.setattr(plans, "check_shard", lambda _files, _spec, name: decoded.append(name))
    shards = [table.stage(features({clip: "1"}), run_id="r", name=clip) for clip in "abc"]
    touched, changed = (Path(table.path) / name for name in shards[1:])
    os.utime(touched, ns=(0, 0))
    changed.write_bytes(changed.read_bytes())
    table.register(shards, wanted=wanted(dict.fromkeys("abc", "1")))
    assert sorted(decoded) == shards[1:]
    assert not list((Path(table.path).parents[2] / "_receipts").rglob("*.json"))


def test_a_stale_shard_never_overwrites_fresh_rows(table, features, wanted) -> None:
    table.register([table.stage(features({"a": "2"}), run_id="r", name="new")], wanted=wanted({"a": "2"}))
    late = table.stage(features({"a": "1"}), run_id="r", name="late")
    assert table.register([late], wanted=wanted({"a": "2"})) == RegisterResult(0, 0, 0, 1)
    assert live(table) == {"a": "2"}


def test_rows_that_are_not_wanted_stay_out(table, features, wanted) -> None:
    shard = table.stage(features({"a": "1", "gone": "1", "b": "old"}), run_id="r", name="mixed")
    assert table.register([shard], wanted=wanted({"a": "1", "b": "new"})) == RegisterResult(1, 0, 1, 0)
    assert live(table) == {"a": "1"}
    assert f"{table.path}/{shard}" not in table.file_uris()


def test_a_replaced_shard_can_come_back(table, features, wanted) -> None:
    one = table.stage(features({"a": "1"}), run_id="r", name="one")
    two = table.stage(features({"a": "2"}), run_id="r", name="two")
    table.register([one], wanted=wanted({"a": "1"}))
    table.register([two], wanted=wanted({"a": "2"}))
    assert table.orphans() == []
    assert table.register([one], wanted=wanted({"a": "1"})) == RegisterResult(0, 1, 1, 0)
    assert live(table) == {"a": "1"}
    assert table.stage(features({"a": "2"}), run_id="r2", name="two") == two
    table.register([two], wanted=wanted({"a": "2"}))
    assert live(store_again(table)) == {"a": "2"}


def store_again(table):
    return Store.open(Path(table.path).parents[2]).table(table.spec)


def test_an_orphan_is_adopted_by_its_keys_whatever_its_name(table, features, wanted) -> None:
    table.stage(features({"a": "1", "b": "1"}), run_id="r", name="one")
    (Path(table.path) / "one.parquet").rename(Path(table.path) / "found-elsewhere.parquet")
    assert table.orphans() == ["found-elsewhere.parquet"]
    table.register(table.orphans(), wanted=wanted({"a": "1", "b": "1"}))
    assert live(table) == {"a": "1", "b": "1"}
    assert table.orphans() == []


def test_staging_the_same_shard_again_keeps_the_first(table, features) -> None:
    shard = table.stage(features({"a": "1", "b": "1"}), run_id="one", name="shard")
    before = (Path(table.path) / shard).read_bytes()
    assert table.stage(features({"b": "1", "a": "1"}, run_id="two"), run_id="two", name="shard") == shard
    assert (Path(table.path) / shard).read_bytes() == before
    with pytest.raises(StoreError, match="is there already with other rows"):
        table.stage(features({"a": "2", "b": "1"}), run_id="two", name="shard")


def test_clear_staging_removes_one_runs_drafts_only(store: Store, table, features) -> None:
    for run in ("dead", "alive"):
        (Path(store.uri) / "_staging" / run).mkdir(parents=True)
        (Path(store.uri) / "_staging" / run / "half.parquet").write_bytes(b"PAR1")
    store.clear_staging("dead")
    store.clear_staging("never-was")
    assert [path.name for path in (Path(store.uri) / "_staging").iterdir()] == ["alive"]
    for name in ("..", ".", "", "a/b"):
        with pytest.raises(StoreError):
            store.clear_staging(name)
        with pytest.raises(StoreError):
            table.stage(features({"a": "1"}), run_id=name, name="shard")
        with pytest.raises(StoreError):
            table.stage(features({"a": "1"}), run_id="run", name=name)


def change(rows: pa.Table, **columns: list) -> pa.Table:
    for name, values in columns.items():
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(index), pa.array(values, rows.schema.field(index).type))
    return rows


BROKEN_ROWS = {
    "values too short": ({"n_frames": [2, 2], "values": [[0.0] * 6, [0.0] * 5], "times": [[0, 1]] * 2}, "len(values)"),
    "right in sum only": ({"n_frames": [2, 2], "values": [[0.0] * 9, [0.0] * 3], "times": [[0, 1]] * 2}, "2 rows"),
    "times too long": ({"n_frames": [1, 1], "values": [[0.0] * 3] * 2, "times": [[0], [0, 1]]}, "len(times)"),
    "values missing": ({"n_frames": [1, 1], "values": [[0.0] * 3, None], "times": [[0]] * 2}, "len(values)"),
    "missing with values": ({"status": ["ok", "missing"]}, "n_frames is null but"),
    "unknown status": ({"status": ["ok", "failed"]}, "neither 'ok' nor 'missing'"),
    "no status": ({"status": ["ok", None]}, "neither 'ok' nor 'missing'"),
    "key twice": ({"clip_id": ["a", "a"]}, "keys stand more than once"),
    "no key": ({"clip_id": ["a", None]}, "have no clip_id"),
    "no input hash": ({"input_hash": ["1", None]}, "have no input_hash"),
}


@pytest.mark.parametrize("case", BROKEN_ROWS, ids=str)
def test_wrong_rows_are_neither_staged_nor_registered(table, features, wanted, case: str) -> None:
    columns, problem = BROKEN_ROWS[case]
    rows = change(features({"a": "1", "b": "1"}), **columns)
    with pytest.raises(StoreError) as staged:
        table.stage(rows, run_id="r", name="shard")
    Path(table.path).mkdir(parents=True, exist_ok=True)
    write_shard(f"{table.path}/shard.parquet", rows, table.spec)
    good = table.stage(features({"c": "1"}), run_id="r", name="good")
    with pytest.raises(StoreError) as registered:
        table.register([good, "shard.parquet"], wanted=wanted({"a": "1", "b": "1", "c": "1"}))
    for error in (staged, registered):
        assert problem in str(error.value)
        assert "shard.parquet" in str(error.value)
        assert "\n" not in str(error.value)
    assert not table.exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def delete(path: Path) -> None:
    path.unlink()


def flip_a_data_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    column = next(i for i in range(99) if pq.read_metadata(path).schema.column(i).path.startswith("values"))
    chunk = pq.read_metadata(path).row_group(0).column(column)
    content[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(content)


def drop_a_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns("quality_voiced"), path)


def widen_a_column(path: Path) -> None:
    rows = pq.read_table(path)
    index = rows.schema.get_field_index("quality_voiced")
    pq.write_table(rows.set_column(index, "quality_voiced", rows["quality_voiced"].cast(pa.float64())), path)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (truncate, "not a readable Parquet file"),
        (empty, "not a readable Parquet file"),
        (delete, "no such file"),
        (flip_a_data_byte, "not a readable Parquet file"),
        (drop_a_column, "missing: quality_voiced"),
        (widen_a_column, "quality_voiced is double, not float"),
    ],
)
def test_a_damaged_shard_is_named_and_nothing_is_committed(table, features, wanted, damage, problem) -> None:
    hashes = {f"clip-{i}": "1" for i in range(40)}
    good = table.stage(features({"good": "1"}), run_id="r", name="good")
    bad = table.stage(features(hashes), run_id="r", name="bad")
    damage(Path(table.path) / bad)
    with pytest.raises(StoreError) as error:
        table.register([good, bad], wanted=wanted({**hashes, "good": "1"}))
    assert problem in str(error.value)
    assert "bad.parquet" in str(error.value)
    assert "\n" not in str(error.value)
    assert not table.exists()
    assert table.register([good], wanted=wanted({"good": "1"})).rows_added == 1


def test_wanted_must_name_every_key_once(table, features) -> None:
    shard = table.stage(features({"a": "1"}), run_id="r", name="shard")
    twice = pa.table({"clip_id": ["a", "a"], "input_hash": ["1", "2"]})
    with pytest.raises(StoreError, match="keys stand more than once"):
        table.register([shard], wanted=twice)
    with pytest.raises(StoreError, match="lack input_hash"):
        table.register([shard], wanted=twice.select(["clip_id"]))
    assert not table.exists()


def test_a_table_without_input_hashes_takes_no_shards(store: Store, labels, wanted) -> None:
    table = store.table(LABELS)
    with pytest.raises(StoreError, match="has no input_hash"):
        table.stage(labels({("a", "x"): 1.0}), run_id="r", name="shard")
    with pytest.raises(StoreError, match="has no input_hash"):
        table.register(["shard.parquet"], wanted=wanted({"a": "1"}))


def test_no_disk_space_is_one_line(table, features, monkeypatch) -> None:
    import resource

    rows = features({f"clip-{i}": "1" for i in range(2000)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(StoreError) as error:
            table.stage(rows, run_id="r", name="shard")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)
    assert "\n" not in str(error.value)
    assert table.orphans() == []

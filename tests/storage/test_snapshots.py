"""Pinned views: what they hold stays, and what was touched is noticed."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from storage import FEATURE_SETS, LABELS, RUNS, Store, StoreError, TableSpec
from storage.files import LocalFiles


@pytest.fixture
def filled(store: Store, spec: TableSpec, features, wanted, labels) -> Store:
    table = store.table(spec)
    hashes = {"a": "1", "b": "1"}
    table.register([table.stage(features(hashes), run_id="r", name="one")], wanted=wanted(hashes))
    store.table(LABELS).merge(labels({("a", "x"): 1.0, ("b", "x"): 2.0}))
    row = dict.fromkeys(FEATURE_SETS.schema.names)
    row |= {"extractor": "opensmile", "config_hash": "0123456789abcdef", "columns": ["f0", "jitter", "hnr"]}
    row |= {"created_at": datetime(2026, 11, 20, tzinfo=UTC), "state": "active"}
    store.table(FEATURE_SETS).merge(pa.Table.from_pylist([row], schema=FEATURE_SETS.schema))
    return store


def replace_everything(store: Store, spec: TableSpec, features, wanted, labels) -> None:
    table = store.table(spec)
    table.register([table.stage(features({"a": "2"}), run_id="r", name="two")], wanted=wanted({"a": "2"}))
    store.table(LABELS).merge(labels({("a", "x"): -1.0, ("c", "x"): 3.0}))


def test_a_snapshot_reads_the_same_after_later_replacements(filled, spec, features, wanted, labels) -> None:
    snapshot = filled.snapshots.take("before")
    before = {name: snapshot.read(name) for name in snapshot.tables()}
    assert snapshot.tables() == ["feature_sets", spec.name, "labels"]
    assert snapshot.versions == {"feature_sets": 0, spec.name: 0, "labels": 0}
    assert before[spec.name].equals(filled.table(spec).read())
    assert before[spec.name].schema.equals(spec.schema)
    replace_everything(filled, spec, features, wanted, labels)
    for name, rows in before.items():
        again = filled.snapshots.open(snapshot.id)
        assert again.read(name).equals(rows)
        assert pa.Table.from_batches(again.batches(name, batch_size=1)).equals(rows)
    found = filled.snapshots.open("before").read("labels", ["value"], pc.field("clip_id") == "a")
    assert found.to_pylist() == [{"value": 1.0}]
    assert filled.snapshots.take("after").read("labels").num_rows == 3


def test_descriptors_stand_in_the_snapshot(filled: Store) -> None:
    (descriptor,) = filled.snapshots.take().feature_sets
    assert descriptor["columns"] == ["f0", "jitter", "hnr"]
    assert descriptor["created_at"] == "2026-11-20T00:00:00+00:00"
    assert filled.snapshots.open().feature_sets == [descriptor]


def test_the_same_content_is_the_same_snapshot(filled: Store) -> None:
    first = filled.snapshots.take()
    run = dict.fromkeys(RUNS.schema.names) | {"run_id": "r1"}
    filled.table(RUNS).merge(pa.Table.from_pylist([run], schema=RUNS.schema))
    assert filled.snapshots.take().id == first.id
    named = filled.snapshots.take("paper")
    assert (named.id, named.name) == (first.id, "paper")
    assert filled.snapshots.take("thesis").name == "thesis"
    (info,) = filled.snapshots.list()
    assert info.names == ("paper", "thesis")
    assert info.created_at == first.created_at
    assert filled.snapshots.open("paper").id == filled.snapshots.open("thesis").id == first.id


def test_a_name_stays_with_its_content(filled: Store, spec, features, wanted, labels) -> None:
    first = filled.snapshots.take("paper")
    replace_everything(filled, spec, features, wanted, labels)
    with pytest.raises(StoreError) as error:
        filled.snapshots.take("paper")
    assert f"belongs to snapshot {first.id}" in str(error.value)
    assert len(filled.snapshots.list()) == 1
    for name in ("a/b", "", "../x", first.id):
        with pytest.raises(StoreError, match="cannot name a snapshot"):
            filled.snapshots.take(name)


def test_the_newest_is_the_one_taken_last_whatever_the_clock_says(filled, labels) -> None:
    first = filled.snapshots.take()
    key = pa.table({"clip_id": ["z"], "name": ["x"]})
    filled.table(LABELS).merge(labels({("z", "x"): 1.0}))
    second = filled.snapshots.take()
    record = Path(filled.uri) / "_snapshots" / f"{second.id}.json"
    record.write_text(record.read_text().replace(f'"created_at": "{datetime.now(UTC).year}', '"created_at": "1999'))
    assert filled.snapshots.open().id == second.id
    filled.table(LABELS).merge(labels({}), delete_keys=key)
    assert filled.snapshots.take().id == first.id
    assert filled.snapshots.open().id == first.id
    assert [info.id for info in filled.snapshots.list()] == [second.id, first.id]


def test_what_does_not_exist_is_named_in_one_line(filled: Store) -> None:
    with pytest.raises(StoreError, match="has no snapshot yet"):
        filled.snapshots.open()
    snapshot = filled.snapshots.take("paper")
    with pytest.raises(StoreError, match="no snapshot is called nothing; there are: paper"):
        filled.snapshots.open("nothing")
    with pytest.raises(StoreError, match="has no table scores; it has: feature_sets"):
        snapshot.read("scores")


def test_an_empty_store_and_an_emptied_table_can_be_pinned(store: Store, labels) -> None:
    assert store.snapshots.take().tables() == []
    store.table(LABELS).merge(labels({("a", "x"): 1.0}))
    store.table(LABELS).merge(labels({}), delete_keys=pa.table({"clip_id": ["a"], "name": ["x"]}))
    snapshot = store.snapshots.take()
    assert snapshot.read("labels").equals(LABELS.schema.empty_table())
    assert list(snapshot.batches("labels")) == []


def a_file(store: Store, spec: TableSpec) -> Path:
    return Path(store.table(spec).file_uris()[0])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [(flip, "is not the file it was"), (grow, "is not the file it was"), (Path.unlink, "is gone")],
)
def test_a_file_that_is_gone_or_changed_is_one_line(filled: Store, spec: TableSpec, damage, problem: str) -> None:
    filled.snapshots.take("paper")
    path = a_file(filled, spec)
    damage(path)
    with pytest.raises(StoreError) as error:
        filled.snapshots.open("paper")
    assert problem in str(error.value)
    assert f"{spec.name}/{path.name}" in str(error.value)
    assert "\n" not in str(error.value)


def test_verify_finds_a_change_that_kept_size_and_time(filled: Store, spec: TableSpec) -> None:
    snapshot = filled.snapshots.take()
    snapshot.verify()
    path = a_file(filled, spec)
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StoreError, match="is not the file it was"):
        filled.snapshots.open().verify()


def test_a_copied_store_opens_its_snapshots(filled: Store, spec: TableSpec, tmp_path: Path) -> None:
    snapshot = filled.snapshots.take("paper")
    shutil.copytree(filled.uri, tmp_path / "copy", copy_function=shutil.copyfile)
    copied = Store.open(tmp_path / "copy").snapshots.open("paper")
    assert copied.read(spec.name).equals(snapshot.read(spec.name))


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Names of the files whose checksums were computed."""
    names: list[str] = []
    sha256 = LocalFiles.sha256

    def counting(self: LocalFiles, name: str) -> str:
        names.append(name)
        return sha256(self, name)

    monkeypatch.setattr(LocalFiles, "sha256", counting)
    return names


def touch(store: Store) -> None:
    """As a copy does: the same bytes, at another time."""
    for path in Path(store.uri).rglob("*.parquet"):
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def test_files_of_a_copied_store_are_read_once_to_find_that_they_are_the_same(filled: Store, hashed: list[str]) -> None:
    catalog = filled.snapshots
    taken, later = catalog.take("paper"), catalog.take("thesis")
    for use in (lambda: catalog.open("paper"), lambda: catalog.take()):
        touch(filled)
        hashed.clear()
        assert use().id == taken.id
        assert len(hashed) == 3
        for again in (catalog.open, catalog.take):
            assert again().id == taken.id
        assert len(hashed) == 3
    (info,) = catalog.list()
    assert info.names == ("paper", "thesis")
    assert (info.created_at, info.versions) == (later.created_at, taken.versions)
    path = Path(filled.uri) / "labels" / taken.files("labels")[0]
    flip(path)
    with pytest.raises(StoreError, match="is not the file it was"):
        catalog.open("paper")


def test_a_copied_store_that_cannot_be_written_opens_its_snapshots(filled: Store, hashed: list[str]) -> None:
    filled.snapshots.take("paper")
    (record,) = (Path(filled.uri) / "_snapshots").glob("*.json")
    touch(filled)
    before = record.read_text()
    hashed.clear()
    with filled.snapshots.lock():
        assert filled.snapshots.open("paper").name == "paper", "whoever holds the lock is not waited for"
    shutil.rmtree(Path(filled.uri) / "_locks")
    (Path(filled.uri) / "_locks").write_text("no lock can be made here")
    assert filled.snapshots.open("paper").name == "paper"
    assert len(hashed) == 6
    assert record.read_text() == before


def test_a_snapshot_that_is_removed_while_it_is_opened_stays_removed(filled: Store, monkeypatch) -> None:
    filled.snapshots.take("paper")
    touch(filled)
    sha256 = LocalFiles.sha256

    def removing(self: LocalFiles, name: str) -> str:
        if Store.open(filled.uri).snapshots.list():
            Store.open(filled.uri).snapshots.remove("paper")
        return sha256(self, name)

    monkeypatch.setattr(LocalFiles, "sha256", removing)
    assert filled.snapshots.open("paper").name == "paper"
    assert filled.snapshots.list() == []


def test_a_record_that_goes_while_snapshots_are_listed_is_passed_over(filled: Store, labels, monkeypatch) -> None:
    filled.snapshots.take("paper")
    filled.table(LABELS).merge(labels({("new", "x"): 1.0}))
    kept = filled.snapshots.take("thesis")
    entries = LocalFiles.entries

    def removing(self: LocalFiles, folder: str) -> list[str]:
        found = entries(self, folder)
        if folder == "_snapshots":
            for path in Path(filled.uri, folder).iterdir():
                if kept.id not in path.name:
                    path.unlink()
        return found

    for use in (
        lambda: [info.id for info in filled.snapshots.list()] == [kept.id],
        lambda: filled.snapshots.open().id == kept.id,
        lambda: filled.snapshots.take().id == kept.id,
        lambda: set(filled.snapshots.pinned()) == set(kept.tables()),
        lambda: not [one for one in filled.verify().findings if one.kind == "snapshot record"],
    ):
        (Path(filled.uri) / "_snapshots" / "0123456789abcdef.json").write_text("{")
        with monkeypatch.context() as patches:
            patches.setattr(LocalFiles, "entries", removing)
            assert use()


def test_checksums_are_computed_once_per_file(filled: Store, labels, hashed: list[str]) -> None:
    filled.snapshots.take()
    assert len(hashed) == 3
    filled.table(LABELS).merge(labels({("new", "x"): 1.0}))
    filled.snapshots.take()
    assert len(hashed) == 4
    filled.snapshots.open()
    assert len(hashed) == 4


def test_a_broken_record_is_named(filled: Store) -> None:
    snapshot = filled.snapshots.take()
    record = Path(filled.uri) / "_snapshots" / f"{snapshot.id}.json"
    tree = json.loads(record.read_text())
    del tree["tables"]
    record.write_text(json.dumps(tree))
    with pytest.raises(StoreError, match="cannot be read; restore or remove it"):
        filled.snapshots.list()


def test_a_snapshot_is_removed_with_its_last_name_or_by_its_id(filled: Store, labels) -> None:
    first = filled.snapshots.take("paper")
    filled.snapshots.take("thesis")
    assert filled.snapshots.remove("paper").names == ("thesis",)
    assert filled.snapshots.open("thesis").id == first.id
    with pytest.raises(StoreError, match="no snapshot is called paper; there are: thesis"):
        filled.snapshots.remove("paper")
    assert filled.snapshots.remove("thesis").names == ()
    assert filled.snapshots.list() == []
    filled.snapshots.take("paper")
    filled.snapshots.take("thesis")
    assert filled.snapshots.remove(first.id).names == ()
    assert filled.snapshots.list() == []
    with pytest.raises(StoreError, match="no snapshot is called paper; there are: none"):
        filled.snapshots.remove("paper")
    filled.table(LABELS).merge(labels({("z", "x"): 1.0}))
    assert filled.snapshots.take("paper").id != first.id


def test_a_snapshot_of_a_damaged_table_says_what_to_do(filled: Store, spec: TableSpec) -> None:
    a_file(filled, spec).unlink()
    with pytest.raises(StoreError, match=r"is gone; `miar verify .* --repair` mends the table"):
        filled.snapshots.take()

"""Older stores and tables are brought forward; newer ones are refused."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from storage import LABELS, Store, StoreError, TableSpec, migrations

OLD = {"format": "miar-store", "version": 1}
"""What the format file of the first stores said."""


def format_file(store: Store) -> Path:
    return Path(store.uri) / "miar-store.json"


@pytest.fixture
def old(store: Store, labels) -> Store:
    """A store of format 1 with a table in it."""
    store.table(LABELS).merge(labels({("a", "x"): 1.0}))
    format_file(store).write_text(json.dumps(OLD) + "\n")
    return Store.open(store.uri)


def test_a_new_store_has_an_id_of_its_own(tmp_path: Path) -> None:
    ids = {Store.create(tmp_path / name).id for name in "ab"}
    assert len(ids) == 2
    assert all(len(id_ or "") == 32 for id_ in ids)
    assert Store.open(tmp_path / "a").id in ids


def test_reading_an_older_store_changes_nothing(old: Store) -> None:
    assert old.format_version == 1
    assert old.id is None
    assert old.table(LABELS).count() == 1
    assert json.loads(format_file(old).read_text()) == OLD


def test_the_first_write_brings_an_older_store_forward(old: Store, labels) -> None:
    other = Store.open(old.uri)
    old.table(LABELS).merge(labels({("b", "x"): 1.0}))
    record = json.loads(format_file(old).read_text())
    assert record["version"] == old.format_version == migrations.FORMAT_VERSION == 2
    assert record["id"] == old.id
    assert record["created_at"]
    other.snapshots.take()
    assert other.id == old.id
    assert Store.open(old.uri).table(LABELS).count() == 2


def test_opening_for_writing_brings_an_older_store_forward(old: Store) -> None:
    assert Store.create(old.uri).format_version == 2
    assert Store.open(old.uri).id == Store.create(old.uri).id


def test_a_step_that_is_killed_is_made_again(old: Store, labels, monkeypatch) -> None:
    steps: list[int] = []

    def step(number: int, dies: bool):
        def run(files, tree: dict) -> dict:
            steps.append(number)
            if dies and steps.count(number) == 1:
                raise KeyboardInterrupt
            return {**tree, f"step-{number}": True}

        return run

    monkeypatch.setattr(migrations, "FORMAT_VERSION", 4)
    monkeypatch.setattr("storage.store.FORMAT_VERSION", 4)
    monkeypatch.setattr(migrations, "STEPS", {**migrations.STEPS, 2: step(2, False), 3: step(3, True)})
    with pytest.raises(KeyboardInterrupt):
        old.table(LABELS).merge(labels({("b", "x"): 1.0}))
    record = json.loads(format_file(old).read_text())
    assert (record["version"], steps) == (3, [2, 3])
    again = Store.open(old.uri)
    again.table(LABELS).merge(labels({("b", "x"): 1.0}))
    after = json.loads(format_file(old).read_text())
    assert steps == [2, 3, 3]
    assert after == {**record, "version": 4, "step-3": True}
    assert again.table(LABELS).count() == 2


def test_a_store_that_became_newer_meanwhile_is_refused_when_it_is_written(old: Store, labels) -> None:
    format_file(old).write_text('{"format": "miar-store", "version": 9}')
    with pytest.raises(StoreError) as error:
        old.table(LABELS).merge(labels({("b", "x"): 1.0}))
    assert "newer version (format 9, this one reads 2); upgrade miar" in str(error.value)
    assert "\n" not in str(error.value)


def wider(spec: TableSpec) -> TableSpec:
    """The table as a later version of miar might want it: two more columns, one of them in the middle."""
    fields = list(spec.schema)
    added = [*fields[:2], pa.field("weight", pa.float64()), *fields[2:], pa.field("note", pa.string())]
    return TableSpec(spec.name, pa.schema(added), spec.key)


def test_a_table_gets_the_columns_it_lacks_and_old_files_and_snapshots_still_read(store: Store, labels) -> None:
    spec, table = wider(LABELS), store.table(LABELS)
    table.merge(labels({("a", "x"): 1.0}))
    snapshot, before = store.snapshots.take("before"), table.read()
    files = {path: path.read_bytes() for path in Path(table.path).glob("*.parquet")}
    grown = store.table(spec)
    assert grown.read().select(LABELS.schema.names).equals(before)
    assert grown.read()["weight"].to_pylist() == [None]
    assert grown.version() == 0
    row = {**dict.fromkeys(spec.schema.names), "clip_id": "b", "name": "x", "weight": 2.0, "note": "new"}
    grown.merge(pa.Table.from_pylist([row], schema=spec.schema))
    rows = {row["clip_id"]: (row["value"], row["weight"], row["note"]) for row in grown.read().to_pylist()}
    assert rows == {"a": (1.0, None, None), "b": (None, 2.0, "new")}
    assert grown.version() == 2
    assert files.items() <= {path: path.read_bytes() for path in Path(table.path).glob("*.parquet")}.items()
    assert store.snapshots.open("before").read("labels").equals(before)
    assert snapshot.id != store.snapshots.take("after").id
    (removed, added) = (store.diff("before").tables["labels"], store.diff("before", "after").tables["labels"])
    assert removed.counts == added.counts == {"added": 1, "changed": 0, "removed": 0}


def test_rows_of_old_files_are_rewritten_with_the_new_columns(store: Store, labels) -> None:
    spec = wider(LABELS)
    store.table(LABELS).merge(labels({("a", "x"): 1.0, ("b", "x"): 2.0}))
    row = {**dict.fromkeys(spec.schema.names), "clip_id": "b", "name": "x", "weight": 2.0}
    grown = store.table(spec)
    assert grown.merge(pa.Table.from_pylist([row], schema=spec.schema)).rows_replaced == 1
    rows = {row["clip_id"]: (row["value"], row["weight"]) for row in grown.read().to_pylist()}
    assert rows == {"a": (1.0, None), "b": (None, 2.0)}


def test_an_older_version_refuses_a_table_that_has_more_columns(store: Store, labels) -> None:
    spec = wider(LABELS)
    row = {**dict.fromkeys(spec.schema.names), "clip_id": "b", "name": "x", "weight": 2.0}
    store.table(spec).merge(pa.Table.from_pylist([row], schema=spec.schema))
    with pytest.raises(StoreError, match=r"it has weight, note; upgrade miar if a newer version wrote it"):
        store.table(LABELS).read()
    kind = TableSpec("labels", pa.schema([*spec.schema][:-1]).append(pa.field("note", pa.float64())), spec.key)
    with pytest.raises(StoreError, match="note is string"):
        store.table(kind).read()


def test_a_key_cannot_be_added_to_rows_that_are_there(store: Store, labels) -> None:
    store.table(LABELS).merge(labels({("a", "x"): 1.0}))
    keyed = TableSpec("labels", LABELS.schema.append(pa.field("fold", pa.string())), (*LABELS.key, "fold"))
    with pytest.raises(StoreError, match="it has no fold, which cannot be added"):
        store.table(keyed).read()

"""Whatever of a store is read and turns out to be damaged or gone is named in one line that says what to do."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from storage import CLIPS, FEATURE_SETS, LABELS, Store, StoreError, TableSpec

HASHES = {f"clip-{i}": "1" for i in range(3)}


@pytest.fixture
def filled(catalogued, spec: TableSpec, features, wanted, labels) -> Store:
    store = catalogued(HASHES)
    table = store.table(spec)
    table.register([table.stage(features(HASHES), run_id="r", name="one")], wanted=wanted(HASHES))
    store.table(LABELS).merge(labels({("clip-0", "x"): 1.0}))
    return store


def one_line(error: pytest.ExceptionInfo[StoreError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "<unknown>" not in text
    return text


def live_file(store: Store, spec: TableSpec) -> Path:
    return Path(store.table(spec).file_uris()[0])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE = pytest.mark.parametrize("damage", [empty, Path.unlink])


@DAMAGE
def test_a_merge_over_a_damaged_file(filled: Store, labels, damage: Callable[[Path], None]) -> None:
    damage(live_file(filled, LABELS))
    for table in (filled.table(LABELS), Store.open(filled.uri).table(LABELS)):
        with pytest.raises(StoreError, match=r"the table labels cannot be read: .*`miar verify`") as error:
            table.merge(labels({("clip-0", "x"): 2.0}))
        one_line(error)


@DAMAGE
def test_a_merge_that_compares_rows_with_a_damaged_file(filled: Store, labels, damage: Callable[[Path], None]) -> None:
    table = filled.table(LABELS)
    assert table.merge(labels({("clip-0", "x"): 1.0})).rows_unchanged == 1, "its keys are known now"
    damage(live_file(filled, LABELS))
    with pytest.raises(StoreError, match="the table labels cannot be read: ") as error:
        table.merge(labels({("clip-0", "x"): 2.0}))
    one_line(error)


@DAMAGE
def test_shards_registered_beside_a_damaged_file(
    filled: Store, spec: TableSpec, features, wanted, damage: Callable[[Path], None]
) -> None:
    damage(live_file(filled, spec))
    table = Store.open(filled.uri).table(spec)
    shard = table.stage(features({"new": "1"}), run_id="r", name="new")
    with pytest.raises(StoreError, match=f"the table {spec.name} cannot be read: ") as error:
        table.register([shard], wanted=wanted({"new": "1"}))
    one_line(error)


def test_rows_that_cannot_be_copied_are_not_a_problem_of_writing(filled: Store) -> None:
    table, none = filled.table(CLIPS), CLIPS.schema.empty_table()
    table.merge(none, delete_keys=pa.table({"clip_id": ["stranger"]}))
    live_file(filled, CLIPS).unlink()
    # The keys were read just now: what fails is the copying of the rows that stay.
    with pytest.raises(StoreError) as error:
        table.merge(none, delete_keys=pa.table({"clip_id": ["clip-0"]}))
    assert "the table clips cannot be read: " in one_line(error)
    assert "cannot write" not in one_line(error)


@DAMAGE
def test_a_snapshot_of_a_store_without_its_descriptors(filled: Store, damage: Callable[[Path], None]) -> None:
    damage(live_file(filled, FEATURE_SETS))
    with pytest.raises(StoreError, match="feature_sets") as error:
        filled.snapshots.take()
    assert "miar verify" in one_line(error)


def spoil_an_entry(log: Path) -> None:
    (log / f"{0:020}.json").write_text("{")


def lose_an_entry(log: Path) -> None:
    (log / f"{1:020}.json").unlink()


@pytest.mark.parametrize("damage", [spoil_an_entry, lose_an_entry])
def test_a_log_that_cannot_be_read(filled: Store, labels, damage: Callable[[Path], None]) -> None:
    table = filled.table(LABELS)
    for value in (2.0, 3.0):
        table.merge(labels({("clip-0", "x"): value}))
    damage(Path(table.path) / "_delta_log")
    for use in (table.count, table.read, filled.snapshots.take, filled.snapshots.current):
        with pytest.raises(StoreError, match=r"cannot read the log of the table labels: .*`miar verify`") as error:
            use()
        assert len(one_line(error)) < 500

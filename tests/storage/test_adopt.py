"""Shards that dead runs left: adopted where they can be, and in nobody's way where they cannot."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storage import KeyedTable, RegisterResult, Store, StoreError, TableSpec

HASHES = {f"clip-{i}": "1" for i in range(40)}


@pytest.fixture
def table(store: Store, spec: TableSpec) -> KeyedTable:
    return store.table(spec)


def live(table: KeyedTable) -> dict[str, str]:
    rows = table.read(["clip_id", "input_hash"])
    assert rows.num_rows == table.count()
    return dict(zip(rows["clip_id"].to_pylist(), rows["input_hash"].to_pylist(), strict=True))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def drop_a_column(path: Path) -> None:
    """As an older version, which did not know of it, wrote the shard."""
    pq.write_table(pq.read_table(path).drop_columns("quality_voiced"), path)


def flip_a_data_byte(path: Path) -> None:
    """The keys can be read, and the rest cannot."""
    content = bytearray(path.read_bytes())
    column = next(i for i in range(99) if pq.read_metadata(path).schema.column(i).path.startswith("values"))
    chunk = pq.read_metadata(path).row_group(0).column(column)
    content[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(content)


DAMAGE = pytest.mark.parametrize("damage", [truncate, drop_a_column, flip_a_data_byte])


def test_the_wanted_rows_of_orphans_become_live(table: KeyedTable, features, wanted) -> None:
    assert table.adopt(wanted=wanted(HASHES)) == RegisterResult()
    table.stage(features({"a": "1", "b": "1"}), run_id="dead", name="ab")
    table.stage(features({"c": "old"}), run_id="dead", name="c")
    assert table.adopt(wanted=wanted({"a": "1", "c": "new"})) == RegisterResult(1, 0, 1, 1)
    assert live(table) == {"a": "1"}


@DAMAGE
def test_an_orphan_that_cannot_be_registered_stops_nobody(
    store: Store, table: KeyedTable, features, wanted, damage: Callable[[Path], None]
) -> None:
    table.stage(features({"good": "1"}), run_id="dead", name="good")
    bad = table.stage(features(HASHES), run_id="dead", name="bad")
    damage(Path(table.path) / bad)
    assert table.adopt(wanted=wanted({**HASHES, "good": "1"})) == RegisterResult(1, 0, 1, 1)
    assert table.orphans() == [bad]
    with pytest.raises(StoreError, match=bad):
        table.register([bad], wanted=wanted(HASHES))
    # The same work gives its shard the same name.
    again = table.stage(features(HASHES), run_id="next", name="bad")
    assert again != bad
    assert table.register([again], wanted=wanted(HASHES)).rows_added == 40
    assert live(table) == {**HASHES, "good": "1"}
    assert table.orphans() == [bad]
    assert [one.where for one in store.verify().findings if one.kind == "orphan"] == [f"{table.spec.name}/{bad}"]
    store.verify(repair=True)
    assert table.orphans() == []


def test_rows_of_an_orphan_that_is_passed_over_are_taken_from_another(table: KeyedTable, features, wanted) -> None:
    for name in ("a-bad-one", "good"):
        table.stage(features(HASHES), run_id="dead", name=name)
    flip_a_data_byte(Path(table.path) / "a-bad-one.parquet")
    assert table.adopt(wanted=wanted(HASHES)) == RegisterResult(40, 0, 1, 1)
    assert live(table) == HASHES
    assert table.adopt(wanted=wanted(HASHES)) == RegisterResult(0, 0, 0, 1)


def test_a_shard_is_staged_again_where_a_damaged_file_has_left_the_table(
    store: Store, table: KeyedTable, features, wanted
) -> None:
    """The file stays for those who pinned it, under the name that the same work gives its shard."""
    table.register([table.stage(features(HASHES), run_id="r", name="one")], wanted=wanted(HASHES))
    truncate(Path(table.path) / "one.parquet")
    store.verify(repair=True)
    assert live(table) == {}
    shard = table.stage(features(HASHES), run_id="next", name="one")
    assert table.register([shard], wanted=wanted(HASHES)).rows_added == 40
    assert live(table) == HASHES

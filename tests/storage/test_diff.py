"""What differs between two views of a store."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import CLIPS, LABELS, Store, StoreError, TableSpec
from storage.diff import TableDiff


def clips(rows: dict[str, dict]) -> pa.Table:
    blank = dict.fromkeys(CLIPS.schema.names) | {"corpus_id": "corpus", "state": "live"}
    return pa.Table.from_pylist([blank | {"clip_id": clip} | row for clip, row in rows.items()], schema=CLIPS.schema)


def test_clips_labels_and_features_that_differ(store: Store, spec: TableSpec, features, wanted, labels) -> None:
    table = store.table(spec)
    store.table(CLIPS).merge(clips({"a": {}, "b": {"text": "old"}, "c": {}, "seen": {"run_id": "r1"}}))
    store.table(LABELS).merge(labels({("a", "x"): 1.0, ("b", "x"): None, ("c", "x"): 3.0}))
    old = {"a": "1", "b": "1", "c": "1"}
    table.register([table.stage(features(old), run_id="r", name="old")], wanted=wanted(old))
    store.snapshots.take("before")
    assert not any(any(one.counts.values()) for one in store.diff("before").tables.values())
    changes = {"b": {"text": "new"}, "c": {"state": "gone"}, "d": {}, "seen": {"run_id": "r2"}}
    store.table(CLIPS).merge(clips(changes))
    gone = pa.table({"clip_id": ["c"], "name": ["x"]})
    store.table(LABELS).merge(labels({("a", "x"): 2.0, ("d", "x"): 4.0}), delete_keys=gone)
    new = {"b": "2", "d": "1"}
    table.register([table.stage(features(new), run_id="r", name="new")], wanted=wanted(new))
    expected = {
        "clips": TableDiff(added=["d"], changed=["b"], removed=["c"]),
        "labels": TableDiff(added=["d x"], changed=["a x"], removed=["c x"]),
        spec.name: TableDiff(added=["d"], changed=["b"], removed=[]),
    }
    assert store.diff("before", "now").tables == expected
    store.maintain()
    assert store.diff("before").tables == expected, "merging files is no change"
    after = store.snapshots.take("after")
    assert store.diff("before", "after").tables == expected
    assert store.diff("after", "before").tables["clips"] == TableDiff(added=["c"], changed=["b"], removed=["d"])
    assert store.diff("before", "after").new == after.id


def test_a_table_that_one_view_does_not_have(store: Store, spec: TableSpec, features, wanted) -> None:
    store.snapshots.take("empty")
    table = store.table(spec)
    table.register([table.stage(features({"a": "1"}), run_id="r", name="s")], wanted=wanted({"a": "1"}))
    assert store.diff("empty").tables[spec.name] == TableDiff(added=["a"], changed=[], removed=[])
    assert store.diff("now", "empty").tables[spec.name] == TableDiff(added=[], changed=[], removed=["a"])
    assert store.diff("now", "empty").tables["clips"] == TableDiff([], [], [])


def test_a_view_that_does_not_exist(store: Store) -> None:
    store.snapshots.take("one")
    with pytest.raises(StoreError, match="no snapshot is called two; there are: one"):
        store.diff("one", "two")
    with pytest.raises(StoreError, match="cannot name a snapshot"):
        store.snapshots.take("now")


content = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([None, 1.0, float("nan"), 2.0]))


@settings(max_examples=15, deadline=None)
@given(before=content, after=content)
def test_labels_against_dictionaries(tmp_path_factory, labels, before: dict, after: dict) -> None:
    store = Store.create(tmp_path_factory.mktemp("diff") / "store")
    table = store.table(LABELS)
    table.merge(labels({(clip, "x"): value for clip, value in before.items()}))
    store.snapshots.take("before")
    gone = sorted(before.keys() - after.keys())
    keys = pa.table({"clip_id": pa.array(gone, pa.string()), "name": pa.array(["x"] * len(gone), pa.string())})
    table.merge(labels({(clip, "x"): value for clip, value in after.items()}), delete_keys=keys)
    kept = before.keys() & after.keys()
    assert store.diff("before").tables["labels"] == TableDiff(
        added=[f"{clip} x" for clip in sorted(after.keys() - before.keys())],
        changed=[f"{clip} x" for clip in sorted(kept) if repr(before[clip]) != repr(after[clip])],
        removed=[f"{clip} x" for clip in gone],
    )

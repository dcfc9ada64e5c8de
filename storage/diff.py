"""What differs between two views of a store: clips, labels, and the rows of every feature set.

Notable: files never change, so what both views read from the same file is the same; only the other files are read, and
of features only keys and input hashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from storage.arrow import pc
from storage.keys import equal_rows, identity
from storage.schema import CLIPS, INPUT_HASH, LABELS
from storage.snapshots import Snapshot

_NOT_COMPARED = {"media_size", "media_mtime_ns", "updated_at", "run_id"}
"""When a clip was looked at, not what it is."""
_CLIP = pa.schema([field for field in CLIPS.schema if field.name not in _NOT_COMPARED])
_FEATURE = pa.schema(
    [(name, pa.string()) for name in ("clip_id", INPUT_HASH, "status", "reason")] + [("n_frames", pa.int32())]
)


@dataclass(frozen=True)
class TableDiff:
    """Keys of rows: clip ids, and for labels ``clip_id name`` pairs joined by a space; sorted."""

    added: list[str]
    changed: list[str]
    removed: list[str]

    @property
    def counts(self) -> dict[str, int]:
        return {"added": len(self.added), "changed": len(self.changed), "removed": len(self.removed)}


@dataclass(frozen=True)
class Diff:
    """What became of a store between two views."""

    old: str
    new: str
    tables: dict[str, TableDiff]
    """``clips``, ``labels`` and every feature table that either view has. A clip whose source is gone is removed."""


def diff(old: Snapshot, new: Snapshot) -> Diff:
    """Compare two views.

    Raises:
        StoreError: a view cannot be read.
    """
    features = sorted(name for name in {*old.tables(), *new.tables()} if name.startswith("features/"))
    tables = {"clips": _compare(old, new, CLIPS.name, CLIPS.key, _CLIP, live_only=True)}
    tables["labels"] = _compare(old, new, LABELS.name, LABELS.key, LABELS.schema)
    for name in features:
        tables[name] = _compare(old, new, name, ("clip_id",), _FEATURE)
    return Diff(old.id, new.id, tables)


def _compare(
    old: Snapshot, new: Snapshot, table: str, key: Sequence[str], schema: pa.Schema, *, live_only: bool = False
) -> TableDiff:
    shared = set(old.files(table)) & set(new.files(table))
    before, after = (_rows(view, table, schema, shared, live_only) for view in (old, new))
    if before is None or after is None:
        here = [] if before is None else _names(before, key)
        there = [] if after is None else _names(after, key)
        return TableDiff(added=there, changed=[], removed=here)
    ids, earlier = identity(after, key), identity(before, key)
    known = pc.is_in(ids, value_set=earlier.combine_chunks())
    kept = after.filter(known).combine_chunks()
    same = equal_rows(kept, before.take(pc.index_in(ids.filter(known), value_set=earlier.combine_chunks())))
    return TableDiff(
        added=_names(after.filter(pc.invert(known)), key),
        changed=_names(kept.filter(pc.invert(same)), key),
        removed=_names(before.filter(pc.invert(pc.is_in(earlier, value_set=ids.combine_chunks()))), key),
    )


def _rows(view: Snapshot, table: str, schema: pa.Schema, shared: set[str], live_only: bool) -> pa.Table | None:
    if table not in view.tables():
        return None
    rows = view.read_files(table, sorted(set(view.files(table)) - shared), schema)
    return rows.filter(pc.equal(rows["state"], "live")) if live_only else rows


def _names(rows: pa.Table, key: Sequence[str]) -> list[str]:
    return sorted(pc.binary_join_element_wise(*(rows[name] for name in key), " ").to_pylist())

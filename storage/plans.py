"""What a merge or a registration has to remove and add, given one version of the table.

A plan reads keys, never sequences, to decide; the rows of files that have to be rewritten are streamed when the
commit is written.
"""

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds

from storage import log, receipts
from storage.arrow import pc, readable
from storage.commits import Change
from storage.errors import StoreError
from storage.files import Files
from storage.keys import KeyIndex, equal_rows, first_occurrence, identity
from storage.schema import INPUT_HASH, TableSpec, check_unique
from storage.shards import check_shard, read_batches, read_keys, select, slices

_NOTHING = pa.schema([("id", pa.string()), (INPUT_HASH, pa.string())]).empty_table()
"""What a shard offers that is passed over."""
SMALL_BYTES = 2**20
SMALL_FILES = 32
"""A merge that meets more small files than this folds them into one."""


@dataclass(frozen=True)
class MergeResult:
    """What a merge changed; all zero but ``rows_unchanged`` means that nothing was written."""

    rows_added: int = 0
    rows_replaced: int = 0
    rows_deleted: int = 0
    rows_unchanged: int = 0


@dataclass(frozen=True)
class RegisterResult:
    """What came of the shards that were offered."""

    rows_added: int = 0
    rows_replaced: int = 0
    files_added: int = 0
    """Shards of which at least one row was accepted."""
    files_ignored: int = 0
    """Shards without a row that is wanted and not already there."""


class LiveKeys:
    """Finds live rows by their keys, and remembers what it has read. Threads may share it."""

    def __init__(self, files: Files, spec: TableSpec) -> None:
        self.spec = spec
        self._files = files
        self._payload = [INPUT_HASH] if spec.hashed else []
        self._index = KeyIndex(spec.key, self._payload)
        self._lock = threading.Lock()

    def find(self, version: log.Version, ids: pa.Array) -> pa.Table:
        """The live rows of these keys: ``id``, ``input_hash`` where the table has one, and ``file``."""
        live = set(version.names)
        with self._lock:
            self._index.retain(live)
            if unread := self._index.unknown(live):
                self._index.add(unread, self._read(version, unread))
            return self._index.find(ids)

    def _read(self, version: log.Version, names: set[str]) -> pa.Table:
        whole = log.dataset(self._files, self.spec, version)
        parts = [part for part in whole.get_fragments() if part.path in names]
        part = ds.FileSystemDataset(parts, self.spec.schema, ds.ParquetFileFormat(), parts[0].filesystem)
        with readable(self.spec.name):
            return part.to_table(columns=list(dict.fromkeys((*self.spec.key, *self._payload, "__filename"))))


class MergePlan:
    """Rows to be written over those of the same key, and keys to be deleted."""

    def __init__(self, files: Files, spec: TableSpec, keys: LiveKeys, rows: pa.Table, doomed: pa.Array) -> None:
        """``rows`` conform to the table; ``doomed`` are the ids of rows to delete, none of them in ``rows``."""
        self._files = files
        self._spec = spec
        self._keys = keys
        self._rows = rows
        self._ids = identity(rows, spec.key).combine_chunks()
        self._doomed = doomed

    def __call__(self, version: log.Version) -> tuple[Change, MergeResult]:
        present = self._keys.find(version, self._ids)["id"].combine_chunks()
        changes = pc.invert(self._unchanged(version, present))
        changed, changed_ids = self._rows.filter(changes), self._ids.filter(changes)
        leaving = pa.concat_arrays([changed_ids, self._doomed])
        found = self._keys.find(version, leaving)
        replaced = pc.sum(pc.is_in(changed_ids, value_set=present)).as_py() or 0
        result = MergeResult(
            rows_added=changed.num_rows - replaced,
            rows_replaced=replaced,
            rows_deleted=found.num_rows - replaced,
            rows_unchanged=self._rows.num_rows - changed.num_rows,
        )
        if not (changed.num_rows or found.num_rows):
            return Change(), result
        removed = sorted(set(pc.unique(found["file"]).to_pylist()) | _small_files(version))
        return Change(removed, written=self._written(changed, removed, leaving)), result

    def _unchanged(self, version: log.Version, present: pa.Array) -> pa.Array:
        """(n_rows,) booleans: rows that stand in the table exactly as they are."""
        if not len(present):
            return pa.repeat(False, self._rows.num_rows)
        key = self._spec.key[0]
        few = 2 * len(present) < pc.sum(version.live["num_records"]).as_py()
        chosen = pc.field(key).isin(pc.unique(self._rows[key])) if few else None
        with readable(self._spec.name):
            candidates = log.dataset(self._files, self._spec, version).to_table(filter=chosen).combine_chunks()
        where = pc.index_in(self._ids, value_set=identity(candidates, self._spec.key).combine_chunks())
        known = pc.is_valid(where)
        same = equal_rows(self._rows.filter(known), candidates.take(where.drop_null()))
        return pc.replace_with_mask(pa.repeat(False, self._rows.num_rows), known, same)

    def _written(self, changed: pa.Table, removed: Sequence[str], leaving: pa.Array) -> Iterator[pa.RecordBatch]:
        yield from slices(changed)
        for name in removed:
            yield from select(read_batches(self._files, self._spec, name), self._spec, leaving, keep=False)


def _small_files(version: log.Version) -> set[str]:
    small = version.live.filter(pc.less(version.live["size_bytes"], SMALL_BYTES))
    return set(small["path"].to_pylist()) if small.num_rows > SMALL_FILES else set()


class RegisterPlan:
    """Shards whose wanted rows are to become live."""

    def __init__(
        self,
        files: Files,
        spec: TableSpec,
        keys: LiveKeys,
        shards: Sequence[str],
        wanted: pa.Table,
        *,
        pass_over: bool = False,
    ) -> None:
        """
        Args:
            shards: names in the table's folder.
            wanted: the key columns and ``input_hash``.
            pass_over: whether a shard that cannot be registered is left out, and is no error.
        """
        self._files = files
        self._spec = spec
        self._keys = keys
        self._shards = list(dict.fromkeys(shards))
        self._wanted = pa.table({"id": identity(wanted, spec.key), INPUT_HASH: wanted[INPUT_HASH]})
        self._pass_over = pass_over
        self._offers: dict[str, pa.Table] = {}
        self._checked: set[str] = set()
        self.taken: list[str] = []
        """Shards that have a part in the commit that was planned last."""

    def __call__(self, version: log.Version) -> tuple[Change, RegisterResult]:
        live = set(version.names)
        fresh = [name for name in self._shards if name not in live]
        accepted = self._accept(version, fresh)
        taken = _by_file(accepted)
        if not self._are_sound(taken):
            return self(version)
        stale = self._keys.find(version, accepted["id"].combine_chunks())
        self.taken = list(taken)
        whole = [name for name, ids in taken.items() if len(ids) == self._offers[name].num_rows]
        parts = {name: ids for name, ids in taken.items() if name not in whole}
        removed = sorted(pc.unique(stale["file"]).to_pylist())
        result = RegisterResult(
            rows_added=accepted.num_rows - stale.num_rows,
            rows_replaced=stale.num_rows,
            files_added=len(taken),
            files_ignored=len(self._shards) - len(taken),
        )
        return Change(removed, whole, self._written(parts, removed, stale["id"].combine_chunks())), result

    def _accept(self, version: log.Version, shards: Sequence[str]) -> pa.Table:
        """The rows that are wanted and not live yet, each key once: ``id``, ``input_hash``, ``file``."""
        nothing = _NOTHING.append_column("file", pa.array([], pa.string()))
        offered = pa.concat_tables([nothing, *(self._offer(name) for name in shards)])
        relevant = self._wanted.filter(pc.is_in(self._wanted["id"], value_set=offered["id"].combine_chunks()))
        check_unique(relevant["id"], f"rows wanted for the table {self._spec.name}")
        offered = matching(offered, relevant, keep=True)
        offered = offered.filter(first_occurrence(offered["id"]))
        return matching(offered, self._keys.find(version, offered["id"].combine_chunks()), keep=False)

    def _offer(self, name: str) -> pa.Table:
        if name not in self._offers:
            try:
                keys = read_keys(self._files, self._spec, name)
            except StoreError:
                if not self._pass_over:
                    raise
                keys = _NOTHING
            self._offers[name] = keys.append_column("file", pa.repeat(name, keys.num_rows))
        return self._offers[name]

    def _are_sound(self, taken: dict[str, pa.Array]) -> bool:
        """Every shard that has a part in the commit is what its writer checked, or is read from end to end; once
        however often the commit is planned. ``False``: one was passed over, so that others may have its rows.
        """
        for name in (name for name in taken if name not in self._checked):
            try:
                if not receipts.vouches(self._files, self._spec, name):
                    check_shard(self._files, self._spec, name)
            except StoreError:
                if not self._pass_over:
                    raise
                self._offers[name] = self._offers[name].slice(0, 0)
                return False
            self._checked.add(name)
        return True

    def _written(self, parts: dict[str, pa.Array], removed: Sequence[str], stale: pa.Array) -> Iterator[pa.RecordBatch]:
        for name, ids in parts.items():
            yield from select(read_batches(self._files, self._spec, name), self._spec, ids, keep=True)
        for name in removed:
            yield from select(read_batches(self._files, self._spec, name), self._spec, stale, keep=False)


def _by_file(rows: pa.Table) -> dict[str, pa.Array]:
    """The ids of each file; the rows of a file stand together."""
    counts = pc.value_counts(rows["file"])
    lengths = counts.field("counts").to_pylist()
    ids = rows["id"].combine_chunks()
    starts = itertools.accumulate(lengths, initial=0)
    names = counts.field("values").to_pylist()
    return {name: ids.slice(start, length) for name, start, length in zip(names, starts, lengths, strict=False)}


def matching(rows: pa.Table, others: pa.Table, *, keep: bool) -> pa.Table:
    """The rows whose ``id`` and ``input_hash`` stand (``keep``), or do not stand, among ``others``."""
    columns = ("id", INPUT_HASH)
    among = pc.is_in(identity(rows, columns), value_set=identity(others, columns).combine_chunks())
    return rows.filter(among if keep else pc.invert(among))

"""One table of the store: read it, merge rows into it by key, and bring staged shards into it exactly once.

How a change is made: load the newest version, plan against it (what to remove, what to add), write new
files under ``_staging/``, then, under the commit guard, rename them into the table and commit to the log.
If another writer came first, the plan is thrown away and made again on the new version. Readers see the
version before or the version after. Files in a table's folder are never changed or deleted, whoever they
belong to.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from storage import log
from storage.errors import CommitConflictError, StoreError
from storage.files import LocalFiles
from storage.keys import KeyIndex, equal_rows, first_occurrence, identity
from storage.schema import INPUT_HASH, TableSpec, check_keys, check_rows, conform
from storage.shards import Shard, inspect, read_batches, select, slices, write_shard, write_shards

STAGING = "_staging"
READ_BATCH_ROWS = 256
MAX_ATTEMPTS = 30
_BACKOFF_S = (0.01, 1.0)
_SMALL_BYTES = 2**20
_SMALL_FILES = 32
"""A merge that meets more small files than this folds them into one."""

Result = TypeVar("Result")
Guard = Callable[[], AbstractContextManager[None]]


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


@dataclass
class _Change:
    """One commit in the making."""

    removed: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    """Shards that stand in the folder and enter the log as they are."""
    written: Iterable[pa.RecordBatch] = ()
    """Rows for new files."""


class KeyedTable:
    """A Delta table with one live row per key. Safe for any number of processes at once."""

    def __init__(self, files: LocalFiles, spec: TableSpec, guard: Guard) -> None:
        """``guard`` makes the context manager that commits and snapshots share."""
        self.spec = spec
        self.path = files.path(spec.name)
        self._files = files
        self._guard = guard
        self._index = KeyIndex(spec.key, (INPUT_HASH,) if spec.hashed else ())

    def exists(self) -> bool:
        """Whether anything was ever committed."""
        return log.exists(self._files, self.spec.name)

    def version(self) -> int | None:
        """The number of the newest version; ``None`` before the first commit."""
        return log.load(self._files, self.spec).number

    def count(self) -> int:
        """Live rows, from the log alone."""
        live = log.load(self._files, self.spec).live
        return pc.sum(live["num_records"]).as_py() or 0 if live.num_rows else 0

    def file_uris(self) -> list[str]:
        """Absolute paths of the live files, the only ones to be read: the folder holds others."""
        return [f"{self.path}/{name}" for name in sorted(log.load(self._files, self.spec).names)]

    def read(self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None) -> pa.Table:
        """The live rows, in no particular order; an empty table before the first commit."""
        names = list(columns) if columns is not None else None
        return self._dataset().to_table(columns=names, filter=filter)

    def batches(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        batch_size: int = READ_BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """The live rows of the version at the time of the call, at most ``batch_size`` at a time."""
        names = list(columns) if columns is not None else None
        return scan(self._dataset(), names, filter, batch_size)

    def merge(self, rows: pa.Table, *, delete_keys: pa.Table | None = None) -> MergeResult:
        """Write rows over those of the same key, add the others, delete ``delete_keys``, in one commit.

        Rows that equal the live ones are left alone; where nothing changes, no version is written.

        Args:
            rows: any order of the table's columns, every key once.
            delete_keys: the key columns of rows to delete; keys that are not there are passed over.

        Raises:
            StoreError: the rows do not fit, a key stands twice, or is both written and deleted.
            CommitConflictError: other writers came first every time.
        """
        rows = conform(rows, self.spec)
        check_rows(rows, self.spec, f"rows for the table {self.spec.name}")
        doomed = self._delete_ids(delete_keys)
        if pc.any(pc.is_in(identity(rows, self.spec.key), value_set=doomed)).as_py():
            raise StoreError(f"rows for the table {self.spec.name}: a key is both written and deleted")
        return self._commit(lambda version: self._plan_merge(version, rows, doomed))

    def stage(self, rows: pa.Table, *, run_id: str, name: str) -> str:
        """Write a shard for the committer: under ``_staging/<run_id>/``, then renamed into the table's
        folder.

        It is not live until :meth:`register` has it. A shard of that name that is already there with the
        same keys and input hashes is kept: an earlier attempt got this far.

        Returns:
            The file's name, for :meth:`register`.

        Raises:
            StoreError: rows do not fit the table; another shard has this name; the disk is full.
        """
        rows = conform(rows, self.spec)
        shard = f"{name}.parquet"
        check_rows(rows, self.spec, f"{self.spec.name}/{shard}")
        if "/" in name or "/" in run_id or name.startswith(".") or run_id in ("", ".", ".."):
            raise StoreError(
                f"{run_id!r} and {name!r} cannot name a run and a shard: leave out '/' and dots in front"
            )
        target = f"{self.spec.name}/{shard}"
        if self._files.size(target) is None:
            draft = f"{STAGING}/{run_id}/{name}.{uuid.uuid4().hex}.parquet"
            self._files.make_parent(draft)
            write_shard(self._files.path(draft), rows, self.spec)
            if self._files.publish(draft, target):
                return shard
            self._files.remove(draft)
        self._check_twin(shard, rows)
        return shard

    def register(self, files: Sequence[str], *, wanted: pa.Table) -> RegisterResult:
        """Make the wanted rows of shards live, each exactly once, in one commit.

        Shards are judged by their rows alone, wherever they come from: a row is accepted where its key and
        input hash are wanted and not already live. A live row of the same key with another input hash is
        replaced.

        Args:
            files: names in the table's folder, as :meth:`stage` and :meth:`orphans` return them.
            wanted: the key columns and ``input_hash``.

        Raises:
            StoreError: a shard is not there or not right. Nothing is committed then.
            CommitConflictError: other writers came first every time.
        """
        if not self.spec.hashed:
            raise StoreError(
                f"the table {self.spec.name} has no input_hash: its rows are merged, not registered"
            )
        check_keys(wanted, self.spec, f"rows wanted for the table {self.spec.name}")
        wanted_ids = pa.table({"id": identity(wanted, self.spec.key), INPUT_HASH: wanted[INPUT_HASH]})
        shards: dict[str, Shard] = {}
        names = list(dict.fromkeys(files))
        return self._commit(lambda version: self._plan_register(version, names, wanted_ids, shards))

    def orphans(self) -> list[str]:
        """Shards in the table's folder that no version of the log has ever named: staged, and never
        registered.

        Taken under the commit guard, so that a commit in the making is not among them.
        """
        with self._guard():
            present = {name for name in self._files.entries(self.spec.name) if name.endswith(".parquet")}
            strangers = present - set(log.load(self._files, self.spec).names)
            return sorted(strangers - log.ever_added(self._files, self.spec.name)) if strangers else []

    def _dataset(self) -> ds.Dataset:
        return log.dataset(self._files, self.spec, log.load(self._files, self.spec))

    def _commit(self, plan: Callable[[log.Version], tuple[_Change, Result]]) -> Result:
        """Plan on the newest version and commit, again and again until no other writer came between."""
        for attempt in range(MAX_ATTEMPTS):
            version = log.load(self._files, self.spec)
            change, result = plan(version)
            try:
                self._apply(version, change)
            except log.ConflictError:
                time.sleep(random.uniform(0.1, 1.0) * min(_BACKOFF_S[1], _BACKOFF_S[0] * 2**attempt))
            else:
                return result
        raise CommitConflictError(
            f"other writers changed the table {self.spec.name} {MAX_ATTEMPTS} times in a row; run this again"
        )

    def _apply(self, version: log.Version, change: _Change) -> None:
        """Write the new files, then make them live in place of the removed ones.

        Raises:
            log.ConflictError: the table is no longer at ``version``; no file was left behind.
        """
        drafts = f"{STAGING}/commit-{uuid.uuid4().hex}"
        try:
            written = self._write(drafts, change.written)
            if not (written or change.removed or change.adopted):
                return
            with self._guard():
                for name in written:
                    self._files.publish(f"{drafts}/{name}", f"{self.spec.name}/{name}")
                try:
                    added = [*change.adopted, *written]
                    log.commit(self._files, self.spec, version, removed=change.removed, added=added)
                except (log.ConflictError, StoreError):
                    self._withdraw(written)
                    raise
            log.checkpoint_if_due(self._files, self.spec, 0 if version.number is None else version.number + 1)
        finally:
            self._files.remove_tree(drafts)

    def _withdraw(self, written: Sequence[str]) -> None:
        """Take the files of a failed commit out of the folder, unless it reached the log after all."""
        live = set(log.load(self._files, self.spec).names)
        for name in written:
            if name not in live:
                self._files.remove(f"{self.spec.name}/{name}")

    def _write(self, folder: str, batches: Iterable[pa.RecordBatch]) -> list[str]:
        names: list[str] = []

        def new_path() -> str:
            names.append(f"{uuid.uuid4().hex}.parquet")
            self._files.make_parent(f"{folder}/{names[-1]}")
            return self._files.path(f"{folder}/{names[-1]}")

        write_shards(new_path, batches, self.spec)
        return names

    def _find(self, version: log.Version, ids: pa.Array | pa.ChunkedArray) -> pa.Table:
        """The live rows of these keys: ``id``, ``input_hash`` where the table has one, and ``file``."""
        live = set(version.names)
        self._index.retain(live)
        if unread := self._index.unknown(live):
            whole = log.dataset(self._files, self.spec, version)
            parts = [part for part in whole.get_fragments() if part.path in unread]
            part = ds.FileSystemDataset(parts, self.spec.schema, ds.ParquetFileFormat(), parts[0].filesystem)
            columns = [*self.spec.key, INPUT_HASH] if self.spec.hashed else [*self.spec.key]
            self._index.add(unread, part.to_table(columns=[*dict.fromkeys(columns), "__filename"]))
        return self._index.find(ids)

    def _delete_ids(self, delete_keys: pa.Table | None) -> pa.Array:
        if delete_keys is None:
            return pa.array([], pa.string())
        if missing := [name for name in self.spec.key if name not in delete_keys.schema.names]:
            raise StoreError(f"keys to delete from the table {self.spec.name} lack {', '.join(missing)}")
        return pc.unique(identity(delete_keys, self.spec.key))

    def _plan_merge(
        self, version: log.Version, rows: pa.Table, doomed: pa.Array
    ) -> tuple[_Change, MergeResult]:
        ids = identity(rows, self.spec.key)
        present = self._find(version, ids)["id"].combine_chunks()
        unchanged = self._unchanged(version, rows, ids, present)
        changed = rows.filter(pc.invert(unchanged))
        changed_ids = identity(changed, self.spec.key)
        leaving = pa.concat_arrays([changed_ids.combine_chunks().cast(pa.string()), doomed])
        found = self._find(version, leaving)
        replaced = pc.sum(pc.is_in(changed_ids, value_set=present)).as_py() or 0
        result = MergeResult(
            rows_added=changed.num_rows - replaced,
            rows_replaced=replaced,
            rows_deleted=found.num_rows - replaced,
            rows_unchanged=rows.num_rows - changed.num_rows,
        )
        if not (changed.num_rows or found.num_rows):
            return _Change(), result
        removed = set(pc.unique(found["file"]).to_pylist()) | self._small_files(version)
        return _Change(sorted(removed), written=self._merged(changed, removed, leaving)), result

    def _merged(self, changed: pa.Table, removed: set[str], leaving: pa.Array) -> Iterator[pa.RecordBatch]:
        yield from slices(changed)
        for name in sorted(removed):
            yield from select(read_batches(self._files, self.spec, name), self.spec, leaving, keep=False)

    def _unchanged(
        self, version: log.Version, rows: pa.Table, ids: pa.ChunkedArray, present: pa.Array
    ) -> pa.Array:
        """(n_rows,) booleans: rows that stand in the table exactly as they are."""
        if not len(present):
            return pa.repeat(False, rows.num_rows)
        key = self.spec.key[0]
        candidates = log.dataset(self._files, self.spec, version).to_table(
            filter=pc.field(key).isin(pc.unique(rows[key]))
        )
        where = pc.index_in(ids, value_set=identity(candidates, self.spec.key).combine_chunks())
        known = pc.is_valid(where)
        same = equal_rows(rows.filter(known), candidates.take(where.drop_null()))
        return pc.replace_with_mask(pa.repeat(False, rows.num_rows), known.combine_chunks(), same)

    def _small_files(self, version: log.Version) -> set[str]:
        small = version.live.filter(pc.less(version.live["size_bytes"], _SMALL_BYTES))
        return set(small["path"].to_pylist()) if small.num_rows > _SMALL_FILES else set()

    def _plan_register(
        self, version: log.Version, names: Sequence[str], wanted: pa.Table, shards: dict[str, Shard]
    ) -> tuple[_Change, RegisterResult]:
        live = set(version.names)
        fresh = [name for name in names if name not in live]
        for name in fresh:
            if name not in shards:
                shards[name] = inspect(self._files, self.spec, name)
        accepted, stale = self._accept(version, [shards[name] for name in fresh], wanted)
        taken = {name: accepted.filter(pc.equal(accepted["file"], name))["id"] for name in fresh}
        whole = [
            name for name in fresh if len(taken[name]) == shards[name].keys.num_rows and len(taken[name])
        ]
        parts = {
            name: taken[name].combine_chunks() for name in fresh if len(taken[name]) and name not in whole
        }
        removed = sorted(pc.unique(stale["file"]).to_pylist())
        written = self._registered(parts, removed, stale["id"].combine_chunks())
        result = RegisterResult(
            rows_added=accepted.num_rows - stale.num_rows,
            rows_replaced=stale.num_rows,
            files_added=len(whole) + len(parts),
            files_ignored=len(names) - len(whole) - len(parts),
        )
        return _Change(removed, whole, written), result

    def _accept(
        self, version: log.Version, shards: Sequence[Shard], wanted: pa.Table
    ) -> tuple[pa.Table, pa.Table]:
        """The offered rows that are wanted and not there yet, and the live rows that they replace."""
        schema = pa.schema([("id", pa.string()), (INPUT_HASH, pa.string()), ("file", pa.string())])
        offered = pa.concat_tables(
            [schema.empty_table()]
            + [
                shard.keys.append_column("file", pa.repeat(shard.name, shard.keys.num_rows))
                for shard in shards
            ]
        )
        offered = _matching(offered, wanted, keep=True)
        offered = offered.filter(first_occurrence(offered["id"]))
        offered = _matching(offered, self._find(version, offered["id"]), keep=False)
        return offered, self._find(version, offered["id"])

    def _registered(
        self, parts: dict[str, pa.Array], removed: Sequence[str], stale: pa.Array
    ) -> Iterator[pa.RecordBatch]:
        for name, ids in parts.items():
            yield from select(read_batches(self._files, self.spec, name), self.spec, ids, keep=True)
        for name in removed:
            yield from select(read_batches(self._files, self.spec, name), self.spec, stale, keep=False)

    def _check_twin(self, shard: str, rows: pa.Table) -> None:
        """A shard's name says what is in it: the one that is already there must hold the same."""
        there = inspect(self._files, self.spec, shard).keys
        here = pa.table({"id": identity(rows, self.spec.key), INPUT_HASH: rows[INPUT_HASH]})
        if there.num_rows != here.num_rows or _matching(here, there, keep=False).num_rows:
            raise StoreError(
                f"{self.spec.name}/{shard} is there already with other rows; give the shard another name"
            )


def _matching(rows: pa.Table, others: pa.Table, *, keep: bool) -> pa.Table:
    """The rows whose key and input hash stand (``keep``), or do not stand, among ``others``."""
    columns = ("id", INPUT_HASH)
    among = pc.is_in(identity(rows, columns), value_set=identity(others, columns).combine_chunks())
    return rows.filter(among if keep else pc.invert(among))


def scan(
    dataset: ds.Dataset, columns: list[str] | None, filter: pc.Expression | None, batch_size: int
) -> Iterator[pa.RecordBatch]:
    """Batches with little read ahead, so that memory does not grow with the table."""
    found = dataset.to_batches(
        columns=columns, filter=filter, batch_size=batch_size, batch_readahead=4, fragment_readahead=2
    )
    return (batch for batch in found if batch.num_rows)

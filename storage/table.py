"""One table of the store: read it, merge rows into it by key, and bring staged shards into it exactly once.

Readers see the version before a commit or the version after. Files in a table's folder are never changed or
deleted, so a reader, an old version and a snapshot keep theirs.
"""

import uuid
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.compute import Expression

from storage import log, receipts
from storage.arrow import pc, readable
from storage.bystanders import bystanders
from storage.commits import STAGING, Committer, Guard
from storage.errors import StoreError
from storage.files import Files
from storage.history import history
from storage.keys import identity
from storage.plans import LiveKeys, MergePlan, MergeResult, RegisterPlan, RegisterResult, matching
from storage.schema import INPUT_HASH, TableSpec, check_name, check_rows, conform
from storage.shards import check_shard, read_keys, write_shard

READ_BATCH_ROWS = 256


class KeyedTable:
    """A Delta table with one live row per key. Safe for any number of processes and threads at once."""

    def __init__(self, files: Files, spec: TableSpec, guard: Guard, keys: LiveKeys) -> None:
        """``guard`` makes the context manager that commits and snapshots share; ``keys`` remembers what it has read."""
        self.spec = spec
        self.path = files.path(spec.name)
        self._files = files
        self._guard = guard
        self._keys = keys
        self._committer = Committer(files, spec, guard)

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

    def read(self, columns: Sequence[str] | None = None, filter: Expression | None = None) -> pa.Table:
        """The live rows, in no particular order; an empty table before the first commit."""
        names = list(columns) if columns is not None else None
        with readable(self.spec.name):
            return self._files.persistently(lambda: self._dataset().to_table(columns=names, filter=filter))

    def batches(
        self,
        columns: Sequence[str] | None = None,
        filter: Expression | None = None,
        batch_size: int = READ_BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """The live rows of the version at the time of the call, at most ``batch_size`` at a time."""
        names = list(columns) if columns is not None else None
        return scan(self.spec.name, self._dataset(), names, filter, batch_size)

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
        return self._committer.commit(MergePlan(self._files, self.spec, self._keys, rows, doomed))

    def stage(self, rows: pa.Table, *, run_id: str, name: str) -> str:
        """Write a shard for the committer: under ``_staging/<run_id>/``, then renamed into the table's
        folder.

        It is not live until :meth:`register` has it. A shard of that name that is already there with the
        same keys and input hashes is kept: an earlier attempt got this far. One that cannot be read keeps its
        name, and this one gets another.

        Returns:
            The file's name, for :meth:`register`.

        Raises:
            StoreError: rows do not fit the table; a shard with other rows has this name; the disk is full.
        """
        self._require_hashes()
        if not rows.num_rows:
            raise StoreError(f"there are no rows for the shard {name} of the table {self.spec.name}")
        rows = conform(rows, self.spec)
        shard = f"{name}.parquet"
        check_rows(rows, self.spec, f"{self.spec.name}/{shard}")
        check_name(run_id)
        check_name(name)
        there = self._files.size(f"{self.spec.name}/{shard}") is not None and self._claim(shard)
        if there and self._is_twin(shard, rows):
            return shard
        draft = f"{STAGING}/{run_id}/{name}.{uuid.uuid4().hex}.parquet"
        write_shard(self._files.scratch(draft), rows, self.spec)
        while True:
            receipts.claim(self._files, self.spec, shard)
            if self._files.publish(draft, f"{self.spec.name}/{shard}"):
                receipts.write(self._files, self.spec, shard)
                return shard
            if self._is_twin(shard, rows):
                self._files.discard(draft)
                return shard
            shard = f"{name}-{uuid.uuid4().hex}.parquet"

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
        return self._register(files, wanted)

    def adopt(self, *, wanted: pa.Table) -> RegisterResult:
        """Make the wanted rows of :meth:`orphans` live, as :meth:`register` does.

        An orphan that cannot be registered (damaged, or with the columns of an older version) is passed over: nobody
        depends on it, so that it need not stop those who want to go on. `miar verify` names it.

        Raises:
            CommitConflictError: other writers came first every time.
        """
        return self._register(self.orphans(), wanted, pass_over=True)

    def orphans(self) -> list[str]:
        """Shards in the table's folder that no version of the log has ever named: staged, and never
        registered.

        Taken under the commit guard, so that a commit in the making is not among them.
        """
        present = {name for name in self._files.entries(self.spec.name) if name.endswith(".parquet")}
        if present <= set(log.load(self._files, self.spec).names):
            return []
        # Nearly all of the log is read before commits have to wait.
        past = history(self._files, self.spec.name)
        with self._guard():
            past = history(self._files, self.spec.name, past)
            live = log.load(self._files, self.spec).names
            return bystanders(self._files, self.spec.name, past, live).orphans

    def _dataset(self) -> ds.Dataset:
        return log.dataset(self._files, self.spec, log.load(self._files, self.spec))

    def _require_hashes(self) -> None:
        if not self.spec.hashed:
            raise StoreError(f"the table {self.spec.name} has no input_hash: merge its rows instead")

    def _register(self, files: Sequence[str], wanted: pa.Table, *, pass_over: bool = False) -> RegisterResult:
        self._require_hashes()
        for name in (*self.spec.key, INPUT_HASH):
            if name not in wanted.schema.names:
                raise StoreError(f"rows wanted for the table {self.spec.name} lack {name}")
        plan = RegisterPlan(self._files, self.spec, self._keys, files, wanted, pass_over=pass_over)
        result = self._committer.commit(plan)
        receipts.drop(self._files, self.spec, plan.taken)
        return result

    def _delete_ids(self, delete_keys: pa.Table | None) -> pa.Array:
        if delete_keys is None:
            return pa.array([], pa.string())
        if missing := [name for name in self.spec.key if name not in delete_keys.schema.names]:
            raise StoreError(f"keys to delete from the table {self.spec.name} lack {', '.join(missing)}")
        return pc.unique(identity(delete_keys, self.spec.key))

    def _claim(self, shard: str) -> bool:
        """Keep maintenance from a shard that was staged before; ``False``: it has just taken it away."""
        receipts.claim(self._files, self.spec, shard)
        with self._guard():
            return self._files.size(f"{self.spec.name}/{shard}") is not None

    def _is_twin(self, shard: str, rows: pa.Table) -> bool:
        """Whether the shard that is there holds these rows, as its name says; ``False``: it cannot be read.

        Raises:
            StoreError: it holds other rows.
        """
        try:
            check_shard(self._files, self.spec, shard)
            there = read_keys(self._files, self.spec, shard)
        except StoreError:
            receipts.drop(self._files, self.spec, [shard])
            return False
        here = pa.table({"id": identity(rows, self.spec.key), INPUT_HASH: rows[INPUT_HASH]})
        if there.num_rows != here.num_rows or matching(here, there, keep=False).num_rows:
            raise StoreError(f"{self.spec.name}/{shard} is there already with other rows; give the shard another name")
        receipts.write(self._files, self.spec, shard)
        return True


def scan(
    table: str, dataset: ds.Dataset, columns: list[str] | None, filter: Expression | None, batch_size: int
) -> Iterator[pa.RecordBatch]:
    """Batches with little read ahead, so that memory does not grow with the table."""
    with readable(table):
        found = dataset.to_batches(
            columns=columns, filter=filter, batch_size=batch_size, batch_readahead=4, fragment_readahead=2
        )
        yield from (batch for batch in found if batch.num_rows)

"""Snapshots: a pinned view of clips, labels, words and features, so that any result can be recomputed.

A snapshot keeps its own list of files with their checksums and does not need the log to be read. The tables
of record (scores, runs, failures) are not part of it: they are written because of a snapshot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import Schema
from pyarrow.compute import Expression

from storage.arrow import readable
from storage.errors import StoreError
from storage.files import Files
from storage.table import READ_BATCH_ROWS, scan


@dataclass(frozen=True)
class PinnedFile:
    """One file that a snapshot reads."""

    name: str
    """Within the table's folder."""
    size: int
    """Bytes."""
    modified_ns: int
    """While it stands, the checksum need not be computed again to open the snapshot."""
    sha256: str


@dataclass(frozen=True)
class PinnedTable:
    """One table as the snapshot saw it."""

    version: int
    delta_schema: str
    """JSON, as the Delta log has it."""
    files: tuple[PinnedFile, ...]


@dataclass(frozen=True)
class SnapshotInfo:
    """What the catalog says about a snapshot without opening it."""

    id: str
    names: tuple[str, ...]
    """In the order they were given."""
    created_at: datetime
    versions: dict[str, int]
    """Table -> version of its log."""

    @property
    def name(self) -> str | None:
        """The name given last."""
        return self.names[-1] if self.names else None


@dataclass(frozen=True)
class Record:
    """The file behind a snapshot."""

    id: str
    number: int
    """Order in which snapshots were taken: clocks can be set back."""
    names: tuple[str, ...]
    created_at: str
    feature_sets: Sequence[dict[str, Any]]
    tables: dict[str, PinnedTable]

    @property
    def info(self) -> SnapshotInfo:
        versions = {name: table.version for name, table in self.tables.items()}
        return SnapshotInfo(self.id, self.names, datetime.fromisoformat(self.created_at), versions)


class Snapshot:
    """A view that stays as it was, whatever happens to the tables afterwards."""

    def __init__(self, files: Files, record: Record) -> None:
        info = record.info
        self.id = info.id
        self.name = info.name
        self.created_at = info.created_at
        self.versions = info.versions
        self.feature_sets = record.feature_sets
        """Descriptor rows of the feature sets, as the table ``feature_sets`` had them."""
        self._files = files
        self._tables = record.tables

    def tables(self) -> list[str]:
        """Names of the tables in it, sorted."""
        return sorted(self._tables)

    def files(self, table_name: str) -> list[str]:
        """Names of a table's files, within the table's folder; none where the snapshot has no such table."""
        return [file.name for file in self._tables[table_name].files] if table_name in self._tables else []

    def read_files(self, table_name: str, names: Sequence[str], schema: pa.Schema) -> pa.Table:
        """The rows of some of a table's files, with null in columns of ``schema`` that the table did not have yet."""
        folder = self._files.filesystem(table_name)
        with readable(table_name):
            return ds.dataset(list(names), schema, format="parquet", filesystem=folder).to_table()

    def read(self, table_name: str, columns: Sequence[str] | None = None, filter: Expression | None = None) -> pa.Table:
        """The pinned rows of a table, in no particular order.

        Raises:
            StoreError: the snapshot has no such table.
        """
        names = list(columns) if columns is not None else None
        with readable(table_name):
            return self.dataset(table_name).to_table(columns=names, filter=filter)

    def batches(
        self,
        table_name: str,
        columns: Sequence[str] | None = None,
        filter: Expression | None = None,
        batch_size: int = READ_BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """The pinned rows of a table, at most ``batch_size`` at a time.

        Raises:
            StoreError: the snapshot has no such table.
        """
        names = list(columns) if columns is not None else None
        return scan(table_name, self.dataset(table_name), names, filter, batch_size)

    def verify(self) -> None:
        """Compare every file with its checksum, however long that takes.

        Raises:
            StoreError: naming the first file that is gone or changed.
        """
        for table, pinned in self._tables.items():
            for file in pinned.files:
                self._check(f"{table}/{file.name}", file, trust_unmodified=False)

    def check(self) -> dict[str, PinnedTable]:
        """Every file is there in its size, and those that were touched since still have their checksum.

        Returns:
            The tables in it, with the modification times that their files have now.

        Raises:
            StoreError: naming the first file that is gone or changed.
        """
        return {
            table: replace(
                pinned,
                files=tuple(self._check(f"{table}/{file.name}", file, trust_unmodified=True) for file in pinned.files),
            )
            for table, pinned in self._tables.items()
        }

    def _check(self, path: str, file: PinnedFile, *, trust_unmodified: bool) -> PinnedFile:
        """The file with the modification time that it had when it was found to be the same."""
        found = self._files.stat(path)
        if found is None:
            raise StoreError(f"snapshot {self.id} cannot be read: {path} is gone; restore it, or take a new snapshot")
        unmodified = trust_unmodified and found.modified_ns == file.modified_ns
        if found.size != file.size or not (unmodified or self._files.sha256(path) == file.sha256):
            raise StoreError(
                f"snapshot {self.id} cannot be read: {path} is not the file it was; restore it, or take a new snapshot"
            )
        return replace(file, modified_ns=found.modified_ns)

    def dataset(self, table_name: str) -> ds.Dataset:
        """The pinned files of a table, always in the same order, for whatever reads Arrow datasets.

        Raises:
            StoreError: the snapshot has no such table.
        """
        if table_name not in self._tables:
            known = ", ".join(self.tables()) or "none"
            raise StoreError(f"snapshot {self.id} has no table {table_name}; it has: {known}")
        pinned = self._tables[table_name]
        schema = pa.schema(Schema.from_json(pinned.delta_schema).to_arrow())
        names = [file.name for file in pinned.files]
        return ds.dataset(names, schema, format="parquet", filesystem=self._files.filesystem(table_name))

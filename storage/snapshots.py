"""Snapshots: a pinned view of clips, labels and features, so that any result can be recomputed.

A snapshot keeps its own list of files with their checksums and does not need the log to be read. The tables
of record (scores, runs, failures) are not part of it: they are written because of a snapshot.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable, Schema

from storage import log
from storage.errors import StoreError
from storage.files import LocalFiles
from storage.schema import CLIPS, FEATURE_SETS, LABELS
from storage.table import READ_BATCH_ROWS, scan

FOLDER = "_snapshots"
ID_HEX_DIGITS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID = re.compile(rf"[0-9a-f]{{{ID_HEX_DIGITS}}}")
_LOCK_TIMEOUT_S = 120.0


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
class _Record:
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

    def __init__(self, files: LocalFiles, record: _Record) -> None:
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

    def read(
        self, table_name: str, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> pa.Table:
        """The pinned rows of a table, in no particular order.

        Raises:
            StoreError: the snapshot has no such table.
        """
        names = list(columns) if columns is not None else None
        return self._dataset(table_name).to_table(columns=names, filter=filter)

    def batches(
        self,
        table_name: str,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        batch_size: int = READ_BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """The pinned rows of a table, at most ``batch_size`` at a time.

        Raises:
            StoreError: the snapshot has no such table.
        """
        names = list(columns) if columns is not None else None
        return scan(self._dataset(table_name), names, filter, batch_size)

    def verify(self) -> None:
        """Compare every file with its checksum, however long that takes.

        Raises:
            StoreError: naming the first file that is gone or changed.
        """
        for table, pinned in self._tables.items():
            for file in pinned.files:
                self._check(f"{table}/{file.name}", file, trust_unmodified=False)

    def check(self) -> None:
        """Every file is there in its size, and those that were touched since still have their checksum.

        Raises:
            StoreError: naming the first file that is gone or changed.
        """
        for table, pinned in self._tables.items():
            for file in pinned.files:
                self._check(f"{table}/{file.name}", file, trust_unmodified=True)

    def _check(self, path: str, file: PinnedFile, *, trust_unmodified: bool) -> None:
        size = self._files.size(path)
        if size is None:
            raise StoreError(
                f"snapshot {self.id} cannot be read: {path} is gone; restore it, or take a new snapshot"
            )
        unmodified = trust_unmodified and self._files.modified_ns(path) == file.modified_ns
        if size != file.size or not (unmodified or self._files.sha256(path) == file.sha256):
            raise StoreError(
                f"snapshot {self.id} cannot be read: {path} is not the file it was;"
                " restore it, or take a new snapshot"
            )

    def _dataset(self, table_name: str) -> ds.Dataset:
        if table_name not in self._tables:
            known = ", ".join(self.tables()) or "none"
            raise StoreError(f"snapshot {self.id} has no table {table_name}; it has: {known}")
        pinned = self._tables[table_name]
        schema = pa.schema(Schema.from_json(pinned.delta_schema).to_arrow())
        names = [file.name for file in pinned.files]
        return ds.dataset(names, schema, format="parquet", filesystem=self._files.filesystem(table_name))


class SnapshotCatalog:
    """The snapshots of a store."""

    def __init__(
        self,
        files: LocalFiles,
        guard: Callable[[], AbstractContextManager[None]],
        feature_tables: Callable[[], list[str]],
    ) -> None:
        """``guard`` is the one that commits take: while it is held, no table moves."""
        self._files = files
        self._guard = guard
        self._feature_tables = feature_tables

    def take(self, name: str | None = None) -> Snapshot:
        """Pin the tables as they are now. The same content gives the same snapshot, with one more name.

        Raises:
            StoreError: the name is taken by other content, or cannot be one.
        """
        if name is not None and (not _NAME.fullmatch(name) or _ID.fullmatch(name)):
            raise StoreError(
                f"{name!r} cannot name a snapshot: use up to 100 letters, digits, '.', '_' and '-'"
            )
        with self._guard():
            seen = self._versions()
        records = self._records()
        tables = self._pin(seen, records)
        identity = _content_id(tables)
        taken = "another snapshot is being taken; try again"
        with self._files.lock("snapshots", _LOCK_TIMEOUT_S, taken):
            record = self._enter(identity, name, tables, self._records())
        return Snapshot(self._files, record)

    def list(self) -> list[SnapshotInfo]:
        """All snapshots, in the order they were taken."""
        return [record.info for record in self._records()]

    def open(self, id_or_name: str | None = None) -> Snapshot:
        """A snapshot by its id or one of its names; ``None``: the one taken last.

        Raises:
            StoreError: there is no such snapshot, or a file of it is gone or changed.
        """
        records = self._records()
        if not records:
            raise StoreError(f"{self._files.root} has no snapshot yet; take one first")
        found = [record for record in records if id_or_name in (None, record.id, *record.names)]
        if not found:
            known = ", ".join(record.info.name or record.id for record in records)
            raise StoreError(f"no snapshot is called {id_or_name}; there are: {known}")
        snapshot = Snapshot(self._files, found[-1])
        snapshot.check()
        return snapshot

    def _versions(self) -> dict[str, DeltaTable]:
        fixed = [spec.name for spec in (CLIPS, LABELS, FEATURE_SETS) if log.exists(self._files, spec.name)]
        return {name: DeltaTable(self._files.url(name)) for name in [*fixed, *self._feature_tables()]}

    def _pin(self, seen: dict[str, DeltaTable], records: Sequence[_Record]) -> dict[str, PinnedTable]:
        """Checksums of all files; those that an earlier snapshot knows are not computed again."""
        known = {
            (table, file.name, file.size, file.modified_ns): file
            for record in records
            for table, pinned in record.tables.items()
            for file in pinned.files
        }
        tables: dict[str, PinnedTable] = {}
        for table, delta in seen.items():
            live = (
                pa.table(delta.get_add_actions(flatten=True)).select(["path", "size_bytes"]).sort_by("path")
            )
            files = []
            for name, size in zip(*live.to_pydict().values(), strict=True):
                modified = self._files.modified_ns(f"{table}/{name}")
                file = known.get((table, name, size, modified))
                files.append(file or PinnedFile(name, size, modified, self._files.sha256(f"{table}/{name}")))
            tables[table] = PinnedTable(delta.version(), delta.schema().to_json(), tuple(files))
        return tables

    def _enter(
        self, identity: str, name: str | None, tables: dict[str, PinnedTable], records: Sequence[_Record]
    ) -> _Record:
        """Write the record, unless it is there and the newest already."""
        owner = next((record for record in records if name is not None and name in record.names), None)
        if owner is not None and owner.id != identity:
            raise StoreError(
                f"the name {name} belongs to snapshot {owner.id} of other content; choose another name"
            )
        known = next((record for record in records if record.id == identity), None)
        if known is not None and known is records[-1] and (name is None or name in known.names):
            return known
        names = known.names if known is not None else ()
        record = _Record(
            id=identity,
            number=records[-1].number + 1 if records else 1,
            names=names if name is None or name in names else (*names, name),
            created_at=known.created_at if known is not None else datetime.now(UTC).isoformat(),
            feature_sets=known.feature_sets if known is not None else self._descriptors(tables),
            tables=known.tables if known is not None else tables,
        )
        self._files.write(
            f"{FOLDER}/{identity}.json", json.dumps(asdict(record), indent=1, default=str) + "\n"
        )
        return record

    def _descriptors(self, tables: dict[str, PinnedTable]) -> Sequence[dict[str, Any]]:
        if FEATURE_SETS.name not in tables:
            return []
        names = [file.name for file in tables[FEATURE_SETS.name].files]
        folder = self._files.filesystem(FEATURE_SETS.name)
        rows = ds.dataset(names, FEATURE_SETS.schema, format="parquet", filesystem=folder).to_table()
        return [
            {**row, "created_at": row["created_at"] and row["created_at"].isoformat()}
            for row in rows.sort_by([(column, "ascending") for column in FEATURE_SETS.key]).to_pylist()
        ]

    def _records(self) -> Sequence[_Record]:
        """In the order they were taken."""
        names = [name for name in self._files.entries(FOLDER) if name.endswith(".json")]
        return sorted((self._load(name) for name in names), key=lambda record: record.number)

    def _load(self, name: str) -> _Record:
        try:
            tree = json.loads(self._files.read(f"{FOLDER}/{name}"))
            tables = {
                table: PinnedTable(
                    pinned["version"],
                    pinned["delta_schema"],
                    tuple(PinnedFile(**file) for file in pinned["files"]),
                )
                for table, pinned in tree["tables"].items()
            }
            return _Record(**{**tree, "names": tuple(tree["names"]), "tables": tables})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._files.path(f'{FOLDER}/{name}')} cannot be read; restore or remove it"
            ) from error


def _content_id(tables: dict[str, PinnedTable]) -> str:
    """Depends on which bytes are read, not on how many commits led there."""
    content = {
        name: [table.delta_schema, sorted(file.sha256 for file in table.files)]
        for name, table in tables.items()
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:ID_HEX_DIGITS]

"""The catalog of snapshots: taking, naming, listing and opening them."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow.dataset as ds
from deltalake import DeltaTable

from storage import log
from storage.arrow import readable
from storage.errors import StoreError
from storage.files import Files
from storage.schema import CLIPS, FEATURE_SETS, LABELS, WORDS
from storage.snapshots import PinnedFile, PinnedTable, Record, Snapshot, SnapshotInfo

FOLDER = "_snapshots"
NOW = "now"
"""In place of a snapshot's name: the tables as they are."""
ID_HEX_DIGITS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID = re.compile(rf"[0-9a-f]{{{ID_HEX_DIGITS}}}")
_LOCK_TIMEOUT_S = 600.0
"""Taking a snapshot computes the checksums of all files that no earlier one knows."""


class SnapshotCatalog:
    """The snapshots of a store."""

    def __init__(
        self,
        files: Files,
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
        if name is not None and (not _NAME.fullmatch(name) or _ID.fullmatch(name) or name == NOW):
            raise StoreError(f"{name!r} cannot name a snapshot: use up to 100 letters, digits, '.', '_' and '-'")
        with self.lock():
            with self._guard():
                seen = self._versions()
            records = self.records()
            tables = self._pin(seen, records)
            return Snapshot(self._files, self._enter(_content_id(tables), name, tables, records))

    def remove(self, id_or_name: str) -> SnapshotInfo:
        """Forget a name, and with the last one or by its id the snapshot itself.

        Its files stay until maintenance finds that nothing else needs them.

        Returns:
            What is left of it under the remaining names; no names: nothing.

        Raises:
            StoreError: there is no such snapshot.
        """
        with self.lock():
            record = self._find(id_or_name, self.records())
            left = () if id_or_name == record.id else tuple(name for name in record.names if name != id_or_name)
            remaining = replace(record, names=left)
            if left:
                self._write(remaining)
            else:
                self._files.remove(f"{FOLDER}/{record.id}.json")
        return remaining.info

    def lock(self, timeout_s: float = _LOCK_TIMEOUT_S) -> AbstractContextManager[None]:
        """Held while a snapshot is taken or removed, and while maintenance deletes what none of them pins."""
        return self._files.lock("snapshots", timeout_s, "snapshots are being taken or cleaned up; try again")

    def pinned(self) -> dict[str, set[str]]:
        """Table -> names of the files that some snapshot reads."""
        found: dict[str, set[str]] = {}
        for record in self.records():
            for table, pinned in record.tables.items():
                found.setdefault(table, set()).update(file.name for file in pinned.files)
        return found

    def current(self) -> Snapshot:
        """The tables as they are now, in the form of a snapshot that is not kept and pins nothing."""
        with self._guard():
            seen = self._versions()
        tables = {
            table: PinnedTable(
                delta.version(),
                delta.schema().to_json(),
                tuple(PinnedFile(name, size, 0, "") for name, size in log.live_files(delta)),
            )
            for table, delta in seen.items()
        }
        return Snapshot(self._files, Record(NOW, 0, (), datetime.now(UTC).isoformat(), (), tables))

    def list(self) -> list[SnapshotInfo]:
        """All snapshots, in the order they were taken."""
        return [record.info for record in self.records()]

    def open(self, id_or_name: str | None = None) -> Snapshot:
        """A snapshot by its id or one of its names; ``None``: the one taken last.

        Raises:
            StoreError: there is no such snapshot, or a file of it is gone or changed.
        """
        records = self.records()
        if not records:
            raise StoreError(f"{self._files.root} has no snapshot yet; take one first")
        record = self._find(id_or_name, records)
        tables = Snapshot(self._files, record).check()
        if tables != record.tables:
            self._keep_times(record.id, tables)
        return Snapshot(self._files, record)

    def _keep_times(self, identity: str, seen: dict[str, PinnedTable]) -> None:
        """Note when files were modified that were found to be the same, as all are that were copied with their store.

        Otherwise they would be read from end to end whenever the snapshot is opened. A store that cannot be written, or
        whose snapshots are just being taken, has to do without.
        """
        with contextlib.suppress(StoreError), self.lock(timeout_s=0):
            record = self.load(f"{identity}.json")
            if record is not None:
                self._write(replace(record, tables=_with_times_of(record.tables, seen)))

    def _find(self, id_or_name: str | None, records: Sequence[Record]) -> Record:
        found = [record for record in records if id_or_name in (None, record.id, *record.names)]
        if not found:
            known = ", ".join(record.info.name or record.id for record in records) or "none"
            raise StoreError(f"no snapshot is called {id_or_name}; there are: {known}")
        return found[-1]

    def _versions(self) -> dict[str, DeltaTable]:
        fixed = [spec.name for spec in (CLIPS, LABELS, FEATURE_SETS, WORDS) if log.exists(self._files, spec.name)]
        return {name: log.open_table(self._files, name) for name in [*fixed, *self._feature_tables()]}

    def _pin(self, seen: dict[str, DeltaTable], records: Sequence[Record]) -> dict[str, PinnedTable]:
        """Checksums of all files; those that an earlier snapshot knows are not computed again."""
        known = {
            (table, file.name, file.size, file.modified_ns): file
            for record in records
            for table, pinned in record.tables.items()
            for file in pinned.files
        }
        tables: dict[str, PinnedTable] = {}
        for table, delta in seen.items():
            files = []
            for name, size in log.live_files(delta):
                modified = self._files.modified_ns(f"{table}/{name}")
                if modified is None:
                    raise StoreError(
                        f"{table}/{name} is gone; `miar verify {self._files.root} --repair` mends the table"
                    )
                file = known.get((table, name, size, modified))
                files.append(file or PinnedFile(name, size, modified, self._files.sha256(f"{table}/{name}")))
            tables[table] = PinnedTable(delta.version(), delta.schema().to_json(), tuple(files))
        return tables

    def _enter(
        self, identity: str, name: str | None, tables: dict[str, PinnedTable], records: Sequence[Record]
    ) -> Record:
        """Write the record, unless it is there and the newest already."""
        owner = next((record for record in records if name is not None and name in record.names), None)
        if owner is not None and owner.id != identity:
            raise StoreError(f"the name {name} belongs to snapshot {owner.id} of other content; choose another name")
        known = next((record for record in records if record.id == identity), None)
        tables = tables if known is None else _with_times_of(known.tables, tables)
        named = known is not None and (name is None or name in known.names)
        if known is not None and known is records[-1] and named and tables == known.tables:
            return known
        names = known.names if known is not None else ()
        record = Record(
            id=identity,
            number=records[-1].number + 1 if records else 1,
            names=names if name is None or name in names else (*names, name),
            created_at=known.created_at if known is not None else datetime.now(UTC).isoformat(),
            feature_sets=known.feature_sets if known is not None else self._descriptors(tables),
            tables=tables,
        )
        self._write(record)
        return record

    def _write(self, record: Record) -> None:
        self._files.write(f"{FOLDER}/{record.id}.json", json.dumps(asdict(record), indent=1, default=str) + "\n")

    def _descriptors(self, tables: dict[str, PinnedTable]) -> Sequence[dict[str, Any]]:
        if FEATURE_SETS.name not in tables:
            return []
        names = [file.name for file in tables[FEATURE_SETS.name].files]
        folder = self._files.filesystem(FEATURE_SETS.name)
        with readable(FEATURE_SETS.name):
            rows = ds.dataset(names, FEATURE_SETS.schema, format="parquet", filesystem=folder).to_table()
        return [
            {**row, "created_at": row["created_at"] and row["created_at"].isoformat()}
            for row in rows.sort_by([(column, "ascending") for column in FEATURE_SETS.key]).to_pylist()
        ]

    def records(self) -> Sequence[Record]:
        """The files behind the snapshots, in the order they were taken.

        Raises:
            StoreError: naming one that cannot be read.
        """
        found = (self.load(name) for name in self.record_files())
        return sorted((record for record in found if record is not None), key=lambda record: record.number)

    def record_files(self) -> Sequence[str]:
        """Names within ``_snapshots/``."""
        return [name for name in self._files.entries(FOLDER) if name.endswith(".json")]

    def load(self, name: str) -> Record | None:
        """The record in one of :meth:`record_files`; ``None``: it was removed after they were listed.

        Raises:
            StoreError: it cannot be read.
        """
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
            return Record(**{**tree, "names": tuple(tree["names"]), "tables": tables})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._files.path(f'{FOLDER}/{name}')} cannot be read; restore or remove it") from error


def _with_times_of(tables: dict[str, PinnedTable], seen: dict[str, PinnedTable]) -> dict[str, PinnedTable]:
    """``tables``, with the modification times that the same files have in ``seen``."""
    times = {
        (table, file.name, file.size, file.sha256): file for table, pinned in seen.items() for file in pinned.files
    }
    return {
        table: replace(
            pinned,
            files=tuple(times.get((table, file.name, file.size, file.sha256), file) for file in pinned.files),
        )
        for table, pinned in tables.items()
    }


def _content_id(tables: dict[str, PinnedTable]) -> str:
    """Depends on which bytes are read, not on how many commits led there."""
    content = {
        name: [table.delta_schema, sorted(file.sha256 for file in table.files)] for name, table in tables.items()
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:ID_HEX_DIGITS]

"""The store: a folder of Delta tables, its format version, its locks and its snapshots."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

from storage import log, migrations
from storage.catalog import NOW, SnapshotCatalog
from storage.commits import STAGING
from storage.compaction import TARGET_BYTES
from storage.diff import Diff, diff
from storage.errors import StoreError
from storage.files import Files, open_files
from storage.findings import Verification
from storage.inventory import feature_folders
from storage.leftovers import run_lock
from storage.maintenance import RETENTION_DAYS, MaintenanceReport, maintain
from storage.migrations import FORMAT_FILE, FORMAT_VERSION, StoreFormat
from storage.plans import LiveKeys
from storage.schema import TableSpec, check_name
from storage.table import KeyedTable
from storage.verify import Verifier

_GUARD_TIMEOUT_S = 120.0


class Store:
    """Everything that a corpus became: clips, labels, features, scores, and what was run.

    Make one with :meth:`create` or :meth:`open`. No file stays open between calls; each process opens a store of its
    own.
    """

    def __init__(self, files: Files, format: StoreFormat) -> None:
        self.uri = files.root
        self._files = files
        self._format = format
        self._keys: dict[str, LiveKeys] = {}
        self.snapshots = SnapshotCatalog(files, self._guard, self.feature_tables)

    @staticmethod
    def create(uri: str | os.PathLike[str]) -> "Store":
        """Make a store in an empty or new folder; a store that is there already is opened, and brought forward.

        Raises:
            StoreError: the folder holds other things, cannot be written, or is a store of a newer version.
        """
        files = open_files(uri)
        others = [name for name in files.entries("") if not name.startswith(FORMAT_FILE)]
        if files.size(FORMAT_FILE) is None:
            if files.is_file(""):
                raise StoreError(f"{files.root} is a file, not a folder; name an empty or new folder")
            if others:
                raise StoreError(f"{files.root} holds other things and is no store; name an empty or new folder")
            migrations.start(files)
        store = Store.open(uri)
        if store.format_version < FORMAT_VERSION:
            with store._guard():
                pass
        return store

    @staticmethod
    def open(uri: str | os.PathLike[str]) -> "Store":
        """Open a store, of this format or an older one; the first write brings an older one forward.

        Raises:
            StoreError: there is none, it was written by a newer version, or nothing here reads such a URL.
        """
        files = open_files(uri)
        if files.size(FORMAT_FILE) is None:
            raise StoreError(f"{files.root} is not a store: it has no {FORMAT_FILE}; check the path")
        return Store(files, migrations.read_format(files))

    @property
    def format_version(self) -> int:
        """The format that the store is written in; the first write brings an older one forward."""
        return self._format.version

    @property
    def id(self) -> str | None:
        """Random, and the store's own wherever it is moved; ``None`` while its format is older than 2."""
        return self._format.id

    def table(self, spec: TableSpec) -> KeyedTable:
        """A handle on a table; the table itself is made by its first commit."""
        keys = self._keys.setdefault(spec.name, LiveKeys(self._files, spec))
        if keys.spec != spec:
            keys = self._keys[spec.name] = LiveKeys(self._files, spec)
        return KeyedTable(self._files, spec, self._guard, keys)

    def feature_tables(self) -> list[str]:
        """Names of the feature tables that have had a commit, sorted."""
        return [name for name in feature_folders(self._files) if log.exists(self._files, name)]

    def lock(self, name: str, *, timeout_s: float = 0, once: bool = False) -> AbstractContextManager[None]:
        """Keep a second ``name`` from running on this store. The lock goes when this process does.

        ``once``: the name is never used again when the body has ended, and nothing of the lock stays.

        Raises:
            StoreError: another process holds it for longer than ``timeout_s`` seconds.
        """
        return run_lock(self._files, name, timeout_s=timeout_s, once=once)

    def maintain(
        self, *, target_bytes: int = TARGET_BYTES, retention_days: float = RETENTION_DAYS, dry_run: bool = False
    ) -> MaintenanceReport:
        """Merge small files, write checkpoints, and remove what nothing needs any more. Work may go on meanwhile.

        Args:
            target_bytes: size of merged files on disk.
            retention_days: what was replaced or left behind within so many days stays, for those who still read it.
            dry_run: only look.

        Raises:
            StoreError: another maintenance is running, or a snapshot cannot be read.
        """
        if retention_days < 0 or target_bytes <= 0:
            raise StoreError("the retention cannot be negative, and the target size must be larger than 0")
        with self.lock("maintenance"):
            return maintain(
                self._files,
                self._guard,
                self.snapshots,
                target_bytes=target_bytes,
                retention_s=retention_days * 86400,
                dry_run=dry_run,
            )

    def diff(self, old: str, new: str = NOW) -> Diff:
        """What differs between two snapshots, given by id or name; :data:`NOW` stands for the tables as they are.

        Raises:
            StoreError: there is no such snapshot, or a file of it is gone or changed.
        """
        views = [self.snapshots.current() if name == NOW else self.snapshots.open(name) for name in (old, new)]
        return diff(*views)

    def verify(self, *, repair: bool = False) -> Verification:
        """Look at every row, file, log and snapshot; with ``repair``, mend what is safe and look again.

        Raises:
            StoreError: maintenance or another verification is running, or the store cannot be written.
        """
        verifier = Verifier(self._files, self._guard, self.snapshots)
        # Maintenance could take a file away that is about to be read.
        with self.lock("maintenance"):
            return verifier.repair() if repair else verifier.verify()

    def staging(self, run_id: str) -> str:
        """The folder, on local disk, for what a run keeps that is not yet part of the store; it is made."""
        check_name(run_id)
        return os.path.dirname(self._files.scratch(f"{STAGING}/{run_id}/_"))

    def clear_staging(self, run_id: str) -> None:
        """Remove what a dead run left half written; the shards that it finished stand in their tables."""
        check_name(run_id)
        self._files.discard(f"{STAGING}/{run_id}")

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Held for the moment of a commit, and while a snapshot reads all tables' versions."""
        taken = f"another commit has held {self.uri} for {_GUARD_TIMEOUT_S:.0f} s; look for a stopped process"
        with self._files.lock("commit", _GUARD_TIMEOUT_S, taken):
            if self._format.version < FORMAT_VERSION:
                self._format = migrations.bring_forward(self._files)
            yield

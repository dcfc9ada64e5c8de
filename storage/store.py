"""The store: a folder of Delta tables, its format version, its locks and its snapshots."""

import json
import os
from contextlib import AbstractContextManager

from storage import log
from storage.catalog import SnapshotCatalog
from storage.commits import STAGING
from storage.errors import StoreError
from storage.files import Files, open_files
from storage.schema import TableSpec, check_name
from storage.table import KeyedTable

FORMAT_FILE = "miar-store.json"
FORMAT_VERSION = 1
_FEATURES = "features"
_GUARD_TIMEOUT_S = 120.0


class Store:
    """Everything that a corpus became: clips, labels, features, scores, and what was run.

    Make one with :meth:`create`, :meth:`open` or :meth:`open_or_create`. It holds no state and no file
    open, so each process opens its own.
    """

    def __init__(self, files: Files) -> None:
        self.uri = files.root
        self._files = files
        self.snapshots = SnapshotCatalog(files, self._guard, self.feature_tables)

    @staticmethod
    def create(uri: str | os.PathLike[str]) -> "Store":
        """Make a store in an empty or new folder; a store that is already there is opened.

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
            files.write(FORMAT_FILE, json.dumps({"format": "miar-store", "version": FORMAT_VERSION}) + "\n")
        return Store.open(uri)

    @staticmethod
    def open(uri: str | os.PathLike[str]) -> "Store":
        """Open a store.

        Raises:
            StoreError: there is none, it was written by a newer version, or it is not in a local folder.
        """
        files = open_files(uri)
        if files.size(FORMAT_FILE) is None:
            raise StoreError(f"{files.root} is not a store: it has no {FORMAT_FILE}; check the path")
        try:
            version = int(json.loads(files.read(FORMAT_FILE))["version"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{files.path(FORMAT_FILE)} cannot be read; restore it from a backup") from error
        if version > FORMAT_VERSION:
            raise StoreError(
                f"{files.root} was written by a newer version (format {version},"
                f" this one reads {FORMAT_VERSION}); upgrade miar"
            )
        return Store(files)

    @staticmethod
    def open_or_create(uri: str | os.PathLike[str]) -> "Store":
        """Open the store, or make it where there is none yet.

        Raises:
            StoreError: as :meth:`create`.
        """
        return Store.create(uri)

    def table(self, spec: TableSpec) -> KeyedTable:
        """A handle on a table; the table itself is made by its first commit."""
        return KeyedTable(self._files, spec, self._guard)

    def feature_tables(self) -> list[str]:
        """Names of the feature tables that have had a commit, sorted."""
        names = [
            f"{_FEATURES}/{extractor}/{config_hash}"
            for extractor in self._files.entries(_FEATURES)
            for config_hash in self._files.entries(f"{_FEATURES}/{extractor}")
        ]
        return [name for name in names if log.exists(self._files, name)]

    def lock(self, name: str, *, timeout_s: float = 0) -> AbstractContextManager[None]:
        """Keep a second ``name`` from running on this store. The lock goes when this process does.

        Raises:
            StoreError: another process holds it for longer than ``timeout_s`` seconds.
        """
        taken = f"another {name} is running on {self.uri}; wait until it has ended"
        return self._files.lock(f"run {name}", timeout_s, taken)

    def staging(self, run_id: str) -> str:
        """The folder, on local disk, for what a run keeps that is not yet part of the store; it is made."""
        check_name(run_id)
        return os.path.dirname(self._files.scratch(f"{STAGING}/{run_id}/_"))

    def clear_staging(self, run_id: str) -> None:
        """Remove what a dead run left half written; the shards that it finished stand in their tables."""
        check_name(run_id)
        self._files.discard(f"{STAGING}/{run_id}")

    def _guard(self) -> AbstractContextManager[None]:
        """Held for the moment of a commit, and while a snapshot reads all tables' versions."""
        taken = f"another commit has held {self.uri} for {_GUARD_TIMEOUT_S:.0f} s; look for a stopped process"
        return self._files.lock("commit", _GUARD_TIMEOUT_S, taken)

"""The Parquet feature store: immutable shards, a Delta log as the manifest, one live row per key, snapshots.

Names are loaded when they are first used, so that ``import storage`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.catalog import SnapshotCatalog
    from storage.diff import Diff, TableDiff
    from storage.errors import CommitConflictError, StoreError
    from storage.findings import Finding, Verification
    from storage.maintenance import MaintenanceReport
    from storage.plans import MergeResult, RegisterResult
    from storage.schema import (
        CLIPS,
        FAILURES,
        FEATURE_SETS,
        LABELS,
        RUNS,
        SCORES,
        TRANSCRIPTS,
        WORDS,
        TableSpec,
        feature_table,
    )
    from storage.snapshots import Snapshot, SnapshotInfo
    from storage.store import Store
    from storage.table import KeyedTable

__all__ = [
    "CLIPS",
    "FAILURES",
    "FEATURE_SETS",
    "LABELS",
    "RUNS",
    "SCORES",
    "TRANSCRIPTS",
    "WORDS",
    "CommitConflictError",
    "Diff",
    "Finding",
    "KeyedTable",
    "MaintenanceReport",
    "MergeResult",
    "RegisterResult",
    "Snapshot",
    "SnapshotCatalog",
    "SnapshotInfo",
    "Store",
    "StoreError",
    "TableDiff",
    "TableSpec",
    "Verification",
    "feature_table",
]

_HOMES = {
    "storage.catalog": ("SnapshotCatalog",),
    "storage.diff": ("Diff", "TableDiff"),
    "storage.errors": ("CommitConflictError", "StoreError"),
    "storage.findings": ("Finding", "Verification"),
    "storage.maintenance": ("MaintenanceReport",),
    "storage.plans": ("MergeResult", "RegisterResult"),
    "storage.schema": (
        "CLIPS",
        "FAILURES",
        "FEATURE_SETS",
        "LABELS",
        "RUNS",
        "SCORES",
        "TRANSCRIPTS",
        "WORDS",
        "TableSpec",
        "feature_table",
    ),
    "storage.snapshots": ("Snapshot", "SnapshotInfo"),
    "storage.store": ("Store",),
    "storage.table": ("KeyedTable",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'storage' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)

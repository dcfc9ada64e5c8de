"""What a store needs now and then: small files merged, checkpoints written, and what nothing needs removed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from storage import inventory, log
from storage.catalog import SnapshotCatalog
from storage.commits import Guard
from storage.compaction import compact, groups
from storage.errors import SEE_VERIFY, StoreError, one_line
from storage.files import Files
from storage.history import checkpoint_version, write_checkpoint
from storage.leftovers import Unneeded
from storage.schema import TableSpec
from storage.vacuum import Vacuum

RETENTION_DAYS = 7.0


@dataclass(frozen=True)
class TableCare:
    """What was done for one table, or would be."""

    table: str
    files: int
    """Live files before."""
    merged: int
    """How many of them were merged into larger ones."""
    checkpoint: bool
    """Whether its log was gathered into a checkpoint."""


@dataclass
class MaintenanceReport:
    """What was done, or would be."""

    dry_run: bool
    tables: list[TableCare] = field(default_factory=list)
    removed: list[Unneeded] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Tables that could not be cared for, or not wholly, and why; the others were."""

    def summary(self) -> dict[str, Any]:
        """Counts, for people and scripts."""
        return {
            "dry_run": self.dry_run,
            "tables": [vars(table) for table in self.tables],
            "removed": dict(sorted(Counter(file.why for file in self.removed).items())),
            "removed_bytes": sum(file.size for file in self.removed),
            "problems": self.problems,
        }


def maintain(
    files: Files,
    guard: Guard,
    catalog: SnapshotCatalog,
    *,
    target_bytes: int,
    retention_s: float,
    dry_run: bool,
) -> MaintenanceReport:
    """Merge small files, write checkpoints, remove what nothing needs. May be killed anywhere and run again.

    Raises:
        StoreError: a snapshot cannot be read; nothing is removed then.
    """
    report = MaintenanceReport(dry_run)

    def note(what: str, reason: str) -> None:
        report.problems.append(f"{what}: {reason.removesuffix(SEE_VERIFY)}; `miar verify {files.root}` says more")

    described: list[dict[str, Any]] = []
    try:
        described = inventory.descriptors(files)
    except StoreError as error:
        note("feature tables were cared for without their descriptors", one_line(error))
    for name in inventory.committed_tables(files):
        try:
            spec = inventory.spec_of(files, name, described)
            report.tables.append(_care(files, guard, spec, target_bytes, dry_run))
        except (StoreError, OSError) as error:
            note(f"{name} was left as it is", one_line(error))
    vacuum = Vacuum(files, guard, catalog, retention_s=retention_s)
    report.removed = vacuum.find() if dry_run else vacuum.remove()
    for name, reason in vacuum.problems.items():
        note(f"nothing more was removed from {name}", reason)
    return report


def _care(files: Files, guard: Guard, spec: TableSpec, target_bytes: int, dry_run: bool) -> TableCare:
    version = log.load(files, spec)
    planned: Sequence[str] = [name for group in groups(version, target_bytes) for name in group.names]
    merged = len(planned) if dry_run else compact(files, spec, guard, target_bytes)
    due = bool(merged) or checkpoint_version(files, spec.name) != version.number
    if due and not dry_run:
        write_checkpoint(files, spec.name)
    return TableCare(spec.name, len(version.names), merged, due)

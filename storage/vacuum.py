"""Files that nothing needs any more, and their removal.

A file of a table may go when no version that is newest names it, no snapshot pins it, it left the table (or, if it was
never in it, was written) longer ago than the retention, and no job has it in hand. Files that are replaced live on for
the retention, so that readers of an earlier version finish what they read.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from storage import receipts
from storage.catalog import FOLDER as SNAPSHOTS
from storage.catalog import SnapshotCatalog
from storage.commits import STAGING, Guard
from storage.files import DRAFT_SUFFIX, Draft, Files
from storage.history import History, checkpoints, history
from storage.inventory import table_folders

_AT_ONCE = 200
"""Files that are deleted while commits wait."""


@dataclass(frozen=True)
class Unneeded:
    """A file that may go."""

    path: str
    """Relative to the store."""
    size: int
    """Bytes."""
    why: str
    """``replaced``, ``orphan``, ``draft``, ``checkpoint`` or ``receipt``."""


class Vacuum:
    """Finds and removes what nothing needs."""

    def __init__(self, files: Files, guard: Guard, catalog: SnapshotCatalog, *, retention_s: float) -> None:
        """``retention_s``: what fell out of use fewer seconds ago stays."""
        now_ns = time.time_ns()
        self._files = files
        self._guard = guard
        self._catalog = catalog
        self._before_ns = now_ns - int(retention_s * 1e9)
        # However short the retention, a run that is at work keeps what it is writing.
        self._dead_before_ns = min(self._before_ns, now_ns - receipts.IN_HAND_NS)

    def find(self) -> list[Unneeded]:
        """Everything that may go as things stand.

        Raises:
            StoreError: a snapshot or a log cannot be read, so nobody knows what is needed.
        """
        pinned = self._catalog.pinned()
        found: list[Unneeded] = []
        for table in table_folders(self._files):
            found += self._of_table(table, pinned.get(table, set()), history(self._files, table))
            found += self._aside(table)
        return [*found, *self._drafts()]

    def remove(self) -> list[Unneeded]:
        """Remove what may go; returns what was removed. No snapshot is taken meanwhile.

        Raises:
            StoreError: as :meth:`find`, or a snapshot is being taken.
        """
        gone: list[Unneeded] = []
        with self._catalog.lock():
            pinned = self._catalog.pinned()
            for table in table_folders(self._files):
                gone += self._clear_table(table, pinned.get(table, set()))
        leftovers = [file for table in table_folders(self._files) for file in self._aside(table)]
        leftovers += self._drafts()
        for file in leftovers:
            if file.path.startswith(f"{STAGING}/"):
                self._files.discard(_run_of(file.path))
            else:
                self._files.remove(file.path)
        return [*gone, *leftovers]

    def _clear_table(self, table: str, pinned: set[str]) -> Iterator[Unneeded]:
        """A few at a time under the guard, so that neither a commit nor a job that takes a file up again is crossed."""
        log = history(self._files, table)
        while True:
            with self._guard():
                log = history(self._files, table, log)
                batch = list(self._of_table(table, pinned, log))[:_AT_ONCE]
                for file in batch:
                    self._files.remove(file.path)
            yield from batch
            if len(batch) < _AT_ONCE:
                return

    def _of_table(self, table: str, pinned: set[str], log: History) -> Iterator[Unneeded]:
        present = {name for name in self._files.entries(table) if name.endswith(".parquet")}
        # Listed after the folder: a job notes a file before it puts it there.
        for name in sorted(present - pinned - receipts.in_hand(self._files, table)):
            known = log.files.get(name)
            if known is None:
                yield from self._old([f"{table}/{name}"], "orphan", self._before_ns)
            elif known.removed_ms is not None and known.removed_ms * 10**6 < self._before_ns:
                yield Unneeded(f"{table}/{name}", self._files.size(f"{table}/{name}") or 0, "replaced")

    def _aside(self, table: str) -> Iterator[Unneeded]:
        """Superseded checkpoints (any version can be made from the log, which is kept whole) and old receipts."""
        superseded = (f"{table}/{name}" for name in checkpoints(self._files, table)[:-1])
        yield from self._old(superseded, "checkpoint", self._before_ns)
        folder = f"{receipts.FOLDER}/{table}"
        noted = (f"{folder}/{name}" for name in self._files.entries(folder))
        yield from self._old(noted, "receipt", self._dead_before_ns)

    def _drafts(self) -> Iterator[Unneeded]:
        """What was left half written: a run is dead when nothing of it was touched for long."""
        runs: defaultdict[str, list[Draft]] = defaultdict(list)
        for draft in self._files.drafts(STAGING):
            runs[_run_of(draft.name)].append(draft)
        for drafts in runs.values():
            if all(draft.modified_ns < self._dead_before_ns for draft in drafts):
                yield from (Unneeded(draft.name, draft.size, "draft") for draft in drafts)
        small = [*self._files.entries(""), *(f"{SNAPSHOTS}/{name}" for name in self._files.entries(SNAPSHOTS))]
        yield from self._old((name for name in small if name.endswith(DRAFT_SUFFIX)), "draft", self._dead_before_ns)

    def _old(self, paths: Iterable[str], why: str, before_ns: int) -> Iterator[Unneeded]:
        for path in paths:
            found = self._files.stat(path)
            if found is not None and found.modified_ns < before_ns:
                yield Unneeded(path, found.size, why)


def _run_of(draft: str) -> str:
    """The folder of the run that a draft belongs to."""
    return "/".join(draft.split("/")[:2])

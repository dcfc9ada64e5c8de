"""Files that nothing needs any more, and their removal.

A file of a table may go when no version that is newest names it, no snapshot pins it, it left the table (or, if it was
never in it, was written) longer ago than the retention, and no job has it in hand. Files that are replaced live on for
the retention, so that readers of an earlier version finish what they read.

Notable: only a log that is whole from its first entry on tells a replaced file or an orphan from one that is needed.
Of a table whose log has lost an entry, nothing is removed.
"""

import contextlib
import time
from collections.abc import Iterator
from itertools import islice

from storage import log, receipts
from storage.bystanders import bystanders
from storage.catalog import FOLDER as SNAPSHOTS
from storage.catalog import SnapshotCatalog
from storage.commits import Guard
from storage.errors import SEE_VERIFY, StoreError, one_line
from storage.files import Files
from storage.history import History, begun, checkpoints, history
from storage.inventory import table_folders
from storage.leftovers import Unneeded, of_dead_runs, of_ended_runs, old_drafts, old_files

_AT_ONCE = 200
"""Files that are deleted while commits wait."""


class Vacuum:
    """Finds and removes what nothing needs."""

    def __init__(self, files: Files, guard: Guard, catalog: SnapshotCatalog, *, retention_s: float) -> None:
        """``retention_s``: what fell out of use fewer seconds ago stays."""
        now_ns = time.time_ns()
        self.problems: dict[str, str] = {}
        """Table -> why it was left as it is."""
        self._files = files
        self._guard = guard
        self._catalog = catalog
        self._before_ns = now_ns - int(retention_s * 1e9)
        # However short the retention, a run that is at work keeps what it is writing.
        self._dead_before_ns = min(self._before_ns, now_ns - receipts.IN_HAND_NS)

    def find(self) -> list[Unneeded]:
        """Everything that may go as things stand.

        Raises:
            StoreError: a snapshot cannot be read, so nobody knows what is needed.
        """
        pinned = self._catalog.pinned()
        found: list[Unneeded] = []
        for table in table_folders(self._files):
            with self._table_by_itself(table):
                found += self._of_table(table, pinned.get(table, set()), history(self._files, table))
                found += self._aside(table)
        return [*found, *self._beside_the_tables(remove=False)]

    def remove(self) -> list[Unneeded]:
        """Remove what may go; returns what was removed. No snapshot is taken meanwhile.

        Raises:
            StoreError: as :meth:`find`, or a snapshot is being taken.
        """
        gone: list[Unneeded] = []
        with self._catalog.lock():
            pinned = self._catalog.pinned()
            for table in table_folders(self._files):
                with self._table_by_itself(table):
                    gone += self._clear_table(table, pinned.get(table, set()))
        for table in table_folders(self._files):
            if table not in self.problems:
                with self._table_by_itself(table):
                    gone += self._removed(self._aside(table))
        return [*gone, *self._beside_the_tables(remove=True)]

    @contextlib.contextmanager
    def _table_by_itself(self, table: str) -> Iterator[None]:
        """What is wrong with one table keeps no other from being cleared."""
        try:
            yield
        except (StoreError, OSError) as error:
            self.problems.setdefault(table, one_line(error).removesuffix(SEE_VERIFY))

    def _clear_table(self, table: str, pinned: set[str]) -> Iterator[Unneeded]:
        """A few at a time under the guard, so that neither a commit nor a job that takes a file up again is crossed."""
        past = history(self._files, table)
        while True:
            with self._guard():
                batch = list(self._removed(islice(self._of_table(table, pinned, past), _AT_ONCE)))
            yield from batch
            if len(batch) < _AT_ONCE:
                return

    def _removed(self, found: Iterator[Unneeded]) -> Iterator[Unneeded]:
        for file in found:
            self._files.remove(file.path)
            yield file

    def _of_table(self, table: str, pinned: set[str], past: History) -> Iterator[Unneeded]:
        """``past`` is brought up to date.

        Raises:
            StoreError: the log has lost entries, or cannot be read.
        """
        others = bystanders(self._files, table, past, self._live(table, past))
        # Listed after the folder: a job notes a file before it puts it there.
        needed = pinned | receipts.in_hand(self._files, table)
        orphans = (f"{table}/{name}" for name in others.orphans if name not in needed)
        yield from old_files(self._files, orphans, "orphan", self._before_ns)
        for name, named in others.replaced.items():
            if name not in needed and (named.removed_ms or 0) * 10**6 < self._before_ns:
                yield Unneeded(f"{table}/{name}", self._files.size(f"{table}/{name}") or 0, "replaced")

    def _live(self, table: str, past: History) -> set[str]:
        """The files that readers are led to, once it is clear that ``past`` knows as much as they do."""
        newest = log.open_table(self._files, table) if begun(self._files, table) else None
        history(self._files, table, past)
        if past.missing or (newest is not None and past.version < newest.version()):
            raise StoreError("entries of the log are gone, so nobody knows what the table needs")
        return set() if newest is None else {name for name, _ in log.live_files(newest)}

    def _aside(self, table: str) -> Iterator[Unneeded]:
        """Superseded checkpoints (any version can be made from the log, which is kept whole) and old receipts."""
        superseded = (f"{table}/{name}" for name in checkpoints(self._files, table)[:-1])
        yield from old_files(self._files, superseded, "checkpoint", self._before_ns)
        folder = f"{receipts.FOLDER}/{table}"
        noted = (f"{folder}/{name}" for name in self._files.entries(folder))
        yield from old_files(self._files, noted, "receipt", self._dead_before_ns)

    def _beside_the_tables(self, *, remove: bool) -> Iterator[Unneeded]:
        small = old_drafts(self._files, ("", SNAPSHOTS), self._dead_before_ns)
        yield from self._removed(small) if remove else small
        yield from of_dead_runs(self._files, self._dead_before_ns, remove=remove)
        yield from of_ended_runs(self._files, self._dead_before_ns, remove=remove)

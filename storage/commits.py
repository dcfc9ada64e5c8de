"""How a change becomes a commit: plan on the newest version, write, and commit, or plan again.

Notable: new files are renamed into the table only under the commit guard, so a file in the folder that is not in
the log belongs to a worker or to the dead, never to a commit in the making. The guard is a courtesy between processes
of one machine; that two commits cannot both replace one version is the log's own doing.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from storage import log
from storage.errors import CommitConflictError, StoreError
from storage.files import Files
from storage.schema import TableSpec
from storage.shards import write_shards

STAGING = "_staging"
MAX_ATTEMPTS = 30
_FIRST_WAIT_S = 0.01
_LONGEST_WAIT_S = 1.0

Guard = Callable[[], AbstractContextManager[None]]
Result = TypeVar("Result")


@dataclass
class Change:
    """What one commit does to the list of live files; empty: nothing, and no commit is made."""

    removed: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    """Shards that stand in the folder already and enter the log as they are."""
    written: Iterable[pa.RecordBatch] = ()
    """Rows for new files."""


class Committer:
    """Makes changes of one table live."""

    def __init__(self, files: Files, spec: TableSpec, guard: Guard) -> None:
        self._files = files
        self._spec = spec
        self._guard = guard

    def commit(self, plan: Callable[[log.Version], tuple[Change, Result]]) -> Result:
        """Plan on the newest version and commit, again and again until no other writer came between.

        Raises:
            CommitConflictError: others came between :data:`MAX_ATTEMPTS` times.
        """
        for attempt in range(MAX_ATTEMPTS):
            version = log.load(self._files, self._spec)
            change, result = plan(version)
            try:
                self._apply(version, change)
            except log.ConflictError:
                time.sleep(random.uniform(0.1, 1.0) * min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt))
            else:
                return result
        raise CommitConflictError(
            f"other writers changed the table {self._spec.name} {MAX_ATTEMPTS} times in a row; run this again"
        )

    def _apply(self, version: log.Version, change: Change) -> None:
        """Write the new files, then make them live in place of the removed ones.

        Raises:
            log.ConflictError: the table is no longer at ``version``; no file was left behind.
        """
        drafts = f"{STAGING}/commit-{uuid.uuid4().hex}"
        try:
            written = self._write(drafts, change.written)
            if not (written or change.removed or change.adopted):
                return
            with self._guard():
                for name in written:
                    self._files.publish(f"{drafts}/{name}", f"{self._spec.name}/{name}")
                try:
                    added = [*change.adopted, *written]
                    log.commit(self._files, self._spec, version, removed=change.removed, added=added)
                except (log.ConflictError, StoreError):
                    self._withdraw(written)
                    raise
            log.checkpoint_if_due(self._files, self._spec, version.next_number)
        finally:
            self._files.discard(drafts)

    def _withdraw(self, written: Sequence[str]) -> None:
        """Take the files of a failed commit out of the folder, unless it reached the log after all."""
        live = set(log.load(self._files, self._spec).names)
        for name in written:
            if name not in live:
                self._files.remove(f"{self._spec.name}/{name}")

    def _write(self, folder: str, batches: Iterable[pa.RecordBatch]) -> list[str]:
        names: list[str] = []

        def new_path() -> str:
            names.append(f"{uuid.uuid4().hex}.parquet")
            return self._files.scratch(f"{folder}/{names[-1]}")

        write_shards(new_path, batches, self._spec)
        return names

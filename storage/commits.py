"""How a change becomes a commit: plan on the newest version, write, and commit, or plan again.

Notable: new files are renamed into the table only under the commit guard, so a file in the folder that is not in
the log belongs to a worker or to the dead, never to a commit in the making. The guard is a courtesy between processes
of one machine; that two commits cannot both replace one version is the log's own doing.
"""

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from storage import log
from storage.errors import AccessError, CommitConflictError, StoreError
from storage.files import Files
from storage.history import checkpoint_if_due
from storage.schema import TableSpec
from storage.shards import write_shards

STAGING = "_staging"
MAX_ATTEMPTS = 30
_FIRST_WAIT_S = 0.01
_LONGEST_WAIT_S = 1.0
MAX_FAILURES = 10
"""Times that a network may keep one commit from being made."""
_LONGEST_NETWORK_WAIT_S = 8.0

Guard = Callable[[], AbstractContextManager[None]]
Rows = Callable[[], Iterable[pa.RecordBatch]]
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

        A table that lacks columns gets them first.

        Raises:
            CommitConflictError: others came between :data:`MAX_ATTEMPTS` times.
        """

        def attempt() -> Result:
            version = self._whole()
            change, result = plan(version)
            self._apply(version, change)
            return result

        return self._until_it_is_done(attempt)

    def rewrite(self, names: Sequence[str], rows: Rows, *, data_change: bool) -> bool:
        """Put ``rows``, which are read from the files ``names``, into one new file in their place.

        Files never change, so the new file is as good as they are for as long as all of them are live; a commit of
        others does not spoil it.

        Args:
            names: live files; all of them leave the table.
            rows: reads what is to stand there instead; none: nothing does.
            data_change: whether rows are changed or left out.

        Returns:
            Whether it was done; ``False``: one of ``names`` had left the table meanwhile.

        Raises:
            CommitConflictError: others came between :data:`MAX_ATTEMPTS` times.
        """

        def attempt() -> bool:
            self._whole()
            return self._replace(names, rows(), data_change)

        return self._until_it_is_done(attempt)

    def _until_it_is_done(self, attempt: Callable[[], Result]) -> Result:
        failures = 0
        for number in range(MAX_ATTEMPTS):
            try:
                return attempt()
            except log.ConflictError:
                longest = _LONGEST_WAIT_S
            except AccessError:
                failures += 1
                if not self._files.remote or failures == MAX_FAILURES:
                    raise
                longest = _LONGEST_NETWORK_WAIT_S
            time.sleep(random.uniform(0.1, 1.0) * min(longest, _FIRST_WAIT_S * 2**number))
        raise CommitConflictError(
            f"other writers changed the table {self._spec.name} {MAX_ATTEMPTS} times in a row; run this again"
        )

    def _replace(self, names: Sequence[str], rows: Iterable[pa.RecordBatch], data_change: bool) -> bool:
        with self._drafts() as drafts:
            written = self._write(drafts, rows, roll=False)
            with self._guard():
                version = log.load(self._files, self._spec)
                if not set(names) <= set(version.names):
                    return False
                self._enter(version, names, drafts, written, data_change=data_change)
        checkpoint_if_due(self._files, self._spec.name, version.next_number)
        return True

    def _whole(self) -> log.Version:
        """The newest version, with all columns."""
        version = log.load(self._files, self._spec)
        if not version.lacking:
            return version
        with self._guard():
            log.add_columns(self._files, self._spec, version)
        return log.load(self._files, self._spec)

    def _apply(self, version: log.Version, change: Change) -> None:
        """Write the new files, then make them live in place of the removed ones.

        Raises:
            log.ConflictError: the table is no longer at ``version``; no file was left behind.
        """
        with self._drafts() as drafts:
            written = self._write(drafts, change.written)
            if not (written or change.removed or change.adopted):
                return
            with self._guard():
                self._enter(version, change.removed, drafts, written, change.adopted)
        checkpoint_if_due(self._files, self._spec.name, version.next_number)

    @contextlib.contextmanager
    def _drafts(self) -> Iterator[str]:
        folder = f"{STAGING}/commit-{uuid.uuid4().hex}"
        try:
            yield folder
        finally:
            self._files.discard(folder)

    def _enter(
        self,
        version: log.Version,
        removed: Sequence[str],
        drafts: str,
        written: Sequence[str],
        adopted: Sequence[str] = (),
        *,
        data_change: bool = True,
    ) -> None:
        """Under the guard: give the drafts their names in the table's folder, and the log its entry."""
        added = [*adopted, *written]
        try:
            for name in written:
                self._files.publish(f"{drafts}/{name}", f"{self._spec.name}/{name}")
            log.commit(self._files, self._spec, version, removed=removed, added=added, data_change=data_change)
        except (log.ConflictError, StoreError) as error:
            # A write that was not answered may still be on its way to the log: its files stay for maintenance to judge.
            if isinstance(error, log.ConflictError) or not self._files.remote:
                self._withdraw(written)
            raise

    def _withdraw(self, written: Sequence[str]) -> None:
        """Take the files of a failed commit out of the folder, unless it reached the log after all."""
        live = set(log.load(self._files, self._spec).names)
        for name in written:
            if name not in live:
                self._files.remove(f"{self._spec.name}/{name}")

    def _write(self, folder: str, batches: Iterable[pa.RecordBatch], *, roll: bool = True) -> list[str]:
        names: list[str] = []

        def new_path() -> str:
            names.append(f"{uuid.uuid4().hex}.parquet")
            return self._files.scratch(f"{folder}/{names[-1]}")

        write_shards(new_path, batches, self._spec, roll=roll)
        return names

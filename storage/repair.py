"""Mending a table: entries without a file, files without readable rows, rows that stand twice.

Notable: of a feature table everything can be extracted again, so a file or row that is wrong is taken out and the next
refresh makes it anew. Rows of other tables are taken out only where nothing is lost by it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from storage import log
from storage.arrow import pc, readable
from storage.commits import Committer, Guard
from storage.files import Files
from storage.history import drop_checkpoints, write_checkpoint
from storage.keys import equal_rows, identity
from storage.schema import CLIPS, INPUT_HASH, TableSpec, broken_sequences
from storage.shards import read_batches


class Repair:
    """The mends of one table. Each is a commit for each file it touches; killed anywhere, it can be run again."""

    def __init__(self, files: Files, spec: TableSpec, guard: Guard) -> None:
        self._files = files
        self._spec = spec
        self._committer = Committer(files, spec, guard)
        self._guard = guard

    def drop(self, name: str) -> None:
        """Take a file out of the table; the file itself, where there is one, stays for those who pinned it."""
        self._committer.rewrite([name], lambda: (), data_change=True)

    def write_anew(self, name: str) -> None:
        """The same rows in a new file, with its right size and statistics in the log."""
        self._committer.rewrite([name], lambda: read_batches(self._files, self._spec, name), data_change=False)

    def drop_broken_rows(self, name: str) -> None:
        """Leave out the rows that break a rule of the table."""

        def rows() -> Iterator[pa.RecordBatch]:
            for batch in read_batches(self._files, self._spec, name):
                good = pc.invert(broken_rows(pa.Table.from_batches([batch]), self._spec))
                yield from _some(batch.filter(good.combine_chunks()))

        self._committer.rewrite([name], rows, data_change=True)

    def rebuild_checkpoint(self) -> None:
        """Make the checkpoint from the log itself."""
        with self._guard():
            drop_checkpoints(self._files, self._spec.name)
        write_checkpoint(self._files, self._spec.name)

    def drop_orphan(self, name: str) -> None:
        """Delete a shard that never was in the table and cannot be."""
        self._files.remove(f"{self._spec.name}/{name}")

    def keep_one(self, ids: pa.Array, names: Sequence[str]) -> None:
        """Of rows that share a key, keep one: made from what the clip is now, or else the latest, or one of equals.

        Rows that differ in a table that cannot be made anew are left.
        """
        losers = self._losers(ids, names)
        for name, numbers in losers.items():
            self._committer.rewrite([name], lambda name=name, out=numbers: self._without(name, out), data_change=True)

    def _without(self, name: str, numbers: set[int]) -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in read_batches(self._files, self._spec, name):
            keep = [number not in numbers for number in range(start, start + batch.num_rows)]
            start += batch.num_rows
            yield from _some(batch.filter(pa.array(keep, pa.bool_())))

    def _losers(self, ids: pa.Array, names: Sequence[str]) -> dict[str, set[int]]:
        """File -> numbers of the rows to leave out."""
        found: defaultdict[str, list[_Copy]] = defaultdict(list)
        for name in names:
            for id_, copy in self._copies(name, ids):
                found[id_].append(copy)
        hashes = self._current_hashes(ids) if self._spec.n_columns is not None else {}
        losers: defaultdict[str, set[int]] = defaultdict(set)
        for id_, copies in found.items():
            if self._spec.n_columns is not None:
                current = hashes.get(id_, set())
                kept = max(copies, key=lambda copy: (copy.row[INPUT_HASH] in current, str(copy.row["extracted_at"])))
            elif all(_same(copies[0].whole, copy.whole) for copy in copies[1:]):
                kept = copies[0]
            else:
                continue
            for copy in copies:
                if copy is not kept:
                    losers[copy.name].add(copy.number)
        return losers

    def _copies(self, name: str, ids: pa.Array) -> Iterator[tuple[str, "_Copy"]]:
        start = 0
        for batch in read_batches(self._files, self._spec, name):
            rows = pa.Table.from_batches([batch])
            own = identity(rows, self._spec.key)
            for number in np.flatnonzero(pc.is_in(own, value_set=ids).to_numpy()):
                row = rows.slice(number, 1)
                stamps = row.select([name for name in (INPUT_HASH, "extracted_at") if name in row.schema.names])
                whole = row if self._spec.n_columns is None else None
                yield own[number].as_py(), _Copy(name, start + int(number), stamps.to_pylist()[0], whole)
            start += batch.num_rows

    def _current_hashes(self, clip_ids: pa.Array) -> dict[str, set[str | None]]:
        """clip_id -> what a row of it may be made from today."""
        clips = log.dataset(self._files, CLIPS, log.load(self._files, CLIPS))
        with readable(CLIPS.name):
            clips = clips.to_table(["clip_id", "media_hash", "text_hash"], filter=pc.field("clip_id").isin(clip_ids))
        return {row["clip_id"]: {row["media_hash"], row["text_hash"]} - {None} for row in clips.to_pylist()}


@dataclass(frozen=True)
class _Copy:
    """One of several rows of a key."""

    name: str
    """Of the file."""
    number: int
    """Of the row within the file."""
    row: dict[str, Any]
    whole: pa.Table | None
    """The row itself, where copies are compared."""


def _same(left: pa.Table | None, right: pa.Table | None) -> bool:
    assert left is not None
    assert right is not None
    return equal_rows(left, right)[0].as_py()


def _some(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.num_rows:
        yield batch


def broken_rows(rows: pa.Table, spec: TableSpec) -> pa.ChunkedArray:
    """(n_rows,) booleans: rows without a key or input hash, or that break a rule of the table's sequences."""
    broken = pa.chunked_array([pa.repeat(False, rows.num_rows)])
    for wrong in row_rules(rows, spec).values():
        broken = pc.or_(broken, wrong)
    return broken


def row_rules(rows: pa.Table, spec: TableSpec) -> dict[str, pa.ChunkedArray]:
    """Rule -> (n_rows,) booleans: the rows that break it."""
    required = (*spec.key, INPUT_HASH) if spec.n_columns is not None else spec.key
    rules = {f"no {name}": pc.is_null(rows[name]) for name in required}
    return rules | (broken_sequences(rows, spec) if spec.n_columns is not None else {})
